"""What is restored from a saved state is not computed first, and what follows from it is computed anew."""

import copy

import pytest
import torch
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner, ProxSparseError
from proxsparse.learning.metric import configured_metric


def settings(**changes):
    return LearnConfig(**{"steps": 6, "learning_rate": 1e-2, "metric_windows": 4, "precision": "fp32"} | changes)


def started(steps=2, family="llama", **changes):
    learner = MaskLearner(tiny_model(family), random_windows(), settings(**changes))
    for _ in range(steps):
        learner.step()
    return learner


def strengths(learner):
    """λ times the scale, by which the operator sees the weights of each layer."""
    return {name: learner.absolute_lambda1(name) * scale for name, scale in learner.scales.items()}


@pytest.mark.parametrize("way", ["constructor", "load_state_dict"])
def test_with_another_precision_strength_and_scale_still_agree(way):
    """The scales were those of the checkpoint and the RMS, the unit of λ, that of a new measurement."""
    undisturbed = started()
    state = copy.deepcopy(undisturbed.state_dict())
    about = tiny_model(), random_windows(8, 16, seed=5), settings(precision="bf16")
    resumed = MaskLearner(*about, state=state if way == "constructor" else None)
    if way == "load_state_dict":
        resumed.load_state_dict(*state)
    for name, expected in strengths(undisturbed).items():
        assert torch.equal(strengths(resumed)[name], expected), name
    assert set(resumed.start.flips(undisturbed.start).values()) == {0}


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("memory", ["full", "lean"])
def test_with_a_state_no_metric_is_measured_and_the_run_goes_on_exactly(family, memory):
    precision = "fp32" if memory == "full" else "auto"
    undisturbed, measured = started(2, family, memory=memory, precision=precision), []

    def counted(*about):
        measured.append(about)
        return configured_metric(*about)

    about = random_windows(), settings(memory=memory, precision=precision)
    state = copy.deepcopy(undisturbed.state_dict())
    resumed = MaskLearner(tiny_model(family), *about, state=state, metric=counted)
    assert measured == []
    for _ in range(2):
        one, other = undisturbed.step(), resumed.step()
        assert (one.loss, one.layers) == (other.loss, other.layers)
    one, other = undisturbed.state_dict()[0], resumed.state_dict()[0]
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    MaskLearner(tiny_model(family), *about, metric=counted)
    assert len(measured) == 1


def test_a_run_that_chose_its_memory_keeps_it():
    state = started(1, memory="lean", precision="auto").state_dict()
    assert MaskLearner(tiny_model(), random_windows(), settings(memory="auto"), state=state).memory == "lean"


def test_layers_that_were_not_seen_stay_known():
    windows = torch.full((3, 2), 5)
    with pytest.warns(UserWarning, match="saw no token"):
        learner = MaskLearner(tiny_model("mixtral"), windows, settings())
    assert learner.unseen
    resumed = MaskLearner(tiny_model("mixtral"), windows, settings(), state=learner.state_dict())
    assert resumed.unseen == learner.unseen


def test_a_state_carries_its_format_and_older_ones_are_read():
    tensors, rest = started(2, memory="full", ramp=1.0).state_dict()
    assert rest["version"] == 1
    oldest = {name: rest[name] for name in ("step", "lambda1", "updates")}
    config = settings(memory="full", ramp=1.0)
    for old in (oldest, oldest | {"memory": "full", "growth_left": 1.0}):
        resumed = MaskLearner(tiny_model(), random_windows(), config, state=(tensors, old))
        assert resumed.step_index == 2 and resumed.growth_left == 1.0 and resumed.unseen == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, r"format version 2 and this proxsparse reads versions up to 1"),
        ({"version": "x"}, r"format version 'x'"),
        ({"pattern": "1:4"}, "written with pattern 1:4 and this run has pattern 2:4"),
        ({"memory": "lean"}, "written with memory lean and this run has memory full"),
    ],
)
def test_what_cannot_be_resumed_is_one_sentence(change, words):
    tensors, rest = started(1).state_dict()
    with pytest.raises(ProxSparseError, match=words):
        MaskLearner(tiny_model(), random_windows(), settings(memory="full"), state=(tensors, rest | change))
    with pytest.raises(ProxSparseError, match=words):
        started(0, memory="full").load_state_dict(tensors, rest | change)


def test_another_metric_is_refused_by_name():
    state = started(1).state_dict()
    with pytest.raises(ProxSparseError, match="written with metric activation and this run has metric weight"):
        MaskLearner(tiny_model(), random_windows(), settings(metric="weight"), state=state)
    with pytest.raises(ProxSparseError, match=r"scale\..* is missing"):
        MaskLearner(tiny_model(), random_windows(), settings(), state=started(1, metric="weight").state_dict())
