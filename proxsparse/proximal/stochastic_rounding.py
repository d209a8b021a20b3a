"""Rounding to bf16 so that the mean is right.

A bf16 number has eight significant bits: rounded to nearest, a change smaller than a 512th of its weight is gone.
Rounded up or down at random, with the probability that makes the mean right, it arrives on average (Gupta et al. 2015,
arXiv 1502.02551, section 3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def stochastic_round_(target: Tensor, values: Tensor, generator: torch.Generator) -> Tensor:
    """Write float32 `values` into `target`, rounding to one of the two neighbours in bf16, in the mean exactly.

    target: bf16, or float32, which takes the values as they are. What bf16 holds exactly is written exactly; a number
    that is not finite stays so. Returns `target`.
    """
    if target.dtype != torch.bfloat16:
        return target.copy_(values)
    # A bf16 is the upper half of a float32: add a random lower half, then cut it off.
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    rounded = noise.add_(bits).bitwise_and_(-1 << 16).view(torch.float32)
    return target.copy_(torch.where(values.isfinite(), rounded, values))


def writer(tensor: Tensor, seed: int | None) -> Callable[[Tensor, Tensor], Tensor]:
    """How values are written into parts of `tensor`: rounded to nearest, or with a seed stochastically."""
    if seed is None:
        return Tensor.copy_
    generator = torch.Generator(tensor.device).manual_seed(seed)
    return lambda target, values: stochastic_round_(target, values, generator)
