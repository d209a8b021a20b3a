"""Checks of the exercises of lesson 06."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lesson.checking import Wrong, call, close, hint_for, number, numbers, right, tensor
from proxsparse import Mask


def tampered(function: Callable) -> None:
    """The names of all tensors that are not the original's under its masks."""
    for about, wanted, exported in _exports():
        original, kept = _original()
        found = call(function, original, exported, kept)
        if not isinstance(found, list | tuple | set) or not all(isinstance(name, str) for name in found):
            raise Wrong(f"{function.__name__} returned {found!r}: return a list of names.")
        if set(found) == wanted:
            continue
        if extra := sorted(set(found) - wanted):
            why = f"{about}: " if wanted else ""
            raise Wrong(f"{extra[0]} is as it has to be, and you name it: {why}{_fine(extra[0])}.")
        raise Wrong(f"You do not name {min(wanted - set(found))}: {about}.")
    right("zeros, kept weights bit for bit, and all that has no mask; seen on one honest export and 7 others.")


def _original() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors and masks of a small model. One kept weight of `up` is zero, as in real models."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(2, 8, generator=generator) for name in ("up", "down")}
    tensors["up"][1, 4:] = torch.tensor([0.5, 0.0, 0.0, 0.0])
    tensors["norm"] = torch.ones(8)
    return tensors, {name: Mask.project(tensors[name]).dense() for name in ("up", "down")}


def _exports() -> Iterator[tuple[str, set[str], dict[str, Tensor]]]:
    """(what was done, names to be found, the tensors): an honest one, then others."""

    def export() -> dict[str, Tensor]:
        tensors, kept = _original()
        return {name: torch.where(kept[name], each, 0) if name in kept else each for name, each in tensors.items()}

    original, kept = _original()
    first, second = kept["up"][0, :4].nonzero().flatten().tolist()
    dropped = int((~kept["up"][0, :4]).nonzero()[0])
    yield "nothing was done to it", set(), export()
    tensors = export()
    tensors["up"][0, dropped] = original["up"][0, dropped]
    yield "a dropped weight has come back", {"up"}, tensors
    tensors = export()
    tensors["up"][0, first] *= 2
    yield "a kept weight is twice as large, and still every group is 2:4", {"up"}, tensors
    tensors = export()
    tensors["up"].view(torch.int32)[0, first] ^= 1
    yield "a kept weight differs in its last bit: compare without a tolerance", {"up"}, tensors
    tensors = export()
    tensors["up"][0, second] = 0
    yield "a kept weight is zero, and is not in the original", {"up"}, tensors
    tensors = export()
    tensors["norm"] *= 2
    yield "it has no mask, and has to be the original's", {"norm"}, tensors
    tensors = export()
    tensors["adapter"] = torch.ones(2)
    yield "the original has no such tensor", {"adapter"}, tensors
    tensors = export()
    del tensors["norm"]
    yield "it is missing in the export", {"norm"}, tensors


def _fine(name: str) -> str:
    if name == "norm":
        return "it has no mask, and is the original's"
    return (
        "zeros where the mask drops, the original's weights where it keeps (one of them is zero in the original, too)"
    )


def pack(function: Callable) -> None:
    """Kept values, and a bit a weight."""
    weight, kept, values, bits = _packed()
    found = call(function, weight, kept)
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(each, Tensor) for each in found):
        raise Wrong(f"{function.__name__} returned a {type(found).__name__}: return two tensors, values and bits.")
    for what, each, right_one in (("values", found[0], values), ("bits", found[1], bits)):
        if each.shape != right_one.shape:
            raise Wrong(f"The {what} have shape {tuple(each.shape)}: it has to be {tuple(right_one.shape)}.")
    if not close(found[0], values):
        row, column = _first_apart(found[0], values)
        raise Wrong(
            f"Value ({row}, {column}) is {float(found[0][row, column]):.4g} and should be {float(values[row, column]):.4g}: the kept "
            "weights of a row, from left to right."
        )
    if found[1].dtype != torch.uint8:
        raise Wrong(f"The bits are {found[1].dtype}: eight of them fit one torch.uint8.")
    if not torch.equal(found[1], bits):
        hints = (
            (_bytes(kept.reshape(3, -1, 8).flip(-1)), "weight 8b is the lowest bit of byte b, which counts 1"),
            (255 - bits, "a bit is 1 where the weight is kept"),
            (_bytes(kept.reshape(3, 8, -1).transpose(1, 2)), "a byte holds eight weights that stand beside each other"),
        )
        hint = next(
            (words for value, words in hints if torch.equal(found[1], value)), "bit k of a byte counts 2 to the power k"
        )
        row, byte = _first_apart(found[1], bits)
        shown = "".join("●" if keeps else "○" for keeps in kept[row, 8 * byte : 8 * byte + 8])
        raise Wrong(
            f"Byte ({row}, {byte}) holds {shown} and is {int(bits[row, byte])}, and you have {int(found[1][row, byte])}: {hint}."
        )
    right("values and one bit a weight; seen on 12 groups.")


