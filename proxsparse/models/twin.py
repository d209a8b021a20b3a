"""A small twin of a model that is not in memory: one decoder block of each kind, with random weights.

What depends on the architecture alone is tried out on it: which weights are linear maps, and whether the model is causal.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from proxsparse.layers import trace

STANDARD_DEVIATION = 0.02  # of the random matrices


@dataclass(frozen=True)
class Twin:
    """model: the twin. like: {block of the model: block of the twin that is built as it is}, by their names."""

    model: nn.Module
    like: dict[str, str]


def twin_of(model) -> Twin:
    """The twin of a model whose parameters are on the meta device; on the CPU, in the dtypes of `model`."""
    twin = copy.deepcopy(model)
    like = {}
    for name, blocks in list(_lists(twin)):
        kinds: dict[Hashable, int] = {}
        for index, block in enumerate(blocks):
            own = kinds.setdefault(_kind(block), len(kinds))
            like[f"{name}.{index}"] = f"{name}.{own}"
        first = {like[f"{name}.{index}"]: block for index, block in reversed([*enumerate(blocks)])}
        parent, _, last = name.rpartition(".")
        setattr(twin.get_submodule(parent), last, nn.ModuleList(first[f"{name}.{own}"] for own in range(len(kinds))))
    made: dict[nn.Parameter, nn.Parameter] = {}  # tied ones once
    generator = torch.Generator().manual_seed(0)
    for module in twin.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter not in made:
                made[parameter] = nn.Parameter(_random(parameter, generator), requires_grad=False)
            setattr(module, name, made[parameter])
    return Twin(twin, like)


def know_roles(model, twin: Twin) -> None:
    """Let `prunable_layers` and `decoder_blocks` know of `model` what is seen on its twin, since a pass over tokens needs values."""
    seen = trace.roles_of(twin.model)
    names = {name: _in_twin(name, twin.like) for name, _ in model.named_parameters()}
    uses = {name: seen.uses[own] for name, own in names.items() if own in seen.uses}
    routers, selectors = (
        {name for name, own in names.items() if own in found} for found in (seen.routers, seen.selectors)
    )
    trace._seen[model] = tuple(names), trace.Roles(uses, routers, selectors, seen.tokens)


def _in_twin(name: str, like: dict[str, str]) -> str:
    """What a parameter of the model is called in the twin."""
    for end, character in enumerate(name):
        if character == "." and name[:end] in like:
            return like[name[:end]] + name[end:]
    return name


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
