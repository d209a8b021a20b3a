"""A run that was copied from another machine: its model and its text lie elsewhere."""

import shutil

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from waiting import until

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, verify
from proxsparse.cli import main
from proxsparse.files import read_json
from proxsparse.runs import start_export
from proxsparse.runs.jobs.export import export_masks
from proxsparse.runs.places import check_places, move
from proxsparse.runs.worker import work


@pytest.fixture(scope="module")
def learned(tmp_path_factory, text_file):
    """A directory with a model, a text and a finished run on them."""
    here = tmp_path_factory.mktemp("here")
    save_tiny_model(here / "model")
    shutil.copy(text_file, here / "text.txt")
    learn = LearnConfig(steps=1, metric_windows=4, batch=1)
    job = LearnJob(
        model=str(here / "model"), corpus=str(here / "text.txt"), length=16, context=32, windows=2, live_windows=1, device="cpu",
        learn=learn,
    )  # fmt: skip
    assert work(Run.create(job, here / "run").path) == 0
    return here


@pytest.fixture
def moved(learned, tmp_path):
    """The same elsewhere, where the run's run.json still names what is not there."""
    there = shutil.copytree(learned, tmp_path / "there")
    path = there / "run" / "run.json"
    path.write_text(path.read_text().replace(str(learned), str(tmp_path / "gone")))
    return there


def test_an_export_names_the_run_and_takes_the_place(moved, capsys):
    arguments = ["export", str(moved / "run"), "--to", str(moved / "sparse")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "error: The model of run run is not at " in said and "say with --model where it lies now." in said
    assert main([*arguments, "--model", str(moved / "model")]) == 0
    assert "Proven" in capsys.readouterr().out
    assert read_json(moved / "sparse" / "provenance.json")["job"]["model"] == str(moved / "model")
    assert verify(moved / "sparse").ok


def test_another_model_of_the_same_shape_is_refused(moved):
    tensors = load_file(moved / "model" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] += 1
    save_file(tensors, moved / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ProxSparseError, match="are not those that run run began with: give --model the same model"):
        export_masks(Run(moved / "run"), 1, moved / "sparse", model=str(moved / "model"))
    assert not (moved / "sparse").exists()


def test_a_run_goes_on_with_what_lies_elsewhere(moved, capsys):
    run = Run(moved / "run")
    state = moved / "run" / "state.json"
    state.write_text(state.read_text().replace('"done"', '"stopped"'))
    with pytest.raises(ProxSparseError, match=r"The model of run run is not at .*run\.json says"):
        run.start()
    assert main(["resume", str(run.path), "--model", str(moved / "model")]) == 2
    assert "The corpus of run run is not at" in capsys.readouterr().err
    assert main(["resume", str(run.path), "--corpus", str(moved / "missing.txt")]) == 2
    assert "missing.txt': check the path" in capsys.readouterr().err
    assert main(["resume", str(run.path), "--corpus", str(moved / "text.txt")]) == 0
    assert run.state()["status"] == "done" and run.job().model == str(moved / "model")


def test_the_explorers_export_says_so(moved):
    export = start_export(Run(moved / "run"))
    assert export.kind == "export"
    until(lambda: export.state()["status"] == "failed")
    assert "The model of run run is not at" in export.state()["error"]


@pytest.mark.parametrize("kind", ["compare", "sweep"])
def test_other_kinds_of_runs(kind, tmp_path):
    run = Run.create_kind(kind, {kind: {"model": "/gone/model", "corpus": "bundled"}}, tmp_path / "run")
    with pytest.raises(ProxSparseError, match="The model of run run is not at /gone/model"):
        check_places(run)
    move(run, model=str(tmp_path))
    check_places(run)
    assert run.header()[kind] == {"model": str(tmp_path), "corpus": "bundled", "bos": "once"}
