"""A disk that fills while weights are written: one sentence, and nothing is left behind."""

import resource
import subprocess
import sys

import pytest

EXPORT = """
import sys
from proxsparse import ProxSparseError, export_model, load_model, magnitude

model, out, format = sys.argv[1:]
lm = load_model(model, "cpu")
try:
    export_model(lm, magnitude(lm.model, None).masks, out, format=format)
except ProxSparseError as error:
    print(error)
"""


def fill_the_disk() -> None:
    """No file may grow beyond 20 kB: the system refuses to write more, as a full disk does.

    In a process of its own, since the limit holds for the file that takes the tests' own output as well.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.parametrize("format", ["dense", "compact"])
def test_an_export_onto_a_full_disk(format, tmp_path, tiny_directory):
    command = [sys.executable, "-c", EXPORT, str(tiny_directory), str(tmp_path / "sparse"), format]
    child = subprocess.run(command, preexec_fn=fill_the_disk, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("The model cannot be written to "), child.stdout
    assert ": the disk is full; free some space" in child.stdout
    assert not list(tmp_path.iterdir()), "the temporary directory is gone"
