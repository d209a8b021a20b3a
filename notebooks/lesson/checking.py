"""How a check speaks: one sentence on what is wrong with the answer, or one that it is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class Wrong(AssertionError):
    """What is wrong with an answer. Jupyter shows the sentence alone, without the lines of the check."""

    def _render_traceback_(self) -> list[str]:
        return [f"✗ {self}"]


def right(sentence: str) -> None:
    """Say that the answer is right, and what that was seen from."""
    print(f"✓ {sentence}")


def call(function: Callable, *arguments: Any) -> Any:
    """What the student's function returns. Raises Wrong where it still has its gap, fails, or returns nothing."""
    name = function.__name__
    try:
        found = function(*[each.clone() if isinstance(each, Tensor) else each for each in arguments])
    except NotImplementedError:
        raise Wrong(
            f"{name} still has its gap: replace `raise NotImplementedError()` by your code, and run the cell."
        ) from None
    except Exception as error:  # whatever a student's code raises: the sentence names it, and the cause is kept
        raise Wrong(f"{name}({_shown(arguments)}) raised {type(error).__name__}: {error}") from error
    if found is None:
        raise Wrong(f"{name}({_shown(arguments)}) returned nothing: does it end with `return …`?")
    return found


def tensor(function: Callable, *arguments: Any, shape: tuple[int, ...]) -> Tensor:
    """As `call`, for a function that has to return a tensor of this shape."""
    found = call(function, *arguments)
    name = function.__name__
    if not isinstance(found, Tensor):
        raise Wrong(f"{name} returned a {type(found).__name__}: return a torch tensor of shape {shape}.")
    if tuple(found.shape) != shape:
        raise Wrong(f"{name} returned a tensor of shape {tuple(found.shape)}: it has to be {shape}.")
    return found


def number(function: Callable, *arguments: Any) -> float:
    """As `call`, for a function that has to return one number."""
    found = call(function, *arguments)
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{function.__name__} returned {found!r}: return one number.") from None


def two_numbers(function: Callable, *arguments: Any, what: str) -> tuple[float, float]:
    """As `call`, for a function that has to return two numbers; what: how a sentence calls them."""
    found = call(function, *arguments)
    if not isinstance(found, tuple) or len(found) != 2:
        raise Wrong(f"{function.__name__} returned {found!r}: return two numbers, {what}.")
    return float(found[0]), float(found[1])


def hint_for(hints: Mapping[float, str], found: float, otherwise: str, tolerance: float = 1e-4) -> str:
    """What is said of a wrong number: of the first typical one that it is, else what is right."""
    return next((words for value, words in hints.items() if math.isclose(found, value, rel_tol=tolerance)), otherwise)


def numbers(values: Tensor) -> str:
    """A row of weights as a sentence shows it."""
    return "(" + ", ".join(f"{value:.4g}" for value in values.flatten().tolist()) + ")"


def _shown(arguments: tuple) -> str:
    short = []
    for each in arguments:
        if isinstance(each, Tensor):
            short.append(numbers(each) if each.numel() <= 8 else f"a tensor of shape {tuple(each.shape)}")
        else:
            short.append(repr(each) if len(repr(each)) <= 60 else f"a {type(each).__name__}")
    return ", ".join(short)


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether all entries agree, up to rounding."""
    return torch.allclose(found.double(), wanted.double(), rtol=tolerance, atol=tolerance)
