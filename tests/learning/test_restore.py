"""However a learner is left, the model is as it came."""

import contextlib

import pytest
import torch
from tiny_models import FAMILIES, random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner, ProxSparseError
from proxsparse.learning.full_update import FullUpdate
from proxsparse.learning.loss import language_model_loss

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def everything(model):
    """All that a learner may not leave behind, with values to compare."""
    found = {"attention": model.config._attn_implementation}
    for path, module in model.named_modules():
        found[path, "class"], found[path, "training"] = type(module), module.training
        found[path, "hooks"] = sum(len(getattr(module, kind)) for kind in HOOKS)
        found[path, "own attributes"] = set(vars(module))
        for name, buffer in module.named_buffers(recurse=False):
            found[path, "buffer", name] = buffer.clone()
    for name, parameter in model.named_parameters():
        found[name, "values"], found[name, "asks"] = parameter.data.clone(), parameter.requires_grad
        found[name, "gradient"] = None if parameter.grad is None else parameter.grad.clone()
        found[name, "hooks"] = len(parameter._post_accumulate_grad_hooks or {}) + len(parameter._backward_hooks or {})
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype and torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


class Broken(Exception):
    pass


def settings(**changes):
    return LearnConfig(**{"steps": 3, "learning_rate": 1e-2, "metric_windows": 4} | changes)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_model_comes_back_as_it_came(family, memory, dtype):
    """Buffers among it: the rotary frequencies of a bf16 model came back as float32."""
    model = tiny_model(family).to(dtype)
    next(model.parameters()).requires_grad_(False)
    last = list(model.parameters())[-1]
    last.grad = torch.ones_like(last)
    model(input_ids=random_windows(1))  # what a model sets up when it first runs is its own
    before = everything(model)
    list(MaskLearner(model, random_windows(), settings(memory=memory)))
    assert_same(everything(model), before)


def test_float64_weights_outside_the_layers_keep_their_bits():
    model = tiny_model().double()
    before = everything(model)
    list(MaskLearner(model, random_windows(), settings()))
    assert_same(everything(model), before)


@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("leave", ["break", "exception", "half a step", "after the last step"])
def test_a_with_block_puts_the_original_weights_back_however_it_is_left(leave, memory):
    model = tiny_model().bfloat16()
    before = everything(model)
    with contextlib.suppress(Broken), MaskLearner(model, random_windows(), settings(memory=memory)) as learner:
        for report in learner:
            assert report.step == learner.step_index
            if leave == "break":
                break
            if leave == "half a step":
                learner.gradient_step()
                break
            if leave == "exception":
                raise Broken
    assert_same(everything(model), before)
    assert learner.step_index == (3 if leave == "after the last step" else 1)
    assert all(mask.is_valid() for mask in learner.masks().values())
    with pytest.raises(ProxSparseError, match="has ended"):
        learner.step()
    with pytest.raises(ProxSparseError, match="has ended"), learner:
        pass


@pytest.mark.parametrize("memory", ["full", "lean"])
def test_an_exception_in_the_loss_leaves_nothing_attached(memory):
    model = tiny_model()
    before = everything(model)

    def breaks_after_the_blocks_ran(learner, windows):
        language_model_loss(learner, windows)
        raise Broken

    with (
        pytest.raises(Broken),
        MaskLearner(model, random_windows(), settings(memory=memory), loss=breaks_after_the_blocks_ran) as learner,
    ):
        learner.step()
    assert_same(everything(model), before)


def test_where_a_learner_cannot_be_made_the_model_is_as_it_came():
    model = tiny_model().bfloat16()
    before = everything(model)

    def out_of_memory(model, originals, config):
        FullUpdate(model, originals, config)
        raise Broken

    with pytest.raises(Broken):
        MaskLearner(model, random_windows(), settings(), update=out_of_memory)
    assert_same(everything(model), before)
    state = MaskLearner(tiny_model("gpt2"), random_windows(), settings()).state_dict()
    with pytest.raises(ProxSparseError, match="does not fit this run"):
        MaskLearner(model, random_windows(), settings(), state=state)
    assert_same(everything(model), before)
