"""Checks of the exercises of lesson 05."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from lesson.checking import Wrong, call, hint_for, number, right, two_numbers


def ratio(function: Callable) -> None:
    """The ratio of two perplexities on the same windows, and its standard error."""
    for count in (6, 30):
        a, b = _losses(count, apart=0.4)
        value, error = two_numbers(function, a, b, what="the ratio and its standard error")
        apart, root = a - b, math.sqrt(count)
        wanted, log_error = float(apart.mean().exp()), float(apart.std()) / root
        if not math.isclose(value, wanted, rel_tol=1e-4):
            hints = {
                1 / wanted: "a over b, so that a worse mask a gives more than 1",
                float(apart.mean()): "that is its logarithm, the difference of the losses",
                float(a.mean() / b.mean()): "that is a ratio of losses: a perplexity is the exponential of a mean loss",
                float(apart.exp().mean()): "that is the mean of the windows' ratios: a perplexity has the mean in the exponent",
                float(a.exp().mean() / b.exp().mean()): "take the mean of the losses first, then the exponential",
                float(a.mean().exp() - b.mean().exp()): "that is the difference of the perplexities",
            }  # fmt: skip
            hint = hint_for(hints, value, "exp of the mean of a − b")
            raise Wrong(f"On {count} windows the ratio is {wanted:.4g}, and you have {value:.4g}: {hint}.")
        if not math.isclose(error, wanted * log_error, rel_tol=1e-4):
            unpaired = float((a.var() / count + b.var() / count).sqrt())
            hints = {
                log_error: "that is the error of the logarithm: multiply it by the ratio",
                wanted * unpaired: "that takes the masks for measured on different windows, and is mostly how hard the windows are",
                unpaired: "take the deviation of a − b, and multiply by the ratio",
                wanted * float(apart.std()): f"that is the deviation of one window: the mean of {count} varies less, by √{count}",
                float(apart.exp().std()) / root: "that is the error of the mean of the windows' ratios, which is another number",
                wanted * float(apart.std(correction=0)) / root: "the variance of a sample divides by one less than its number",
                float(torch.tensor(log_error).exp()): "an error of a logarithm becomes a factor: for a small one, the ratio times it",
            }  # fmt: skip
            hint = hint_for(hints, error, "the ratio times the standard error of the mean of a − b")
            raise Wrong(
                f"On {count} windows its standard error is {wanted * log_error:.4g}, and you have {error:.4g}: {hint}."
            )
    right("exp of the mean difference, ± that times the standard error of the mean; seen on 2 pairs of masks.")


def windows_needed(function: Callable) -> None:
    """The least number of windows on which a mean difference is so many standard errors from zero."""
    for count, apart, errors in ((10, 0.03, 2), (10, 0.03, 3), (40, -0.05, 2), (12, 1.0, 2)):
        a, b = _losses(count, apart)
        found = number(function, a, b, errors)
        deviation, mean = float((a - b).std()), float((a - b).mean())
        exact = (errors * deviation / mean) ** 2
        wanted = max(2, math.ceil(exact))
        if found == wanted:
            continue
        both = math.hypot(float(a.std()), float(b.std()))
        hints = {
            exact: "windows come whole: round up, and take two at least",
            float(math.ceil(exact)): "one window has no deviation: it takes two at least",
            float(max(2, math.floor(exact))): "round up: with fewer it is not reached",
            float(max(2, math.ceil((errors * both / mean) ** 2))): "that is without pairing: take the deviation of a − b",
            float(max(2, math.ceil((deviation / mean) ** 2))): f"that is for one standard error, and {errors} are asked for",
            float(max(2, math.ceil(abs(errors * deviation / mean)))): "the error shrinks with the root of their number: square",
            float(max(2, math.ceil(exact / count))): "start from the deviation of one window, not from the error of the mean",
            float(max(2, math.ceil(errors * (deviation / mean) ** 2))): "square the number of errors as well",
        }  # fmt: skip
        hint = hint_for(hints, found, "solve |mean| = errors · deviation / √n for n, and round up")
        raise Wrong(
            f"Where differences are {mean:.3g} in the mean with a deviation of {deviation:.3g}, it takes {wanted} windows for {errors} "
            f"standard errors, and you have {found:g}: {hint}."
        )
    right("(errors · deviation / mean)², rounded up, two at least; seen on 4 pairs of masks.")


def misleading(function: Callable) -> None:
    """All pairs of which the layer error says the one and the perplexity the other."""
    table = pd.DataFrame(
        {
            "method": ["dense", "learned", "swapped", "even", "plain", "chance"],
            "output_error": [math.nan, 0.30, 0.20, 0.25, 0.25, 0.60],
            "perplexity": [40.0, 60.0, 150.0, 200.0, 210.0, 9000.0],
        }
    )
    found = call(function, table.copy())
    if not isinstance(found, list) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in found):
        raise Wrong(f"{function.__name__} returned {found!r}: return a list of pairs (a, b) of methods.")
    wanted, rows = {("swapped", "learned"), ("even", "learned"), ("plain", "learned")}, table.set_index("method")

    def about(pair: tuple) -> str:
        return " and ".join(f"{name} has {rows.output_error[name]:g} and {rows.perplexity[name]:g}" for name in pair)

    for pair in found:
        if not set(pair) <= set(rows.index):
            raise Wrong(f"{pair} are no two methods of the table: its methods stand in the column `method`.")
        if pair in wanted:
            continue
        hint = "both agree on which is better"
        if "dense" in pair:
            hint = "dense has no layer error, and belongs to no pair"
        elif pair[::-1] in wanted:
            hint = "the first of a pair is the one with the lower layer error"
        elif rows.output_error[pair[0]] == rows.output_error[pair[1]]:
            hint = "equal errors say nothing"
        raise Wrong(f"{pair} does not belong there: {hint} ({about(pair)}, layer error and perplexity).")
    missing = sorted(wanted - set(found))
    if missing:
        raise Wrong(f"{missing[0]} is missing: {about(missing[0])}, layer error and perplexity.")
    if len(found) != len(wanted):
        raise Wrong(f"There are {len(wanted)} pairs and you have {len(found)}: each only once.")
    right("lower layer error, higher perplexity; 3 pairs of 10 in a table of five masks.")


def _losses(count: int, apart: float) -> tuple[Tensor, Tensor]:
    """Of two masks on the same windows, of which some are hard for both."""
    generator = torch.Generator().manual_seed(count)
    hard = 4 + torch.randn(count, generator=generator)
    a, b = (hard + 0.05 * torch.randn(count, generator=generator) for _ in range(2))
    return a + apart, b
