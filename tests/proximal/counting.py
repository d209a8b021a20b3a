"""What the operator's pass is given to count, and what plain counting finds."""

import itertools

import pytest
import torch

from proxsparse import Mask

GIVEN = list(itertools.product([False, True], repeat=3))


def chosen(given, rows=12, columns=44, seed=0):
    """previous, start and original, each a real one or None."""
    generator = torch.Generator().manual_seed(seed)
    previous, start = (Mask.project(torch.randn(rows, columns, generator=generator)) for _ in range(2))
    original = torch.randn(rows, columns, generator=generator)
    return [value if wanted else None for value, wanted in zip((previous, start, original), given, strict=True)]


def check(counts, result, previous, start, original):
    sums = counts.read()
    assert sums.flips == (counts.mask.flips(previous) if previous else 0)
    assert sums.flips_from_start == (counts.mask.flips(start) if start else 0)
    drift = 0.0 if original is None else (result.float() - original.float()).square().sum().item()
    assert sums.squared_drift == pytest.approx(drift, rel=1e-4)
    nonzeros = (result.reshape(-1, 4) != 0).sum(1)
    assert sums.nonzeros == (*(int((nonzeros == k).sum()) for k in (4, 3, 2)), int((nonzeros <= 1).sum()))
