"""What the documentation shows is true: examples run, commands exist, pictures and files are there."""

import doctest
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from proxsparse.cli.main import build_parser

README = Path("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module",
    [
        "proximal.operator",
        "proximal.regularizer",
        "masks.mask",
        "masks.mask_set",
        "text.corpus",
        "learning.ramp",
        "accounts.passwords",
        "accounts.user_file",
    ],
)
def test_docstring_examples(module):
    import torch

    loaded = importlib.import_module(f"proxsparse.{module}")
    found = doctest.testmod(loaded, extraglobs={"torch": torch})
    assert found.attempted > 0 and found.failed == 0


def test_the_readme_s_commands_exist():
    commands = re.findall(r"^proxsparse (.*)$", README, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_the_readme_s_python_is_python_and_its_names_are_public():
    import proxsparse

    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(snippet, "README", "exec")
    for name in re.search(r"from proxsparse import (.*)", snippet)[1].split(", "):
        assert getattr(proxsparse, name)


def test_the_readme_s_files_are_there():
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README) + re.findall(
        r"`((?:notebooks|app|proxsparse)/[\w./]+)`", README
    ):
        assert Path(path).exists(), path


def test_the_readme_can_be_read_in_five_minutes():
    assert README.count("\n") <= 120


def test_the_table_of_the_quality_study_is_what_was_measured():
    from benchmarks.quality import RESULTS, table

    assert table(json.loads(RESULTS.read_text())) in Path("docs/quality.md").read_text(encoding="utf-8")


def test_every_public_name_can_be_imported_and_says_what_it_is():
    import proxsparse

    for name in proxsparse.__all__:
        assert getattr(proxsparse, name).__doc__, name
