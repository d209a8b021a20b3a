"""Checks of the exercises of lesson 02."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, combinations_with_replacement

import torch
from torch import Tensor

from lesson.checking import Wrong, call, close, number, numbers, right, tensor
from proxsparse import prox

ENOUGH = 1e-4  # of the objective, relative: so much higher is a minimum missed, not rounding


def products(x: Tensor, count: int) -> Tensor:
    """The sum of all products of `count` different entries of each row."""
    return sum(
        (x[..., list(chosen)].prod(-1) for chosen in combinations(range(x.shape[-1]), count)),
        torch.zeros_like(x[..., 0]),
    )


def regularizer(function: Callable) -> None:
    """R of each group."""
    told = (
        ([1.0, 0.0, 3.0, 0.0], "two nonzeros are allowed, and cost nothing"),
        ([2.0, 0.0, 0.0, 0.0], "fewer than two nonzeros are allowed as well"),
        ([1.0, 2.0, 3.0, 0.0], "one product has no zero in it, 1·2·3"),
        ([0.0, 2.0, 3.0, 4.0], "one product has no zero in it, 2·3·4"),
        ([1.0, 2.0, 3.0, 4.0], "1·2·3 + 2·3·4 + 3·4·1 + 4·1·2"),
        ([1.0, -2.0, 3.0, 0.0], "signs do not count: take absolute values"),
        ([-1.0, -2.0, 3.0, -4.0], "signs do not count: take absolute values"),
    )
    groups = torch.tensor([group for group, _ in told])
    found, wanted = tensor(function, groups, shape=(len(told),)), products(groups.abs(), 3)
    for (_, why), group, ours, value in zip(told, groups, found, wanted, strict=True):
        if not close(ours, value):
            raise Wrong(f"R{numbers(group)} is {float(value):g}, and you have {float(ours):g}: {why}.")
    right("0 exactly when at most two of four are nonzero; seen on 7 groups.")


def best_coordinate(function: Callable) -> None:
    """The best value of one weight, the others fixed."""
    p = torch.tensor([1.2, 0.8, 0.6, 0.3])
    for x in (
        torch.tensor([1.0, 0.5, 0.2, 0.0]),
        torch.tensor([0.0, 0.0, 0.7, 0.0]),
        torch.tensor([1.2, 0.8, 0.6, 0.3]),
    ):
        for i in range(4):
            for lam in (0.0, 0.5, 2.0):
                others = torch.cat((x[:i], x[i + 1 :]))
                pull = lam * float(products(others, 2))
                wanted, found = max(0.0, float(p[i]) - pull), number(function, p, x, i, lam)
                if math.isclose(found, wanted, abs_tol=1e-6):
                    continue
                hints = {
                    float(p[i]) - pull: "a magnitude is never below 0",
                    max(
                        0.0, float(p[i]) - lam * float(products(others, 3))
                    ): "differentiate R: a product of two others is left",
                    max(0.0, float(p[i]) - lam * float(products(x, 2))): "only the other three count, not x[i] itself",
                    max(0.0, float(x[i]) - pull): "start from p[i], not from x[i]: the distance is to p",
                    float(p[i]): "λ does not enter yet",
                }
                hint = next((h for value, h in hints.items() if math.isclose(found, value, abs_tol=1e-6)), None)
                hint = hint or f"½(t − {float(p[i]):.4g})² + {pull:.4g}·t is to be least over t ≥ 0"
                raise Wrong(
                    f"With p = {numbers(p)}, x = {numbers(x)} and λ = {lam:g} the best x[{i}] is {wanted:.4g}, and you have "
                    f"{found:.4g}: {hint}."
                )
    right("exact in each coordinate; seen on 36 cases.")


def support_of_three(function: Callable) -> None:
    """The stationary point with three nonzeros."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(400, 3, generator=generator, dtype=torch.float64).sort(dim=1, descending=True).values
    solved = prox(torch.cat((drawn, torch.zeros(400, 1, dtype=torch.float64)), dim=1), 1.0)[:, :3]
    three = solved[:, 2] > 0.02
    for p, wanted in zip(drawn[three][:40], solved[three][:40], strict=True):
        found = tensor(function, p, shape=(3,))
        if close(found, wanted, 1e-4):
            continue
        left = found + torch.stack([found[[j for j in range(3) if j != i]].prod() for i in range(3)]) - p
        worst = int(left.abs().argmax())
        if not bool(found.isfinite().all()):
            raise Wrong(
                f"For p = {numbers(p)} your point is {numbers(found)}: a division went wrong, or the iteration left 0 ≤ a < 1."
            )
        if float(left[worst].abs()) > 1e-3:
            raise Wrong(
                f"For p = {numbers(p)} your point {numbers(found)} is not stationary: x[{worst}] + the product of the other two − "
                f"p[{worst}] is {float(left[worst]):.3g}, not 0."
            )
        raise Wrong(
            f"For p = {numbers(p)} your point {numbers(found)} is stationary, but it is not the minimum {numbers(wanted)}: "
            "which g rises."
        )
    right("the minimum with three nonzeros; seen on 40 groups.")


