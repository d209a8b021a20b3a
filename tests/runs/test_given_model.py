"""A run on a model that is sparse already does not call it dense."""

import pytest
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer

from proxsparse import LearnConfig, LearnJob, Run, figures, magnitude
from proxsparse.cli.follow import follow
from proxsparse.files import read_json, write_json
from proxsparse.runs.worker import work

SPARSE = "given model, sparse (2:4 in 14 of 14 layers)"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, text_file):
    """{"dense" or "sparse": a finished run on such a model}."""
    here, found = tmp_path_factory.mktemp("given"), {}
    for name in ("dense", "sparse"):
        directory = save_tiny_model(here / name)
        if name == "sparse":
            model = tiny_model()
            magnitude(model, None).masks.apply_(model)
            model.save_pretrained(directory)
            tiny_tokenizer().save_pretrained(directory)
        job = LearnJob(
            model=str(directory), corpus=str(text_file), length=16, context=32, windows=2, live_windows=1, device="cpu",
            learn=LearnConfig(steps=1, metric_windows=4, batch=1),
        )  # fmt: skip
        found[name] = Run.create(job, here / f"run-{name}")
        assert work(found[name].path) == 0
    return found


class Ended:
    @staticmethod
    def poll():
        return 0


@pytest.mark.parametrize(("name", "given"), [("dense", "dense"), ("sparse", SPARSE)])
def test_the_given_model_is_called_what_it_is(runs, name, given, capsys):
    run = runs[name]
    assert run.given() == given
    assert follow(run, Ended) == 0
    assert f"{given:<10} perplexity" in capsys.readouterr().out
    figure = figures.learning_curve(run.table("steps"), run.table("perplexity"), run.given())
    assert given.partition(",")[0] in [trace.name for trace in figure.data]


def test_the_page_says_so(runs):
    status = pytest.importorskip("app.status")
    from app.views.run import snapshot_of

    views = {name: snapshot_of(run) for name, run in runs.items()}
    assert "given model" not in status.tiles(views["dense"]) and "dense (nothing removed)" in status.result(
        views["dense"]
    )
    assert "as it came: sparse (2:4 in 14 of 14 layers)" in status.tiles(views["sparse"])
    shown = status.result(views["sparse"])
    assert SPARSE in shown and "over the given model" in shown and "nothing removed" not in shown


def test_runs_of_before_had_one_bos_token_and_were_called_dense(runs, tmp_path):
    run = runs["sparse"]
    header = read_json(run.path / "run.json")
    assert header["job"].pop("bos") == "auto"
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / "run.json", header)
    old = Run(tmp_path / "old")
    assert old.job().bos == "once" and old.given() == "dense"
