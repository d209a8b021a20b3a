"""A disk that fills while weights are written: one sentence, and nothing is left behind."""

import resource

import pytest

from proxsparse import ProxSparseError, export_model, load_model, magnitude


@pytest.fixture
def small_disk():
    """No file may grow beyond 20 kB: the system refuses to write more as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", ["dense", "compact"])
def test_an_export_onto_a_full_disk(format, tmp_path, tiny_directory, small_disk):
    lm = load_model(str(tiny_directory), "cpu")
    masks = magnitude(lm.model, None).masks
    with pytest.raises(ProxSparseError, match=r"^The model cannot be written to .*: the disk is full; free some space"):
        export_model(lm, masks, tmp_path / "sparse", format=format)
    assert not list(tmp_path.iterdir()), "the temporary directory is gone"
