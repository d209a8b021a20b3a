"""Output into a pipe or console whose encoding lacks ‖, ± or λ: spelled otherwise, and no result is lost."""

import io
import os
import subprocess
import sys

import pytest

from proxsparse.cli.output import SPELLED, write_in_any_encoding

STEPS = ("--length", "16", "--context", "32", "--windows", "4", "--steps", "1", "--evaluate-every", "0")


def proxsparse(*arguments, encoding):
    return subprocess.run(
        [sys.executable, "-m", "proxsparse", *map(str, arguments)],
        capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
@pytest.mark.parametrize("command", ["learn", "compare", "sweep", "export", "bench"])
def test_help_in_any_encoding(command, encoding, monkeypatch):
    from proxsparse.cli import main

    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", written)
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    written.flush()
    assert ended.value.code == 0 and b"usage: proxsparse" in written.buffer.getvalue()


def test_a_result_in_ascii(tiny_directory, text_file):
    found = proxsparse("eval", tiny_directory, "--corpus", text_file, "--context", 32, "--windows", 2, encoding="ascii")
    assert found.returncode == 0, found.stderr
    assert b" +/- " in found.stdout


def test_a_run_in_ascii(tiny_directory, text_file, tmp_path):
    arguments = ("learn", "--model", tiny_directory, "--corpus", text_file, *STEPS, "--out", tmp_path / "run")
    found = proxsparse(*arguments, encoding="ascii")
    assert found.returncode == 0, found.stderr
    assert b" +/- " in found.stdout and b"lambda" in found.stderr


def test_what_is_spelled(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    write_in_any_encoding()
    for stream in (sys.stdout, sys.stderr):
        stream.write("λ1 ‖x‖ 3 ± 1 ü 你")
        stream.flush()
        assert stream.buffer.getvalue() == b"lambda1 ||x|| 3 +/- 1 \\xfc \\u4f60"
    assert all(spelled.isascii() for spelled in SPELLED.values())
    monkeypatch.setattr(sys, "stdout", None)  # a program without a console
    write_in_any_encoding()
