"""However a learner is left, the model is as it came."""

import pytest
import torch
from tiny_models import FAMILIES, random_windows, tiny_model

from proxsparse import LearnConfig, MaskLearner

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
