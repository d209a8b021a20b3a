"""Perplexity, in the protocol of the field: the text is concatenated and cut into windows that do not overlap."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from proxsparse.errors import DivergedError, ProxSparseError
from proxsparse.layers import decoder_blocks, outside_of
from proxsparse.layers.stored import device_of, in_memory, is_stored
from proxsparse.models.blocks import TextInBlocks
from proxsparse.models.forward import autocast, next_token_losses
from proxsparse.progress import Progress, no_progress


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean next-token loss; every predicted token weighs the same.

    stderr is the standard error over windows, carried to the perplexity (value · standard error of the mean loss).
    """

    value: float
    stderr: float
    tokens: int
    windows: int
    context: int
    seconds: float

    @classmethod
    def of(cls, losses: Tensor, context: int, seconds: float) -> Perplexity:
        """From the mean loss of every window, float64 (count,). Windows are equally long: the mean of their means is the mean
        over tokens."""
        mean = losses.mean().item()
        stderr = losses.std().item() / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
        value = math.exp(min(mean, 700))
        return cls(value, value * stderr, len(losses) * (context - 1), len(losses), context, seconds)

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.stderr:.2f} ({self.windows} windows of {self.context} tokens)"


def perplexity(
    model,
    windows: Tensor,
    batch: int = 4,
    precision: str = "auto",
    progress: Progress = no_progress,
) -> Perplexity:
    """Perplexity of `model` on `windows`: exp of the mean loss of all predicted tokens.

    Parameters
    ----------
    model : transformers model
        A causal language model, on the device where it is to be measured.
    windows : Tensor
        Token ids, int64 (count, length), of text that is held out.
    batch : int
        Windows in one forward pass.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the matrix products; see `proxsparse.models.forward.autocast`.
    progress : Progress
        Called before each pass; what it raises ends the measurement.

    Returns
    -------
    Perplexity

    Raises
    ------
    ProxSparseError
        Without a window, and where a loss is not finite (DivergedError).

    Examples
    --------
    >>> print(perplexity(lm.model, text.heldout))  # doctest: +SKIP
    25.63 ± 1.02 (40 windows of 512 tokens)
    """
    started = time.perf_counter()
    losses = window_losses(model, windows, batch, precision, progress)
    return Perplexity.of(losses, windows.shape[1], time.perf_counter() - started)


BOS_WINDOWS = 4  # on which it is told what a BOS token at the beginning of each window changes


def bos_effect(model, windows: Tensor, precision: str = "auto") -> dict[str, float]:
    """What the BOS token that begins each of `windows` does for the tokens after the first two: {"windows": how many were
    measured, "with", "without": perplexities of the same predicted tokens}."""
    some = windows[:BOS_WINDOWS].to(device_of(model))
    with torch.inference_mode(), autocast(some.device, precision):
        found = [
            next_token_losses(model, some)[:, 1:].double().mean().item(),
            next_token_losses(model, some[:, 1:]).double().mean().item(),
        ]
    there, missing = (math.exp(min(loss, 700)) for loss in found)
    return {"windows": len(some), "with": there, "without": missing}


@torch.no_grad()  # not in inference mode: FSDP keeps what it gathers here, and computes gradients with it later
def window_losses(
    model,
    windows: Tensor,
    batch: int = 4,
    precision: str = "auto",
    progress: Progress = no_progress,
) -> Tensor:
    """Mean next-token loss of every window in nats, float64 (count,): what perplexities and their paired differences
    are made of. Arguments and errors as for `perplexity`."""
    if len(windows) == 0 or windows.shape[1] < 2:
        raise ProxSparseError(f"There is nothing to measure: {len(windows)} windows of {windows.shape[-1]} tokens.")
    measure = _block_by_block if is_stored(model) else _whole
    means = torch.cat([losses.double().mean(1) for losses in measure(model, windows, batch, precision, progress)]).cpu()
    if not math.isfinite(means.sum().item()):
        raise DivergedError("The loss on the held-out text is not a finite number: this model is broken.")
    return means


def _whole(model, windows: Tensor, batch: int, precision: str, progress: Progress) -> Iterator[Tensor]:
    """The losses of every batch, from one forward pass each."""
    device = device_of(model)
    for begin in range(0, len(windows), batch):
        progress(begin, len(windows), "measuring perplexity")
        with autocast(device, precision):
            losses = next_token_losses(model, windows[begin : begin + batch].to(device))
        yield losses


def _block_by_block(model, windows: Tensor, batch: int, precision: str, progress: Progress) -> Iterator[Tensor]:
    """The same of a streamed model: all windows pass one block after the other, so that each is read once and not for every batch."""
    blocks, done = [block for _, _, block in decoder_blocks(model)], 0

    def advance(entered: int) -> None:
        nonlocal done
        progress(done, len(windows) * (len(blocks) + 1), "measuring perplexity, block by block")
        done += entered

    text = TextInBlocks(model, blocks, windows, batch, precision, advance)
    if not text.handed_on:
        raise ProxSparseError(
            f"{type(model).__name__} computes with the hidden states between two blocks, and cannot be measured block by block: measure "
            "it without streaming."
        )
    for index, block in enumerate(blocks):
        with in_memory(block.parameters()):
            text.pass_on(index, advance)
    with in_memory(outside_of(blocks, model)):
        for position in range(len(text.batches)):
            with autocast(text.device, precision), text.behind(position) as tokens:
                losses = next_token_losses(model, tokens)
            yield losses
