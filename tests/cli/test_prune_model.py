"""`prune`: from a model to a proven export in one command, in memory and streamed."""

import json

import pytest
from safetensors.torch import load_file

from proxsparse.cli import main
from proxsparse.config import MASK_METHODS


@pytest.fixture
def run(tiny_directory, text_file, tmp_path, capsys):
    """Call `prune` on the tiny model; (exit code, what was said, what was said on stderr)."""

    def call(*arguments):
        code = main(
            ["prune", "--model", str(tiny_directory), "--corpus", str(text_file), "--length", "16", "--calibration", "6", *arguments]
        )  # fmt: skip
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.parametrize("method", MASK_METHODS)
def test_every_method_gives_a_proven_export(method, run, tmp_path):
    code, said, _ = run("--method", method, "--to", str(tmp_path / "sparse"), "--json")
    report = json.loads(said.splitlines()[-1])
    assert code == 0 and report["verification"]["ok"] and report["verification"]["pattern"] == "2:4"
    about = json.loads((tmp_path / "sparse" / "provenance.json").read_text())
    assert about["method"] == method and ("corpus" in about) == (method not in ("random", "magnitude"))
    assert f"The mask was made with {method}" in (tmp_path / "sparse" / "README.md").read_text()


def test_streamed_it_writes_the_same(run, tmp_path, text_file, capsys):
    for name, flags in (("whole", ()), ("streamed", ("--stream", "--states-memory", "0"))):
        assert run("--to", str(tmp_path / name), *flags)[0] == 0
    whole, streamed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "streamed"))
    assert whole.keys() == streamed.keys() and all(bool((whole[name] == streamed[name]).all()) for name in whole)
    found = []
    for flags in ((), ("--stream",)):
        assert main(["verify", str(tmp_path / "streamed"), *flags]) == 0
        capsys.readouterr()
        main(["eval", str(tmp_path / "streamed"), "--corpus", str(text_file), "--context", "32", "--json", *flags])
        found.append({**json.loads(capsys.readouterr().out), "seconds": None})
    assert found[0] == found[1] and found[0]["sparsity"] == "sparse (2:4 in 14 of 14 layers)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "fisher", "--stream"), "fisher needs the gradient of the whole model"),
        (("--method", "swaps", "--n", "8", "--m", "16"), "8:16 has 12,870 patterns"),
        (("--states-memory", "1"), "add --stream, or leave it out"),
        (("--stream", "--states-memory", "-1"), "states-memory is -1"),
        (("--method", "admm"), "invalid choice: 'admm'"),
        (("--stream", "--corpus", "self"), "would be read from disk for every token"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path / "cache"))
    code, _, said = run("--to", str(tmp_path / "sparse"), *arguments)
    assert code == 2 and words in said and not (tmp_path / "sparse").exists()


def test_a_directory_that_is_taken_is_refused_before_anything_is_loaded(run, tmp_path):
    (tmp_path / "file").touch()
    code, _, said = run("--model", "no/such-model", "--to", str(tmp_path))
    assert code == 2 and "is not empty" in said