def unpack(function: Callable) -> None:
    """The weights from values and bits."""
    weight, kept, values, bits = _packed()
    wanted = torch.where(kept, weight, 0)
    found = tensor(function, values, bits, shape=tuple(weight.shape))
    if close(found, wanted):
        right("every value is back at its place; seen on 12 groups.")
        return

    def placed(where: Tensor) -> Tensor:
        return torch.zeros(where.shape).masked_scatter(where, values)

    hints = (
        (placed(kept.reshape(3, -1, 8).flip(-1).reshape(kept.shape)), "the lowest bit of a byte is the first of its eight weights"),
        (placed(~kept), "a bit is 1 where the weight is kept"),
        (kept.float(), "those are the bits: put the values where they are 1"),
        (torch.nn.functional.pad(values.reshape(3, 4, 2), (0, 2)).reshape(3, 16), "the bits say where in its group a value stands"),
    )  # fmt: skip
    hint = next(
        (words for value, words in hints if close(found, value)),
        "the values of a row, in their order, where its bits are 1",
    )
    row, column = _first_apart(found, wanted)
    place = slice(column // 4 * 4, column // 4 * 4 + 4)
    raise Wrong(
        f"Group ({row}, {column // 4}) is {numbers(wanted[row, place])}, and you have {numbers(found[row, place])}: {hint}."
    )


def _packed() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(weight, kept, values, bits) of a layer of 3 × 16."""
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    kept = Mask.project(weight).dense()
    return weight, kept, weight[kept].reshape(3, 8), _bytes(kept.reshape(3, -1, 8))


def _bytes(eights: Tensor) -> Tensor:
    """Bool (…, 8) → uint8; the first is the lowest bit."""
    return (eights * 2 ** torch.arange(8)).sum(-1).to(torch.uint8)


def _first_apart(found: Tensor, wanted: Tensor) -> list[int]:
    return ((found.double() - wanted.double()).abs() > 1e-6).nonzero()[0].tolist()


def at_most(function: Callable) -> None:
    """Dense time over sparse time where a layer takes the longer of multiplying and reading."""
    pruned, outside = 800.0, 200.0
    share = pruned / (pruned + outside)
    for batch in ((1, 100), (1000, 100), (100, 100), (105, 100), (60, 50)):
        found, wanted = number(function, pruned, outside, *batch), _gain(pruned, outside, *batch)
        if math.isclose(found, wanted, rel_tol=1e-4):
            continue
        hints = {
            1 / wanted: "the dense time over the sparse one: more than 1 is faster",
            _gain(pruned, 0, *batch): "the layers without a mask take time as well",
            _gain(pruned, outside, *batch, reads=1): "a 2:4 layer has less to read, too",
            _gain(pruned, outside, *batch, multiplies=1): "a 2:4 layer has half of the multiply-adds",
            _gain(pruned, outside, *batch, together=operator.add): "reading and multiplying go on at the same time: the longer one counts",
            1
            / (1 - share + share / 2): "that is Amdahl's bound. With few tokens reading counts: half of the values, and their positions",
            1 - share + share * _gain(pruned, 0, *batch): "speedups do not add up: divide all of the dense time by all of the sparse",
        }  # fmt: skip
        hint = hint_for(
            hints, found, "add up max(multiply-adds, reading) over both kinds of layers, dense and sparse, and divide"
        )
        raise Wrong(
            f"With {pruned:g} weights in pruned layers, {outside:g} outside, {batch[0]} tokens and a balance of {batch[1]} the sparse "
            f"model is at most {wanted:.4g} times as fast, and you have {found:.4g}: {hint}."
        )
    right("reading where tokens are few, Amdahl's law where they are many; seen on 5 batches.")


def _gain(
    pruned: float,
    outside: float,
    tokens: int,
    balance: float,
    reads: float = 9 / 16,
    multiplies: float = 0.5,
    together: Callable[[float, float], float] = max,
) -> float:
    """Dense time over sparse time. reads, multiplies: of a dense layer's, what a 2:4 layer has, by right half of the values with their
    positions, and half of the multiply-adds; together: what the two come to."""
    rest = together(tokens * outside, balance * outside)
    dense = together(tokens * pruned, balance * pruned)
    return (dense + rest) / (together(tokens * pruned * multiplies, balance * pruned * reads) + rest)
