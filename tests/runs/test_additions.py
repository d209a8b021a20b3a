"""Adding to a comparison: what is new is measured, what was measured is not touched, and the whole is as if asked for at once."""

import shutil

import pandas as pd
import pytest

from proxsparse import (
    CompareJob,
    Comparison,
    LearnJob,
    MaskSet,
    ProxSparseError,
    Run,
    export_model,
    load_model,
    magnitude,
)
from proxsparse.cli import main
from proxsparse.methods.random import random_mask
from proxsparse.runs.additions import add_to_comparison
from proxsparse.runs.recorder import Recorder
from proxsparse.runs.worker import work

pytestmark = pytest.mark.usefixtures("workers_inside")
COSTS = ["seconds", "memory_GB"]


@pytest.fixture(scope="module")
def lm(tiny_directory):
    return load_model(str(tiny_directory))


@pytest.fixture(scope="module")
def learned_run(lm, tiny_directory, text_file, tmp_path_factory):
    run = Run.create(LearnJob(str(tiny_directory), str(text_file)), tmp_path_factory.mktemp("runs") / "learned")
    Recorder(run).save_masks(3, random_mask(lm.model, None, seed=1).masks)
    return run


@pytest.fixture(scope="module")
def other_text(text_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "other.txt"
    path.write_text(text_file.read_text()[::-1])
    return str(path)


@pytest.fixture(scope="module")
def sparse(lm, tmp_path_factory):
    path = tmp_path_factory.mktemp("sparse") / "zeros"
    export_model(lm, magnitude(lm.model).masks, path)
    return str(path)


@pytest.fixture(scope="module")
def compared(tiny_directory, text_file, tmp_path_factory):
    """Makes a comparison that is done."""

    def make(name, **changes):
        values = {
            "length": 16, "context": 32, "windows": 6, "calibration": 8, "steps": 2, "new_tokens": 3, "prompts": ("abc",),
            "methods": ("magnitude",), "evaluate_on": (),
        }  # fmt: skip
        job = CompareJob(str(tiny_directory), str(text_file), **values | changes)
        run = Run.create_kind("compare", {"compare": job.to_dict()}, tmp_path_factory.mktemp("compared") / name)
        assert work(run.path) == 0, run.state()["error"]
        return run

    return make


def contents(run, file="result.json"):
    return {path.parent.name: path.read_bytes() for path in (run.path / "results").glob(f"*/{file}")}


def test_what_is_added_ends_as_if_it_had_been_asked_for_at_once(compared, learned_run, sparse, other_text):
    more = {
        "methods": ["wanda"], "runs": [str(learned_run.path)], "masks": [sparse], "evaluate_on": [other_text],
    }  # fmt: skip
    whole = compared(
        "whole", **{name: tuple(values) for name, values in (more | {"methods": ["magnitude", "wanda"]}).items()}
    )
    run = compared("grown")
    before, layers = contents(run), Comparison(run).layers()
    add_to_comparison(run, **more)
    assert run.state()["status"] == "stopped" and Comparison(run).progress() == {
        "dense": "measured", "magnitude": "measured", "wanda": "waiting", "learned": "waiting", "zeros": "waiting",
    }  # fmt: skip
    assert work(run.path) == 0, run.state()["error"]
    assert {name: content for name, content in contents(run).items() if name in before} == before
    assert run.table("events")["method"].dropna().tolist().count("magnitude") == 1, "measured once"
    grown, asked = Comparison(run), Comparison(whole)
    pd.testing.assert_frame_equal(grown.table().drop(columns=COSTS), asked.table().drop(columns=COSTS), rtol=1e-5)
    pd.testing.assert_frame_equal(grown.layers(), asked.layers(), rtol=1e-5)
    pd.testing.assert_frame_equal(grown.overlaps(), asked.overlaps())
    assert set(layers["method"]) == {"magnitude"}, "before there was one"
    assert "wanda" in (run.path / "table.md").read_text()


def test_a_run_that_was_added_and_is_not_yet_laid_beside_the_others_has_a_row(compared, learned_run):
    run = compared("between")
    table = (run.path / "layers_compared.json").read_bytes()
    add_to_comparison(run, runs=[str(learned_run.path)])
    assert work(run.path) == 0
    (run.path / "layers_compared.json").write_bytes(table)  # as it was between the two
    found = Comparison(run)
    assert found.ours == "learned" and set(found.table()["method"]) == {"dense", "magnitude", "learned"}
    assert found.layers()["overlap"].isna().all() and found.layers()["output_error"].notna().all()


def test_two_masks_differ_where_their_masks_do(compared, lm):
    found = Comparison(compared("differing", methods=("magnitude", "wanda")))
    masks = {"magnitude": magnitude(lm.model).masks}
    masks["wanda"] = MaskSet.load(found.run.path / "results" / "wanda" / "masks.safetensors")
    shares = found.differing("magnitude", "wanda")
    for layer, mask in masks["magnitude"].items():
        kept, other = mask.dense(), masks["wanda"][layer].dense()
        assert shares[layer] == pytest.approx(((kept & ~other).sum() / kept.sum()).item())
    assert shares.max() > 0 and (found.differing("wanda", "wanda") == 0).all()
    assert found.differing("wanda", "ria").empty


def test_a_method_that_gave_no_result_is_tried_again_when_it_is_named_again(compared, learned_run, tmp_path):
    run = compared("tried")
    shutil.copytree(learned_run.path, tmp_path / "copy")
    add_to_comparison(run, runs=[str(tmp_path / "copy")])
    shutil.move(tmp_path / "copy" / "masks", tmp_path / "masks")
    assert work(run.path) == 2 and "has no masks yet" in run.state()["error"], "nothing else was done before"
    (tmp_path / "copy" / "masks").mkdir()
    (tmp_path / "copy" / "masks" / "step-000003.safetensors").write_bytes(b"none")
    assert work(run.path) == 0
    assert (
        list(Comparison(run).failures())
        == ["copy"]
        == [name for name, word in Comparison(run).progress().items() if word == "failed"]
    )
    shutil.rmtree(tmp_path / "copy" / "masks")
    shutil.move(tmp_path / "masks", tmp_path / "copy" / "masks")
    add_to_comparison(run, runs=[str(tmp_path / "copy")])
    assert work(run.path) == 0 and Comparison(run).failures() == {}
    assert set(Comparison(run).table()["method"]) == {"dense", "magnitude", "copy"}


def test_a_checkpoint_that_is_no_mask_leaves_the_rest_as_it_was(compared, tiny_directory):
    run = compared("kept")
    add_to_comparison(run, methods=["random"], masks=[str(tiny_directory)])
    assert work(run.path) == 0, run.state()["error"]
    failures = Comparison(run).failures()
    assert list(failures) == [tiny_directory.name] and "is not sparse" in failures[tiny_directory.name]
    assert set(Comparison(run).table()["method"]) == {"dense", "magnitude", "random"}


def test_what_cannot_be_added_changes_nothing(compared, learned_run, tmp_path, capsys):
    run = compared("refused")
    header = (run.path / "run.json").read_bytes()
    for given, words in (
        ({"methods": ["magnitude"]}, "has all of that already"),
        ({}, "Nothing was chosen"),
        ({"methods": ["wander"]}, "There is no method 'wander'"),
        ({"runs": [str(tmp_path / "nothing")]}, "There is no run at"),
        ({"masks": [str(tmp_path)]}, "has no config.json"),
        ({"evaluate_on": ["none.txt"]}, "There is no file or directory 'none.txt'"),
    ):
        with pytest.raises(ProxSparseError, match=words):
            add_to_comparison(run, **given)
    with pytest.raises(ProxSparseError, match="compares nothing"):
        add_to_comparison(learned_run, methods=["wanda"])
    for flags, words in (
        (["--methods", "wanda", "--windows", "3"], "--windows cannot change in a comparison that is added to"),
        (["--methods", "wanda", "--out", str(tmp_path / "x")], "--out cannot change"),
        (["--methods", "wanda", "--model", "embedded"], "--model cannot change"),
    ):
        assert main(["compare", "--add-to", str(run.path), *flags]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert (run.path / "run.json").read_bytes() == header and run.state()["status"] == "done"
    assert main(["compare", "--add-to", str(run.path), "--methods", "wanda"]) == 0
    assert "wanda" in capsys.readouterr().out and set(contents(run)) == {"dense", "magnitude", "wanda"}
