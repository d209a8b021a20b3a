"""Pruning block by block: each decoder block sees the text as the pruned blocks before it hand it on.

As in the code of SparseGPT and Wanda (github.com/IST-DASLab/sparsegpt, github.com/locuslab/wanda): hidden states enter
a block twice, once to gather statistics of the inputs of its layers, and once more, with pruned weights, to make what
enters the next block. So memory holds the hidden states and the statistics of one block, and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayer, PrunableLayers, decoder_blocks
from proxsparse.models.activations import InputObserver, Statistic, check_windows, experts_one_by_one
from proxsparse.models.forward import autocast
from proxsparse.progress import Progress, no_progress


@torch.no_grad()
def prune_blocks(
    model,
    windows: Tensor,
    layers: PrunableLayers,
    gather: Callable[[PrunableLayer], Statistic],
    prune: Callable[[PrunableLayer, Statistic], Tensor],
    precision: str = "auto",
    progress: Progress = no_progress,
    batch: int = 4,
) -> None:
    """Call `prune(layer, statistic)` once for every layer, block after block; the model is left as it came.

    windows: int64 (count, length). gather makes the empty statistic of a layer. prune returns the weights (out, in)
    with which the text goes on to the next block; the layers of one block all see that block unpruned. batch: windows
    in one forward pass. Raises ProxSparseError without a window, and for a decoder that does not run its blocks in
    order.
    """
    check_windows(windows)
    last = max(layer.block for layer in layers.values())
    blocks = [block for _, index, block in decoder_blocks(model) if index <= last]
    device = next(model.parameters()).device
    batches = windows.split(batch)
    total, done = 2 * len(blocks) * len(windows), 0  # every block is entered twice, but the last; windows enter once

    def advance(entered: int, what: str) -> None:
        nonlocal done
        progress(done, total, what)
        done += entered

    with experts_one_by_one(model):
        hidden, calls, known = [], [], {}
        for tokens in batches:
            advance(len(tokens), "recording what enters the blocks")
            with autocast(device, precision):
                entering, own_calls = _enter(model.base_model, blocks, tokens.to(device), known)
            hidden.append(entering)
            calls.append(own_calls)
        for index, block in enumerate(blocks):
            where = f"block {index + 1} of {len(blocks)}"
            own = {name: layer for name, layer in layers.items() if layer.block == index}
            statistics = {name: gather(layer) for name, layer in own.items()}
            observer = InputObserver(own, statistics)
            for tokens, states, call in zip(batches, hidden, calls, strict=True):
                advance(len(tokens), f"measuring activations, {where}")
                with autocast(device, precision), observer:
                    call[index](block, states)
            pruned = {}
            for name, layer in own.items():
                advance(0, f"pruning {where}")
                pruned[name] = prune(layer, statistics.pop(name))
            if index == last:
                return
            with _replaced(own, pruned):
                for position, call in enumerate(calls):
                    advance(len(batches[position]), f"passing the text through {where}")
                    with autocast(device, precision):  # opened anew: it keeps casts of the weights until it closes
                        hidden[position] = call[index](block, hidden[position])


@contextmanager
def _replaced(layers: Mapping[str, PrunableLayer], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, the layers hold `weights`."""
    originals = {name: layer.matrix.clone() for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.matrix.copy_(weights[name])
        yield
    finally:
        for name, layer in layers.items():
            layer.matrix.copy_(originals[name])


@dataclass(frozen=True)
class _Call:
    """What a block is called with besides hidden states: positions, the mask of its kind of attention and so on."""

    positional: tuple
    named: dict

    def __call__(self, block: nn.Module, states: Tensor) -> Tensor:
        result = block(states, *self.positional, **self.named)
        return result if isinstance(result, Tensor) else result[0]

    def equals(self, other: _Call) -> bool:
        mine, its = (tree_flatten((call.positional, call.named)) for call in (self, other))
        return mine[1] == its[1] and all(map(_equal, mine[0], its[0]))


def _equal(first, second) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return first is second or (type(first) is type(second) and bool(first == second))


def _enter(decoder, blocks: list[nn.Module], tokens: Tensor, known: dict[int, list[_Call]]):
    """The hidden states that enter the first block, and the calls of all blocks.

    The calls of an earlier batch are taken again where this one enters the first block in the same way: they belong to
    the shape of a batch and not to its text, in nearly every model. known: {windows in a batch: calls}, kept up here.
    """
    states, calls = _record(decoder, blocks[:1], tokens)
    earlier = known.get(len(tokens))
    if earlier is None or not earlier[0].equals(calls[0]):
        known[len(tokens)] = _record(decoder, blocks, tokens)[1]
    return states, known[len(tokens)]


class _Entered(Exception):
    """The last block to record was called: what would follow is not needed."""


def _record(decoder, blocks: list[nn.Module], tokens: Tensor) -> tuple[Tensor, list[_Call]]:
    """Run the decoder until the last of `blocks` is called: what enters the first, and how each is called."""
    entering, calls, called = [], [], []

    def record(block, positional, named):
        named = dict(named)
        states, *rest = positional or [named.pop("hidden_states")]
        if not entering:
            entering.append(states)
        calls.append(_Call(tuple(rest), named))
        called.append(block)
        if len(calls) == len(blocks):
            raise _Entered

    handles = [block.register_forward_pre_hook(record, with_kwargs=True) for block in blocks]
    try:
        with suppress(_Entered):
            decoder(input_ids=tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if called != blocks:
        raise ProxSparseError(
            f"{type(decoder).__name__} does not run its blocks once each and in order: choose a method that is not "
            "blockwise, such as magnitude or fisher."
        )
    return entering[0], calls
