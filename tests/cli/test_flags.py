"""Flags are written out: an abbreviation that works today means something else once a second flag begins like it."""

import pytest

from proxsparse.cli import main


@pytest.mark.parametrize(
    "command",
    [
        "learn --step 40", "compare --method wanda", "sweep --lambda 0.1", "resume runs/first --det",
        "fork runs/first --out new --lambda 0.1", "send runs/first set --lambda 0.1", "eval embedded --window 3",
        "plan embedded --gpu-memory 80 --memor lean",
        "export runs/first --to sparse --form compact", "verify sparse --orig embedded", "bench sparse --row 1",
        "runs --roo runs", "try runs/first --prompt a --new-token 3",
    ],
)  # fmt: skip
def test_an_abbreviated_flag_is_refused_by_name(command, capsys):
    verb = command.split()[0]
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: Unrecognized arguments: --") and f"`proxsparse {verb} --help`" in said
