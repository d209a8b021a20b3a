"""A run that learns on text that its model writes itself."""

import pytest
from tiny_models import save_tiny_model

from proxsparse import LearnConfig, LearnJob, Run
from proxsparse.config import PRESETS, CompareJob
from proxsparse.models import own_text
from proxsparse.runs.readers.comparison import Comparison
from proxsparse.runs.worker import work


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_text, "PIECES", 40)
    monkeypatch.setattr(own_text, "TOKENS", 30)
    return LearnJob(
        model=str(save_tiny_model(tmp_path / "model")), corpus="self", evaluate_on=(), length=16, context=32, windows=2,
        live_windows=1, device="cpu", learn=LearnConfig(steps=2, metric_windows=4, batch=1, distill=0.5),
    )  # fmt: skip


def test_it_learns_says_so_and_reads_the_same_text_when_it_goes_on(job, tmp_path, monkeypatch):
    run = Run.create(job, tmp_path / "run")
    assert work(run.path) == 0
    assert run.state()["status"] == "done" and run.corpus()["name"] == "self"
    assert set(run.table("perplexity")["mask"]) >= {"dense", "learned"}
    monkeypatch.setattr(own_text, "write_own_text", lambda *_, **__: pytest.fail("it was written already"))
    fork = run.fork(tmp_path / "fork", step=None, steps=3)
    assert work(fork.path) == 0 and fork.corpus()["sha256"] == run.corpus()["sha256"]


def test_what_is_learned_on_it_is_judged_on_the_bundled_texts():
    assert LearnJob(corpus="self").judged_on == ("bundled", "bundled-other")
    assert PRESETS["Quick"].corpus == "mixed", "which is judged on the bundled text's held-out part, and this besides:"
    assert PRESETS["Quick"].judged_on == ("bundled-other",)


def test_methods_are_compared_on_it(job, tmp_path):

    about = {
        name: getattr(job, name)
        for name in ("model", "corpus", "evaluate_on", "length", "context", "windows", "device")
    }
    job = CompareJob(**about, methods=("wanda",), calibration=4, new_tokens=0)
    run = Run.create_kind("compare", {"compare": job.to_dict()}, tmp_path / "compared")
    assert work(run.path) == 0
    assert list(Comparison(run).table()["method"])[1:] == ["wanda"]
