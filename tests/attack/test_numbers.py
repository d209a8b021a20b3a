"""Whatever number is asked for: it is within what the text and the machine have room for, or refused in one sentence before
anything is allocated."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, LearnJob, MaskLearner, ProxSparseError
from proxsparse.config import MOST_SEED, CompareJob, SweepPlan
from proxsparse.evaluation.perplexity import perplexity
from proxsparse.learning import room
from proxsparse.learning.schedule import passes_at
from proxsparse.runs.requests import PromptRequest, RankingRequest, WhatIfRequest
from proxsparse.settings import settings_of

CONFIGS = (LearnConfig, LearnJob, CompareJob, SweepPlan, PromptRequest, WhatIfRequest, RankingRequest)
COUNTS = [
    (config, name)
    for config in CONFIGS
    for name, setting in settings_of(config).items()
    if setting.kind == "whole number"
]
MEASURES = [
    (config, name) for config in CONFIGS for name, setting in settings_of(config).items() if setting.kind == "number"
]


def sentence(config, **values):
    with pytest.raises(ProxSparseError) as refused:
        config(**({"prompt": "A"} if config is PromptRequest else {}) | values)
    said = str(refused.value)
    assert "\n" not in said and len(said) < 300 and said[-1] in ".?"
    return said


@pytest.mark.parametrize(("config", "name"), COUNTS)
@pytest.mark.parametrize(
    "value", [10**30, "1" + "0" * 30, 10**400, 10**6000, "9" * 6000, -(10**30)], ids=lambda v: type(v).__name__
)
def test_every_count_has_an_upper_bound_that_the_refusal_names(config, name, value):
    assert sentence(config, **{name: value}).startswith(name.replace("_", "-"))


@pytest.mark.parametrize(("config", "name"), MEASURES)
@pytest.mark.parametrize(
    "value", ["1e400", "nan", float("inf"), "-inf", 10**400, "0x10", "1" * 6000, "१e", "\ud800", "\0"]
)
def test_what_is_no_finite_number_is_refused(config, name, value):
    assert sentence(config, **{name: value}).startswith(name.replace("_", "-"))


@given(
    st.one_of(
        st.integers(), st.floats(), st.text(max_size=40), st.none(), st.booleans(), st.lists(st.integers(), max_size=3)
    )
)
def test_whatever_a_setting_is_given_it_takes_it_or_says_why_not(value):
    for config, name in COUNTS + MEASURES:
        try:
            config(**{name: value})
        except ProxSparseError as error:
            assert "\n" not in str(error) and len(str(error)) < 300


def test_windows_are_drawn_pass_by_pass():
    many = LearnConfig(accumulation=1_000_000, batch=1_000_000)
    drawn = passes_at(3, 12, many)
    config = LearnConfig(batch=3, accumulation=4, seed=MOST_SEED)
    assert torch.cat([*passes_at(1, 12, config)]).sort().values.tolist() == [*range(12)]
    assert iter(drawn) is drawn  # a generator: a terabyte of indices is not there before it is asked for


@pytest.mark.parametrize("asked", [{"accumulation": 1_000_000}, {"batch": 1_000_000}, {"batch": 4, "accumulation": 4}])
def test_a_step_takes_each_window_once_at_most(asked):
    with pytest.raises(
        ProxSparseError, match=r"has 12 windows and one step takes \d+ × \d+ \(batch × accumulation\): give more text"
    ):
        MaskLearner(tiny_model(), random_windows(), LearnConfig(**asked))


@pytest.mark.parametrize(
    ("free", "words"),
    [(1_000, "choose a smaller model, or memory lean."), (2_300_000, "set batch to"), (10**12, None)],
)
def test_what_the_machine_has_no_room_for_is_refused_before_the_first_step(monkeypatch, free, words):
    monkeypatch.setattr(room, "available_bytes", lambda device: free)
    model, windows = tiny_model(), random_windows().repeat(100, 40)
    before = perplexity(model, random_windows()).value
    config = LearnConfig(batch=1000)
    if words is None:
        MaskLearner(model, windows, config).restore()
    else:
        with pytest.raises(ProxSparseError, match=words):
            MaskLearner(model, windows, config)
    assert perplexity(model, random_windows()).value == before
