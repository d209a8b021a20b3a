"""A small twin of a model that is not in memory: one decoder block of each kind, with random weights.

What depends on the architecture alone and takes values is tried out on it: whether the model is causal.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator

import torch
from torch import nn

STANDARD_DEVIATION = 0.02  # of the random matrices


def twin_of(model) -> nn.Module:
    """The twin of a model whose parameters are on the meta device; on the CPU, in the dtypes of `model`."""
    twin = copy.deepcopy(model)
    for name, blocks in list(_lists(twin)):
        kinds: dict[Hashable, nn.Module] = {}
        for block in blocks:
            kinds.setdefault(_kind(block), block)
        parent, _, last = name.rpartition(".")
        setattr(twin.get_submodule(parent), last, nn.ModuleList(kinds.values()))
    made: dict[nn.Parameter, nn.Parameter] = {}  # tied ones once
    generator = torch.Generator().manual_seed(0)
    for module in twin.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter not in made:
                made[parameter] = nn.Parameter(_random(parameter, generator), requires_grad=False)
            setattr(module, name, made[parameter])
    return twin


def _lists(model) -> Iterator[tuple[str, nn.ModuleList]]:
    """The outermost lists of modules that have parts: what `decoder_blocks` looks among."""
    outermost: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not name.startswith(tuple(f"{other}." for other in outermost)):
            outermost.append(name)
            if any(list(entry.children()) for entry in module):
                yield name, module


def _kind(block: nn.Module) -> Hashable:
    """Equal for blocks of the same parts and shapes."""
    parts = tuple((name, type(module)) for name, module in block.named_modules())
    return parts, tuple((name, parameter.shape, parameter.dtype) for name, parameter in block.named_parameters())


def _random(parameter: nn.Parameter, generator: torch.Generator) -> torch.Tensor:
    if parameter.ndim < 2:  # gains of norms, and biases
        return torch.ones(parameter.shape, dtype=parameter.dtype)
    return torch.empty(parameter.shape, dtype=parameter.dtype).normal_(0, STANDARD_DEVIATION, generator=generator)
