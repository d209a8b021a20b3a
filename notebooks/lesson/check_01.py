"""Checks of the exercises of lesson 01."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from lesson.checking import Wrong, call, close, number, numbers, right, tensor
from proxsparse import Mask

MATRICES = (
    torch.tensor([[0.9, 0.5, 0.4, 0.1]]),
    torch.tensor([[-0.9, 0.5, 0.4, -0.7], [0.1, -0.3, 0.2, 0.0]]),
    torch.tensor([[0.1, 5.0, 0.2, 0.3, 9.0, 8.0, 7.0, 6.0]]),
    torch.randn(6, 16, generator=torch.Generator().manual_seed(0)),
    torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.5, 1.0, 0.5, 0.5]]),
)


def keep_two_of_four(function: Callable) -> None:
    """A mask that keeps the two largest magnitudes of each group."""
    for weight in MATRICES:
        kept = tensor(function, weight, shape=tuple(weight.shape))
        if kept.dtype != torch.bool:
            raise Wrong(f"{function.__name__} returned {kept.dtype}: a mask is boolean, True where a weight is kept.")
        _compare(kept, weight)
    right("two of every four kept, the largest by magnitude, ties to the left; seen on 5 matrices.")


def _compare(kept: Tensor, weight: Tensor) -> None:
    """Raise Wrong at the first group that is not as it should be."""
    wanted = Mask.project(weight).dense()
    for row in range(len(weight)):
        for group in range(weight.shape[1] // 4):
            place = slice(4 * group, 4 * group + 4)
            ours, best, values = kept[row, place], wanted[row, place], weight[row, place]
            if torch.equal(ours, best):
                continue
            where = f"group ({row}, {group}), whose weights are {numbers(values)}"
            if int(ours.sum()) != 2:
                raise Wrong(f"Your mask keeps {int(ours.sum())} of {where}: it has to keep 2.")
            lost, taken = values[best & ~ours], values[ours & ~best]
            if lost[0].abs() == taken[0].abs():
                raise Wrong(
                    f"Your mask breaks a tie to the right in {where}: of equal magnitudes the lower index is kept."
                )
            hint = " Compare magnitudes, not signed values." if lost.min() < 0 else ""
            raise Wrong(f"Your mask drops {lost[0]:.3g} and keeps {taken[0]:.3g} in {where}.{hint}")


def compress(function: Callable) -> None:
    """Kept values and their positions, as a sparse tensor core reads them."""
    for weight in MATRICES:
        kept = Mask.project(weight).dense()
        half = (weight.shape[0], weight.shape[1] // 2)
        found = call(function, weight, kept)
        if not isinstance(found, tuple) or len(found) != 2:
            raise Wrong(
                f"{function.__name__} returned a {type(found).__name__}: return two tensors, `values, positions`."
            )
        values, positions = (tensor(lambda each=each: each, shape=half) for each in found)
        if positions.is_floating_point() or positions.dtype == torch.bool:
            raise Wrong(f"The positions are {positions.dtype}: they are whole numbers from 0 to 3.")
        if positions.min() < 0 or positions.max() > 3:
            worst = int(positions.max() if positions.max() > 3 else positions.min())
            raise Wrong(f"A position is {worst}: count within the group, from 0 to 3, not along the whole row.")
        if not torch.equal(values, weight[kept].reshape(half)):
            row, column = (values != weight[kept].reshape(half)).nonzero()[0].tolist()
            wanted = float(weight[kept].reshape(half)[row, column])
            raise Wrong(
                f"Value ({row}, {column}) is {float(values[row, column]):.4g} and should be {wanted:.4g}: take the kept weights row by "
                "row, from left to right."
            )
        wanted_positions = (kept.nonzero()[:, 1] % 4).reshape(half)
        if not torch.equal(positions.long(), wanted_positions):
            row, column = (positions != wanted_positions).nonzero()[0].tolist()
            raise Wrong(
                f"Position ({row}, {column}) is {int(positions[row, column])} and should be {int(wanted_positions[row, column])}: that "
                f"weight, {float(values[row, column]):.4g}, is number {int(wanted_positions[row, column])} of its group, counted from 0."
            )
    right("the kept values with their positions, half as many columns as before; seen on 5 matrices.")


def multiply(function: Callable) -> None:
    """The product of a compressed matrix with a vector."""
    generator = torch.Generator().manual_seed(1)
    for weight in MATRICES:
        kept = Mask.project(weight).dense()
        half = (weight.shape[0], weight.shape[1] // 2)
        values, positions = weight[kept].reshape(half), (kept.nonzero()[:, 1] % 4).reshape(half)
        x = torch.randn(weight.shape[1], generator=generator)
        found = tensor(function, values, positions, x, shape=(len(weight),))
        wanted = (weight * kept) @ x
        if close(found, wanted):
            continue
        row = int((found - wanted).abs().argmax())
        first_group = (values * x[positions]).sum(1)
        hint = (
            " You look positions up in the first group of x: column c of `values` belongs to group c // 2."
            if close(found, first_group)
            else f" The dense product of that row is {numbers(weight[row] * kept[row])} times x."
            if weight.shape[1] <= 8
            else ""
        )
        raise Wrong(f"Output {row} is {float(found[row]):.4g} and should be {float(wanted[row]):.4g}.{hint}")
    right("the same product as the masked dense matrix, from half of the values; seen on 5 matrices.")


def stored_share(function: Callable) -> None:
    """The size of a 2:4 matrix with its positions over the dense one."""
    for bits in (32, 16, 8, 4):
        found, wanted = number(function, bits), (2 * bits + 4) / (4 * bits)
        if math.isclose(found, wanted, rel_tol=1e-6):
            continue
        hint = "the positions are missing, two bits for each kept value" if math.isclose(found, 0.5) else ""
        if math.isclose(found, (2 * bits + 2) / (4 * bits)):
            hint = "a group has two positions, each of two bits"
        elif math.isclose(found, 2 * bits + 4):
            hint = "divide the bits of a 2:4 group by those of a dense one"
        elif math.isclose(found, 1 - wanted):
            hint = "that is the share that is saved: the share that is stored is wanted"
        raise Wrong(
            f"At {bits} bits a weight the share is {wanted:.4g}, and you have {found:.4g}"
            + (f": {hint}." if hint else f": count the bits of one group, dense 4·{bits}.")
        )
    right("56% at 16 bits, 75% at 4 bits: the fewer bits a weight has, the more its position weighs.")


def log10_masks(function: Callable) -> None:
    """The decimal logarithm of the number of 2:4 masks."""
    for weights in (4, 8, 4000, 106_168_320):
        found, groups = number(function, weights), weights // 4
        wanted = groups * math.log10(len(list(combinations(range(4), 2))))
        if math.isclose(found, wanted, rel_tol=1e-9):
            continue
        wrong_ways = {
            groups * math.log10(4): "a group has more than four patterns: list them",
            weights * math.log10(6): "a group has four weights: count groups, not weights",
            weights
            * math.log10(2): "that counts all masks: at most two of four may be kept, and a mask keeps exactly two",
            groups * math.log(6): "that is the natural logarithm",
            groups * 6: "the numbers of patterns of all groups are multiplied, not added",
        }
        hints = [hint for value, hint in wrong_ways.items() if math.isclose(found, value, rel_tol=1e-9)]
        hint = hints[0] if hints else "each group has the same number of patterns, and they are chosen independently"
        raise Wrong(f"For {weights:,} weights you have {found:,.4f}, and it should be {wanted:,.4f}: {hint}.")
    right("6 to the power of the number of groups.")
