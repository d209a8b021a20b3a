"""Whatever is given for a path: a file, or one sentence."""

import pytest

from proxsparse import ProxSparseError, Run, load_model, load_windows, verify
from proxsparse.cli.main import main
from proxsparse.config import absolute
from proxsparse.files import local_path
from proxsparse.runs import find_run
from proxsparse.runs.presets import read_preset

WRONG = ("~nosuchuser/x", "a\0b", "\ud800", "x" * 300, "y/" * 3000, "~" + "z" * 300)
READERS = {
    "local_path": local_path, "absolute": absolute, "run": Run, "model": lambda name: load_model(name, "cpu"),
    "text": lambda name: load_windows(name + ".txt", None), "verify": verify, "preset": read_preset,
    "find": lambda name: find_run("runs", name),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG, ids=lambda name: name.encode("ascii", "backslashreplace").decode()[:12])
@pytest.mark.parametrize("reader", READERS)
def test_a_name_that_can_be_no_file_is_one_sentence(reader, name):
    with pytest.raises(ProxSparseError) as refused:
        READERS[reader](name)
    said = str(refused.value)
    assert "\n" not in said and len(said) < 400


@pytest.mark.parametrize(
    "words",
    [
        ["verify"],
        ["eval"],
        ["resume"],
        ["export", "--to"],
        ["learn", "--model"],
        ["learn", "--out"],
        ["runs", "--root"],
    ],
)
@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 300])
def test_the_command_line_says_it_and_exits_with_2(words, name, capsys):
    verb, *flag = words
    command = [verb, *(["runs/none"] if verb == "export" else []), *flag, name]
    assert main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
