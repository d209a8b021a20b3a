"""What the pages show is true: commands exist, files are there, extras have these names, and Python runs."""

import contextlib
import doctest
import io
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser as torchrun_parser

from app.main import _parser as app_parser
from proxsparse import export_model, load_model, magnitude
from proxsparse.cli.main import build_parser

ROOT = Path.cwd()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))
}
PAGES["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
OTHERS = ("source", "ssh", "docker", "export")  # commands that are not ours


def fenced(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


COMMANDS = [
    (page, command)
    for page in PAGES
    for block in fenced(page, "bash")
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
    for command in line.split("&&")
]
WITH_PYTHON = [page for page in PAGES if page != "README.md" and fenced(page, "python")]
WITH_EXAMPLES = [page for page in PAGES if fenced(page, "pycon")]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_is_one(page, command):
    name, *arguments = shlex.split(command, comments=True)
    if name == "proxsparse":
        parser = app_parser() if arguments[0] == "app" else build_parser()
        parser.parse_args(arguments[1:] if arguments[0] == "app" else arguments)
    elif name == "torchrun":
        started = torchrun_parser().parse_args(arguments)
        assert started.module and started.training_script == "proxsparse"
        build_parser().parse_args(started.training_script_args)
    elif name == "make":
        assert f"\n{arguments[0]}: " in (ROOT / "Makefile").read_text()
    elif name == "python":
        assert (ROOT / arguments[0]).is_file()
    elif name == "pip":
        assert arguments[0] == "install"
    else:
        assert name in OTHERS


def test_extras_are_named_as_they_are():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [
        name
        for text in PAGES.values()
        for found in re.findall(r"'(?:proxsparse|\.)\[([\w,]+)\]'", text)
        for name in found.split(",")
    ]
    assert len(named) > 5 and set(named) <= set(declared)


def test_files_that_pages_name_are_there():
    named = {
        path
        for text in PAGES.values()
        for path in re.findall(r"`((?:proxsparse|app|benchmarks|tests|docs)/[\w./-]+)`", text)
    }
    assert len(named) > 20
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.fixture
def place(tmp_path, tiny_directory, monkeypatch):
    """A folder with what the snippets read: an example run, and exports of a tiny model, dense and compact."""
    monkeypatch.chdir(tmp_path)
    Path("assets").symlink_to(ROOT / "assets")
    lm = load_model(str(tiny_directory))
    masks = magnitude(lm.model).masks
    for name, format in (("sparse-model", "dense"), ("half-size", "compact")):
        export_model(lm, masks, name, format=format)


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_runs(page, place, tiny_directory):
    """From top to bottom, a tiny model in the place of the embedded one."""
    snippets = "\n".join(fenced(page, "python")).replace("steps=80", "steps=3")
    names, said = {}, io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(snippets.replace('"embedded"', repr(str(tiny_directory))), page, "exec"), names)
    assert said.getvalue().strip(), "a snippet shows something"


@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_examples_show_what_comes_out(page):
    examples = doctest.DocTestParser().get_doctest("\n".join(fenced(page, "pycon")), {}, page, page, 0)
    found = doctest.DocTestRunner(verbose=False).run(examples)
    assert found.attempted > 0 and found.failed == 0


def test_there_are_snippets():
    assert len(COMMANDS) > 40 and len(WITH_PYTHON) >= 5 and WITH_EXAMPLES
