"""Settings: what is typed becomes what is meant, or one sentence."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsparse import LearnConfig, LearnJob, ProxSparseError
from proxsparse.config import METHODS, CompareJob, SweepPlan
from proxsparse.settings import settings_of

CONFIGS = (LearnConfig, LearnJob, CompareJob, SweepPlan)


def test_text_stands_for_numbers():
    assert LearnConfig(steps="12", lambda1="5e-1", m="8") == LearnConfig(steps=12, lambda1=0.5, m=8)
    assert SweepPlan(lambdas=["0.1", 0.2, 0.2]).lambdas == (0.1, 0.2)
    assert dataclasses.replace(LearnConfig(), steps="3").steps == 3


@pytest.mark.parametrize(
    ("config", "values", "words"),
    [
        (LearnConfig, {"steps": 0}, "steps is 0: give 1 or more."),
        (LearnConfig, {"steps": "0"}, "steps is 0: give 1 or more."),
        (LearnConfig, {"steps": "x"}, "steps is 'x': give a whole number."),
        (LearnConfig, {"steps": 1.5}, "steps is 1.5: give a whole number."),
        (LearnConfig, {"steps": True}, "steps is True: give a whole number."),
        (LearnConfig, {"steps": None}, "steps is None: give a whole number."),
        (LearnConfig, {"lambda1": "-1"}, "lambda1 is -1: give 0 or more."),
        (LearnConfig, {"lambda1": float("inf")}, "lambda1 is inf: give a number."),
        (LearnConfig, {"learning_rate": 0}, "learning-rate is 0: give a number above 0."),
        (LearnConfig, {"m": 300}, "m is 300: give 255 or less."),
        (LearnConfig, {"relative": 1}, "relative is 1: give true or false."),
        (LearnConfig, {"metric": "size"}, "metric is 'size': choose one of activation, weight."),
        (LearnConfig, {"lamda1": 1}, "There is no setting 'lamda1': did you mean lambda1?"),
        (LearnJob, {"model": 3}, "model is 3: give a text."),
        (LearnConfig, {"n": 4}, "n is 4 and m is 4: keep fewer weights than a group has."),
        (SweepPlan, {"lambdas": ["much"]}, "lambdas is 'much': give a number."),
    ],
)
def test_what_cannot_be_is_one_sentence(config, values, words):
    with pytest.raises(ProxSparseError) as caught:
        config(**values)
    assert str(caught.value) == words


@given(st.sampled_from(CONFIGS), st.data())
def test_nothing_else_is_ever_raised(config, data):
    """Any value for any field is taken or refused with a sentence."""
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(config)]))
    anything = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(max_size=3), max_size=3)
    )
    try:
        config(**{name: data.draw(anything)})
    except ProxSparseError as error:
        assert str(error).rstrip()[-1] in ".?" and "\n" not in str(error).replace(repr("\n"), "")


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_is_what_its_dictionary_says(config):
    values = config().to_dict() if hasattr(config, "to_dict") else dataclasses.asdict(config())
    again = LearnJob.from_dict(values) if config is LearnJob else config(**values)
    assert again == config()


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_says_what_it_is(config):
    for setting in settings_of(config).values():
        assert setting.help and setting.kind in ("switch", "choice", "whole number", "number", "text")
        assert (setting.kind == "choice") == bool(setting.choices)


def test_the_registry_names_the_methods_that_there_are():
    from proxsparse import methods

    assert methods.METHODS.keys() == METHODS.keys()


def test_reading_a_configuration_does_not_import_torch():
    script = "import sys, proxsparse.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
