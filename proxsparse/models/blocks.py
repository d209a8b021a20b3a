"""A text on its way through the decoder blocks of a model, one block after the other: what every block-by-block computation shares.

How a block is called (positions, masks, caches) is taken from the model's own forward pass, for as many windows as enter together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from proxsparse.errors import ProxSparseError
from proxsparse.layers import decoder_blocks, outside_of
from proxsparse.layers.stored import device_of, in_memory
from proxsparse.models.forward import autocast
from proxsparse.models.streamed import kept_states, weights_where_they_are_read


class TextInBlocks:
    """Windows of a text, batch by batch, between two of the `blocks` of a model.

    handed_on: whether in the model what leaves a block is what enters the next. Everywhere `before(windows)` is called before so many
    windows enter a block. Raises ProxSparseError for a decoder that does not run its blocks in order.
    """

    def __init__(
        self, model, blocks: list[nn.Module], windows: Tensor, batch: int, precision: str, before: Callable[[int], None],
    ):  # fmt: skip
        self.model, self.blocks, self.device, self.precision = model, blocks, device_of(model), precision
        self.batches = windows.split(batch)
        self.states, self.calls, self.handed_on = kept_states(model), [], True
        self.parts: dict[int, int | None] = {}  # {block: of how many parts its result is; None: it is a tensor}
        known: dict[int, list[_Call]] = {}
        every_block = [block for _, _, block in decoder_blocks(model)]
        decoder = model.base_model
        with weights_where_they_are_read(model), in_memory(outside_of(every_block, decoder)):
            for tokens in self.batches:
                before(len(tokens))
                with autocast(self.device, precision):
                    self._enter(decoder, tokens.to(self.device), known)

    def _enter(self, decoder, tokens: Tensor, known: dict[int, list[_Call]]) -> None:
        """Keep what enters the first block, and the calls of all blocks.

        The calls of an earlier batch are taken again where this one enters the first block in the same way: they belong to
        the shape of a batch and not to its text, in nearly every model. known: {windows in a batch: calls}, kept up here.
        """
        entered = _record(decoder, self.blocks[:1], tokens)
        earlier = known.get(len(tokens))
        if earlier is None or not earlier[0].equals(entered.calls[0]):
            whole = _record(decoder, self.blocks, tokens)
            known[len(tokens)] = whole.calls
            self.handed_on &= whole.handed_on
        self.states.append(entered.states)
        self.calls.append(known[len(tokens)])

    def enter(self, index: int, before: Callable[[int], None], watched: AbstractContextManager) -> None:
        """Run a block on all batches, each inside `watched`, and forget what comes out."""
        for position, tokens in enumerate(self.batches):
            before(len(tokens))
            with autocast(self.device, self.precision), watched:
                self._run(index, position)

    def pass_on(self, index: int, before: Callable[[int], None]) -> None:
        """Run a block on all batches, and keep what comes out: it enters the next block."""
        for position, tokens in enumerate(self.batches):
            before(len(tokens))
            with autocast(self.device, self.precision):  # opened anew: it keeps casts of the weights until it closes
                self.states[position] = self._run(index, position)

    def _run(self, index: int, position: int) -> Tensor:
        result = self.calls[position][index](self.blocks[index], self.states[position])
        self.parts[index] = None if isinstance(result, Tensor) else len(result)
        return _first(result)

    @contextmanager
    def behind(self, position: int) -> Iterator[Tensor]:
        """While open, the model runs without its blocks, all of which the text has passed: the last one gives what it gave for that
        batch, cut to the tokens that are asked for. Yields the tokens of the batch."""
        states = self.states[position]

        def skipping(index: int):
            def forward(*positional, **named):
                given = positional[0] if positional else named["hidden_states"]
                last = index == len(self.blocks) - 1
                result = states[tuple(slice(size) for size in given.shape)] if last else given
                parts = self.parts[index]
                return result if parts is None else (result, *[None] * (parts - 1))

            return forward

        own = [vars(block).get("forward") for block in self.blocks]
        try:
            for index, block in enumerate(self.blocks):
                block.forward = skipping(index)
            with weights_where_they_are_read(self.model):
                yield self.batches[position].to(self.device)
        finally:
            for block, forward in zip(self.blocks, own, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward


@dataclass(frozen=True)
class _Call:
    """What a block is called with besides hidden states: positions, the mask of its kind of attention and so on."""

    positional: tuple
    named: dict

    def __call__(self, block: nn.Module, states: Tensor):
        return block(states, *self.positional, **self.named)

    def equals(self, other: _Call) -> bool:
        mine, its = (tree_flatten((call.positional, call.named)) for call in (self, other))
        return mine[1] == its[1] and all(map(_equal, mine[0], its[0]))


def _equal(first, second) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return first is second or (type(first) is type(second) and bool(first == second))


def _first(result) -> Tensor:
    """The hidden states among what a block returns."""
    return result if isinstance(result, Tensor) else result[0]


@dataclass
class _Recorded:
    """A pass through the decoder: what enters the first block, how each is called, and whether what leaves one enters the next."""

    states: Tensor | None = None
    calls: list[_Call] = field(default_factory=list)
    handed_on: bool = True


class _Entered(Exception):
    """The last block to record was called: what would follow is not needed."""


def _record(decoder, blocks: list[nn.Module], tokens: Tensor) -> _Recorded:
    """Run the decoder until the last of `blocks` is called."""
    found, called, left = _Recorded(), [], None

    def record(block, positional, named):
        named = dict(named)
        states, *rest = positional or [named.pop("hidden_states")]
        if left is None:
            found.states = states
        else:
            found.handed_on &= states.shape == left.shape and torch.equal(states, left)
        found.calls.append(_Call(tuple(rest), named))
        called.append(block)
        if len(called) == len(blocks):
            raise _Entered

    def leave(block, _inputs, result):
        nonlocal left
        left = _first(result)

    handles = [block.register_forward_pre_hook(record, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    try:
        with suppress(_Entered):
            decoder(input_ids=tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if called != blocks:
        raise ProxSparseError(
            f"{type(decoder).__name__} does not run its blocks once each and in order: choose a method that is not "
            "blockwise, such as magnitude or fisher, and measure the model without streaming it."
        )
    return found
