"""Checks of the exercises of lesson 04."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from lesson.checking import Wrong, hint_for, number, right, two_numbers


def absolute(function: Callable) -> None:
    """The λ that the operator of one layer takes, from a relative one."""
    generator = torch.Generator().manual_seed(0)
    for size in (0.02, 1.0, 7.0):
        weight = size * (0.3 + torch.randn(6, 8, generator=generator))
        scale = 0.5 + 2 * torch.rand(8, generator=generator)
        scaled = weight * scale
        rms = float(scaled.square().mean().sqrt())
        for relative in (0.2, 0.005):
            found, wanted = number(function, relative, weight, scale), relative / rms
            if math.isclose(found, wanted, rel_tol=1e-4):
                continue
            hints = {
                relative * rms: "divide by the RMS: where weights are larger, a smaller λ does the same",
                relative
                / float(weight.square().mean().sqrt()): "the RMS of the weights in the metric, that is times `scale`",
                relative
                / rms**2: "R has the unit weight³ and the squared distance weight²: one power of the RMS is left",
                relative
                / float(scaled.norm()): "that divides by the norm: take the mean of the squares, not their sum",
                relative
                / float(scaled.abs().mean()): "that is the mean magnitude: square, take the mean, then the root",
                relative / float(scaled.std()): "that is the standard deviation: an RMS subtracts no mean",
                relative: "that is the relative λ still",
            }
            hint = hint_for(hints, found, "λ divided by the root of the mean of (weight · scale)²")
            raise Wrong(
                f"In a layer whose scaled weights have an RMS of {rms:.4g} a relative λ of {relative:g} is {wanted:.4g}, and you "
                f"have {found:.4g}: {hint}."
            )
    right("the same pull in every layer, whatever the size of its weights; seen on 3 layers.")


def strength(function: Callable) -> None:
    """λ1 of a step that grows by a constant factor."""
    cases = ((20, 80, 0.2, 1000.0), (1, 80, 0.2, 1000.0), (80, 80, 0.2, 1000.0), (2, 3, 0.4, 4.0), (7, 10, 0.5, 1.0))
    for step, steps, last, ramp in cases:
        found, wanted = number(function, step, steps, last, ramp), last / ramp ** ((steps - step) / (steps - 1))
        if math.isclose(found, wanted, rel_tol=1e-6):
            continue
        share = (step - 1) / (steps - 1)
        hints = {
            last / ramp + (last - last / ramp) * share: "it grows by equal factors, not by equal amounts",
            last
            / ramp ** ((steps - step) / steps): f"from step 1 to step {steps} it grows {steps - 1} times, not {steps}",
            last / ramp ** ((steps - step - 1) / (steps - 1)): "steps are counted from 1",
            last / ramp**share: "that falls: it is weakest at the first step",
            last * ramp**share: "`last` is the strength at the last step, where it ends",
            last: "that is the strength at the last step",
        }
        otherwise = f"{steps - 1} equal factors, together {ramp:g}, lead from the first step to the last"
        hint = hint_for(hints, found, otherwise, 1e-6)
        raise Wrong(f"At step {step} of {steps} λ1 is {wanted:.4g}, and you have {found:.4g}: {hint}.")
    right("equal factors from the first step to the last; seen on 5 steps.")


def paired(function: Callable) -> None:
    """The mean difference of losses on the same windows, and its standard error."""
    generator = torch.Generator().manual_seed(0)
    for count in (8, 40):
        hard = 4 + torch.randn(count, generator=generator)  # how hard each window is, for any mask
        a, b = (hard + 0.1 * torch.randn(count, generator=generator) for _ in range(2))
        difference, error = two_numbers(function, a, b, what="the mean difference and its standard error")
        apart, root = a - b, math.sqrt(count)
        wanted, wanted_error = float(apart.mean()), float(apart.std()) / root
        if not math.isclose(difference, wanted, rel_tol=1e-3):
            hints = {
                -wanted: "a minus b, so that a smaller loss of the first gives less than 0",
                math.exp(wanted): "that is the ratio of the perplexities: here the difference of the losses is wanted",
                math.exp(float(a.mean()))
                - math.exp(float(b.mean())): "that is a difference of perplexities: stay with the losses",
                float(apart.sum()): "that is the sum over windows: take the mean",
                float(apart.abs().mean()): "differences have a sign, and partly cancel",
            }
            hint = hint_for(hints, difference, "the mean of a − b", 1e-3)
            raise Wrong(
                f"On {count} windows the mean difference is {wanted:.4g}, and you have {difference:.4g}: {hint}."
            )
        if not math.isclose(error, wanted_error, rel_tol=1e-3):
            hints = {
                float((a.var() / count + b.var() / count).sqrt()): "that takes the masks for measured on different windows, and is mostly "
                "how hard the windows are. Take the deviation of the differences",
                float(apart.std()): f"that is the deviation of one window: the mean of {count} varies less, by √{count}",
                float(apart.std()) / count: "divide by the root of the number of windows",
                float(apart.std(correction=0)) / root: "the variance of a sample divides by one less than its number, because its mean "
                "is estimated too",
                float(apart.var()) / root: "that is the variance: the deviation is its root",
            }  # fmt: skip
            hint = hint_for(hints, error, "the standard deviation of a − b, over the root of their number", 1e-3)
            raise Wrong(
                f"On {count} windows the standard error is {wanted_error:.4g}, and you have {error:.4g}: {hint}."
            )
    right("the mean of the differences, ± their standard deviation over √n; seen on 2 pairs of masks.")
