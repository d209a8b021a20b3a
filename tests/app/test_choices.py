"""Choices that depend on the run: what a page still sends of an earlier run's is never an error of the page."""

import gradio as gr
import pytest

from app.operator import Operator
from app.shell import Shell

SHRINK = {"try-step", "try-base", "try-to"}  # begin with choices, of which a run may have fewer


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    shell = Shell(Operator(tmp_path_factory.mktemp("runs")))
    shell.build()
    return shell


def test_a_dropdown_that_a_screen_refills_takes_what_it_held_before(shell):
    """Gradio refuses a value that is not among the choices of now, before any handler of ours sees it; and a page sends its
    old value once more while new choices are on their way to it."""
    dropdowns = [each for each in shell.looking()["inputs"] if isinstance(each, gr.Dropdown)]
    refilled = [each for each in dropdowns if not each.choices or each.elem_id in SHRINK]
    assert {each.elem_id for each in refilled} >= SHRINK | {"masks-layer-name", "runs-chosen", "try-layer"}
    for dropdown in refilled:
        assert dropdown.allow_custom_value, dropdown.elem_id
        old = ["an old choice"] if dropdown.multiselect else "an old choice"
        assert dropdown.preprocess(old) == old
