"""Which trial of a sweep is called best: one that the windows on which all were judged tell apart from the others."""

import math

import numpy as np
import pytest

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, Sweep
from proxsparse.config import SweepPlan
from proxsparse.files import write_json
from proxsparse.runs.readers.judged import differ, ratio

WINDOWS = np.array([3.0, 4.0, 5.0, 3.5, 4.5, 4.2])  # their losses spread far more than the trials do
SPREAD = np.array([0.03, -0.03, 0.02, -0.02, 0.01, -0.01])


@pytest.fixture
def swept(tmp_path):
    def make(*losses, rungs=None):
        """A sweep with a trial for each list of losses; None: recorded without them."""
        job, plan = LearnJob(learn=LearnConfig(steps=40)), SweepPlan(rungs=2, lambdas=(0.1,), learning_rates=(1e-3,))
        run = Run.create_kind("sweep", {"sweep": job.to_dict(), "plan": plan.to_dict()}, tmp_path / "swept")
        rows = [
            {
                "trial": trial, "state": "complete", "rung": (rungs or [1] * 99)[trial], "steps": 40, "lambda1": 0.1 * (trial + 1),
                "learning_rate": 1e-3, "perplexity": 50.0 + trial if each is None else math.exp(np.mean(each)), "stderr": 1.0,
                "seconds": 2.0,
            } | ({} if each is None else {"losses": [*each]})
            for trial, each in enumerate(losses)
        ]  # fmt: skip
        write_json(run.path / "trials.json", rows)
        return Sweep(run)

    return make


def test_masks_are_told_apart_by_paired_differences():
    worse = WINDOWS + 0.1 + SPREAD
    found, error = ratio(worse, WINDOWS)
    assert (found - 1) / error > 2 and differ(worse, WINDOWS) and differ(WINDOWS, worse)
    found, error = ratio(WINDOWS + 0.005 + SPREAD, WINDOWS)
    assert 0 < (found - 1) / error < 2 and not differ(WINDOWS + 0.005 + SPREAD, WINDOWS)
    assert not differ(WINDOWS, WINDOWS) and not differ([1.0], [2.0]), "one window tells nothing"


def test_one_that_is_told_apart_is_best(swept):
    sweep = swept(WINDOWS + 0.1 + SPREAD, WINDOWS, WINDOWS + 0.2 - SPREAD)
    assert sweep.ties() == [] and sweep.verdict().startswith("Trial 1 is best after 40 steps (λ1 0.2, learning rate")
    assert sweep.markdown().endswith(f"\n{sweep.verdict()}\n")


def test_ties_are_named_and_nothing_is_called_best(swept):
    sweep = swept(WINDOWS + 0.005 + SPREAD, WINDOWS, WINDOWS + 0.3 - SPREAD, WINDOWS + 0.001 - SPREAD)
    assert sweep.best()["trial"] == 1 and sweep.ties() == [0, 3]
    assert "is not told apart from trials 0, 3: the difference is within 2 standard errors" in sweep.verdict()
    assert "best" not in sweep.verdict() and sweep.verdict() in sweep.markdown()


def test_many_ties_are_counted(swept):
    assert "trials 1, 2, 3, 4, 5, 6, 7, 8 and 3 more:" in swept(*[WINDOWS] * 12).verdict()


def test_those_that_took_fewer_steps_are_no_ties(swept):
    sweep = swept(WINDOWS, WINDOWS - 1, rungs=[1, 0])
    assert sweep.ties() == [] and sweep.verdict().endswith("no other trial took as many.")


def test_without_losses_of_windows_it_is_not_known(swept):
    sweep = swept(WINDOWS, None)
    assert sweep.ties() is None and "Whether another is as good is not known" in sweep.verdict()


@pytest.mark.parametrize("losses", [3, "x", [None], ["x"], [[1.0]]])
def test_damaged_losses_are_one_sentence(losses, swept):
    sweep = swept(WINDOWS)
    write_json(sweep.run.path / "trials.json", [sweep._rows()[0] | {"losses": losses}])
    with pytest.raises(ProxSparseError, match="is damaged"):
        sweep.ties()