def trap(function: Callable, alternating: Callable) -> None:
    """A group and a λ at which alternating minimization ends above the least objective."""
    found = call(function)
    if not isinstance(found, tuple) or len(found) != 2:
        raise Wrong(f"{function.__name__} returned {found!r}: return two things, four weights and λ.")
    weights, lam = torch.as_tensor(found[0], dtype=torch.float64).flatten(), float(found[1])
    if weights.numel() != 4 or not bool(weights.isfinite().all()) or not 0 < lam < math.inf:
        raise Wrong(
            f"You returned {weights.numel()} weights and λ = {lam:g}: give four finite weights and a λ above 0."
        )
    v = weights.abs().sort(descending=True).values.unsqueeze(0)
    ends = {"alternating": alternating(v, lam), "exact": prox(v, lam)}
    reached = {way: float(((w - v) ** 2).sum() / 2 + lam * products(w.abs(), 3).sum()) for way, w in ends.items()}
    if reached["alternating"] <= reached["exact"] * (1 + ENOUGH):
        strength = lam * float(v[0, 0])
        hint = "take one large weight and three nearly equal ones, a little over half as large"
        if not 0.6 <= strength <= 1:
            hint = (
                f"λ times the largest weight is {strength:.2g}, and between 0.6 and 1 several supports have a minimum"
            )
        raise Wrong(
            f"On {numbers(weights)} at λ = {lam:g} both end at {reached['exact']:.6g}, with {numbers(ends['alternating'])}: {hint}; or "
            "draw many groups, as above, and take one."
        )
    right(
        f"alternating minimization ends in {numbers(ends['alternating'])} at {reached['alternating']:.5g}, and {numbers(ends['exact'])} "
        f"has {reached['exact']:.5g}."
    )


def symmetric(function: Callable) -> None:
    """The elementary symmetric polynomial of degree k."""
    for x in (torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.0, 2.0]), torch.arange(1.0, 9.0)):
        for k in range(1, len(x) + 1):
            found, wanted = number(function, x, k), float(products(x, k))
            if math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-6):
                continue
            hint = f"it is the sum of {math.comb(len(x), k)} products of {k} different entries each"
            if math.isclose(found, float(x.sum() ** k), rel_tol=1e-4):
                hint = "no entry may be taken twice in a product"
            elif math.isclose(found, _with_repetitions(x, k), rel_tol=1e-4):
                hint = "an entry was taken more than once: update from e_k down to e_1, so that e_(k-1) does not know of it yet"
            elif math.isclose(found, wanted * math.factorial(k), rel_tol=1e-4):
                hint = "each set of entries counts once, whatever the order"
            raise Wrong(f"e_{k}{numbers(x)} is {wanted:g}, and you have {found:g}: {hint}.")
    ones = torch.ones(40)
    if not math.isclose(number(function, ones, 20), math.comb(40, 20), rel_tol=1e-3):
        raise Wrong("On 40 ones e_20 is the number of ways to choose 20 of 40, and you have something else.")
    right("the sum of all products of k entries; seen up to 40 entries, which nobody can list.")


def _with_repetitions(x: Tensor, k: int) -> float:
    """The complete homogeneous symmetric polynomial, in which an entry may be taken again."""
    return float(sum(math.prod(chosen) for chosen in combinations_with_replacement(x.tolist(), k)))
