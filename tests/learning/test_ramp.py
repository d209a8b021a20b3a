"""λ1 at steps to come is what the learner will take."""

import pytest
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner
from proxsparse.learning.ramp import left_of, strengths_ahead


def ahead_of(learner):
    return strengths_ahead(learner.lambda1, learner.growth_left, learner.step_index, learner.config.steps)


@pytest.mark.parametrize("ramp", (1.0, 100.0))
def test_the_learner_takes_the_strengths_that_were_foreseen(ramp):
    config = LearnConfig(steps=6, lambda1=0.2, ramp=ramp, metric_windows=2)
    learner = MaskLearner(tiny_model(), random_windows(), config)
    foreseen = ahead_of(learner)
    assert list(foreseen) == [1, 2, 3, 4, 5, 6] and foreseen[6] == pytest.approx(0.2)
    for _ in range(3):
        report = learner.step()
        assert report.lambda1 == pytest.approx(foreseen[report.step])
    assert learner.growth_left == pytest.approx(left_of(ramp, 3, 6))

    learner.lambda1 = 0.01  # by hand: it goes on from there by what is left of the ramp
    foreseen = ahead_of(learner)
    assert foreseen[4] == 0.01 and foreseen[6] == pytest.approx(0.01 * left_of(ramp, 3, 6))
    for _ in range(3):
        report = learner.step()
        assert report.lambda1 == pytest.approx(foreseen[report.step])
    assert ahead_of(learner) == {}
