"""At which steps the masks of a run are known, and what they keep. The one place that knows where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from proxsparse.errors import ProxSparseError
from proxsparse.runs.run import Run

if TYPE_CHECKING:
    from proxsparse.masks.mask_set import MaskSet


def known_steps(run: Run) -> list[int]:
    """The steps whose masks are known for every layer, oldest first."""
    return list(run.masks())


def require_step(run: Run, step: int | None) -> int:
    """`step`, or the last one where it is None. Raises ProxSparseError where the masks of that step are not known."""
    steps = known_steps(run)
    if not steps:
        raise ProxSparseError(
            f"Run {run.id} has no learned masks on disk: wait for its first measurement, or choose another mask."
        )
    if step is None:
        return steps[-1]
    if step not in steps:
        raise ProxSparseError(f"Run {run.id} has no masks of step {step}: choose {', '.join(map(str, steps))}.")
    return step


def masks_at(run: Run, step: int) -> MaskSet:
    """The masks of every layer at a step; imports torch."""
    from proxsparse.masks.mask_set import MaskSet

    return MaskSet.load(run.masks()[require_step(run, step)])


def kept_in_group(run: Run, step: int, layer: str, row: int, group: int) -> list[int]:
    """Which positions of one group are kept at a step; reads one row, without torch."""
    m = run.job().learn.m
    with safe_open(run.masks()[require_step(run, step)], "np") as file:
        packed = file.get_slice(layer)[row : row + 1]
    bits = np.unpackbits(packed[0], bitorder="little")
    return np.flatnonzero(bits[group * m : (group + 1) * m]).tolist()
