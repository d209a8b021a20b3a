"""The bytes that learning takes on each GPU, part by part, and what to change where they do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from proxsparse.learning.update import MASKS, OTHERS, WHOLE_BLOCKS, bytes_by_kind
from proxsparse.models.forward import MOST_LOGITS
from proxsparse.planning.shapes import Shapes

MOST_GPUS = 256  # looked through for the smallest number that fits
SHORT = 64  # tokens of a window; shorter ones are not proposed
FLOAT = torch.float32.itemsize


@dataclass(frozen=True)
class Load:
    """What one pass works on: `batch` windows of `length` tokens, dealt out to the GPUs. teacher: whether the dense model reads them
    too. recompute: whether each block is computed again in backward in the full plan, too. offload: whether several GPUs leave what is
    learned to the machine's memory."""

    batch: int
    length: int
    teacher: bool
    arithmetic: torch.dtype = torch.bfloat16
    recompute: bool = False
    offload: bool = False
    device: Literal["cuda", "cpu"] = "cuda"

    def on_each(self, gpus: int) -> Load:
        """What the busiest of so many GPUs works on."""
        return replace(self, batch=-(-self.batch // gpus))


@dataclass(frozen=True)
class Row:
    """Bytes on each of `gpus` GPUs. parts: by what they are for. total: less than their sum, since gradients come while activations
    go. least: activations could only be counted in part. host: bytes in the machine's memory for each GPU."""

    memory: str
    loss_at: str
    gpus: int
    bytes_a_weight: float
    parts: dict[str, int]
    total: int
    least: bool
    host: int


def row(shapes: Shapes, memory: str, loss_at: str, gpus: int, load: Load, share: float = 1.0) -> Row:
    """What learning takes under one plan. share: of a GPU's tokens of `load`, in proportion to which a pass takes more."""
    load = load.on_each(gpus)
    shared, again = gpus > 1, load.recompute or memory == "lean"
    at = "masked" if shared else loss_at  # the sharded parameter has the dtype of the arithmetic: nothing is cast
    passed = "full" if shared else memory  # weights stay as they are until the pass is over
    how = passed, at, load.arithmetic, again
    took = shapes.pass_bytes((load.batch, load.length), *how)
    if share < 1:
        took = shapes.pass_bytes((1, 2), *how).towards(took, share)
    kinds = bytes_by_kind(memory, at, load.arithmetic.itemsize, shared)
    weights = shapes.prunable
    masked = kinds["masked"] and kinds["masked"] * weights + (FLOAT - kinds["masked"]) * _not_linear(shapes)
    beside = OTHERS[memory] if shapes.item < FLOAT else 0
    # Several GPUs hold what does not learn in float32 alone: of the blocks each its part, what lies outside whole.
    other = (shapes.item + beside) * shapes.others if gpus == 1 else FLOAT * (shapes.others - shapes.outside)
    held = {
        "originals": shapes.item * weights, "soft": kinds["soft"] * weights, "gradients": kinds["gradient"] * weights,
        "moments": kinds["moments"] * weights, "masked": masked, "masks": int(MASKS * weights),
        "other": other,
    }  # fmt: skip
    each, host = {name: size // gpus for name, size in held.items()}, 0
    if shared and load.offload:
        host, each = sum(each.values()), dict.fromkeys(each, 0)
    gradients, logits = each["gradients"], logits_bytes(shapes, passed, load, share)
    at_once = max(took.kept + logits, max(took.kept, gradients) + took.further)
    whole = 0
    if gpus > 1:
        whole = load.arithmetic.itemsize * 2 * WHOLE_BLOCKS * shapes.largest_block + FLOAT * shapes.outside
    activations = took.kept + (took.further if again else 0)
    parts = each | {"activations": activations, "logits": logits, "whole": whole}
    total = sum(each.values()) - gradients + at_once + whole
    return Row(memory, loss_at, gpus, shapes.item + sum(kinds.values()) + MASKS, parts, total, took.least, host)


def logits_bytes(shapes: Shapes, memory: str, load: Load, share: float = 1.0) -> int:
    """Of the logits and the loss, see `models.token_losses`: logits and their gradient in the arithmetic's dtype, the teacher's, and on a
    GPU their logarithms, gradients of these and what enters both, in float32. They come in pieces of MOST_LOGITS."""
    rows = min(int(load.batch * load.length * share) or 1, max(1, MOST_LOGITS // shapes.vocabulary))
    item = load.arithmetic.itemsize
    each = item * (3 if load.teacher else 2)
    if load.device == "cuda":
        each += FLOAT * (3 if item == FLOAT else 4)
    head = shapes.model.get_output_embeddings()
    cast = item * head.weight.numel() if head is not None and memory == "full" and item < FLOAT else 0
    return rows * shapes.vocabulary * each + cast


def ways_out(shapes: Shapes, found: Row, load: Load, room: float) -> Iterator[str]:
    """What fits where `found` does not, each as what to give in its place; nothing where nothing does."""

    def fits(memory: str, recompute: bool, offload: bool, gpus: int, batch: int, length: int) -> bool:
        each, whole = replace(load, batch=batch).on_each(gpus), load.on_each(gpus)
        share = each.batch * length / (whole.batch * whole.length)
        changed = replace(load, recompute=recompute, offload=offload)
        return row(shapes, memory, found.loss_at, gpus, changed, share).total <= room

    as_it_is = "", found.memory, load.recompute, load.offload
    cheaper = []  # other ways of doing the same, the faster one first
    if found.memory == "full" and not load.recompute:
        cheaper.append(("--recompute", "full", True, load.offload))
    if found.memory == "full" and load.arithmetic != torch.float32:
        cheaper.append(("--memory lean", "lean", load.recompute, load.offload))
    enough = [way for way in cheaper if fits(*way[1:], found.gpus, load.batch, load.length)]
    if not enough and found.gpus > 1 and not load.offload:  # which is slower than these
        again = found.memory == "full" and not load.recompute
        offloaded = ("--recompute --offload" if again else "--offload", found.memory, True, True)
        enough = [offloaded] if fits(*offloaded[1:], found.gpus, load.batch, load.length) else []
    yield from (flag for flag, *_ in enough)
    smaller = [(batch, load.length) for batch in range(load.batch - 1, 0, -1)]
    smaller += [
        (1, load.length >> halved) for halved in range(1, load.length.bit_length()) if load.length >> halved >= SHORT
    ]
    size = next((size for size in smaller if fits(*as_it_is[1:], found.gpus, *size)), None)
    if size is not None:
        yield _flags(load, *size).lstrip()
    larger = [(load.batch, load.length), *smaller]
    larger = larger[: larger.index(size)] if size is not None else larger  # what fits here needs no more GPUs
    best = len(larger), MOST_GPUS
    for flag, *way in [as_it_is] if enough else [as_it_is, *cheaper]:
        size = next((size for size in larger if fits(*way, MOST_GPUS, *size)), None)
        if size is None:
            continue
        gpus = _smallest(lambda gpus, way=way, size=size: fits(*way, gpus, *size), found.gpus)
        if (larger.index(size), gpus) < best:  # a larger pass, or fewer GPUs
            best = larger.index(size), gpus
            yield f"{flag} --gpus {gpus}{_flags(load, *size)}".lstrip()


def _flags(load: Load, batch: int, length: int) -> str:
    """What has to be given for another size."""
    flags = [f" --batch {batch}"] * (batch != load.batch) + [f" --length {length}"] * (length != load.length)
    return "".join(flags)


def _smallest(fits, gpus: int) -> int:
    """The smallest number above `gpus` that fits, where more always fit better."""
    low, high = gpus, MOST_GPUS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _not_linear(shapes: Shapes) -> int:
    """Prunable weights that autocast may leave alone, such as experts in one parameter: they are masked in float32."""
    linear = {id(module.weight) for module in shapes.model.modules() if isinstance(module, nn.Linear | Conv1D)}
    return sum(parameter.numel() for parameter in shapes.layers.parameters() if id(parameter) not in linear)
