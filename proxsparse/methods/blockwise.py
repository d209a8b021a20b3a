"""Pruning block by block: each decoder block sees the text as the pruned blocks before it hand it on.

As in the code of SparseGPT and Wanda (github.com/IST-DASLab/sparsegpt, github.com/locuslab/wanda): hidden states enter
a block twice, once to gather statistics of the inputs of its layers, and once more, with pruned weights, to make what
enters the next block. So memory holds the hidden states and the statistics of one block, and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from proxsparse.layers import PrunableLayer, PrunableLayers, decoder_blocks
from proxsparse.layers.stored import in_memory
from proxsparse.models.activations import InputObserver, Statistic, check_windows, experts_one_by_one
from proxsparse.models.blocks import TextInBlocks
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
    in one forward pass. Of a streamed model one block at a time is in memory. Raises ProxSparseError without a window,
    and for a decoder that does not run its blocks in order.
    """
    check_windows(windows)
    last = max(layer.block for layer in layers.values())
    blocks = [block for _, index, block in decoder_blocks(model) if index <= last]
    total, done = 2 * len(blocks) * len(windows), 0  # every block is entered twice, but the last; windows enter once

    def telling(what: str) -> Callable[[int], None]:
        def advance(entered: int) -> None:
            nonlocal done
            progress(done, total, what)
            done += entered

        return advance

    with experts_one_by_one(model):
        text = TextInBlocks(model, blocks, windows, batch, precision, telling("recording what enters the blocks"))
        for index, block in enumerate(blocks):
            where = f"block {index + 1} of {len(blocks)}"
            own = {name: layer for name, layer in layers.items() if layer.block == index}
            with in_memory(block.parameters()):
                statistics = {name: gather(layer) for name, layer in own.items()}
                text.enter(index, telling(f"measuring activations, {where}"), InputObserver(own, statistics))
                pruned = {}
                for name, layer in own.items():
                    telling(f"pruning {where}")(0)
                    pruned[name] = prune(layer, statistics.pop(name))
                if index < last:
                    with _replaced(own, pruned):
                        text.pass_on(index, telling(f"passing the text through {where}"))


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
