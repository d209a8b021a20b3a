"""At which steps the masks of a run are known, and what they keep. The one place that knows where they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from proxsparse.errors import ProxSparseError
from proxsparse.runs.history.reader import History
from proxsparse.runs.readers.comparison import Comparison
from proxsparse.runs.run import Run

if TYPE_CHECKING:
    from proxsparse.masks.mask_set import MaskSet


def known_steps(run: Run) -> list[int]:
    """The steps whose masks are known for every layer, oldest first: those on disk, and those that the run remembers."""
    history = whole_history(run)
    return sorted({*run.masks(), *(history.steps if history else ())})


def whole_history(run: Run) -> History | None:
    """What the run remembers of its masks, where that is every layer; else None."""
    try:
        history = run.history()
    except ProxSparseError:  # nothing was recorded: the masks on disk are all there is
        return None
    return history if len(history.layers) == len(run.layers()) else None


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
    import torch

    from proxsparse.masks.mask import Mask
    from proxsparse.masks.mask_set import MaskSet
    from proxsparse.masks.packing import pack

    step = require_step(run, step)
    if step in run.masks():
        return MaskSet.load(run.masks()[step])
    history = run.history()
    kept = {name: torch.from_numpy(history.mask(name, step)) for name in history.layers}
    return MaskSet({name: Mask(pack(mask), tuple(mask.shape), history.n, history.m) for name, mask in kept.items()})


def kept_in_group(run: Run, step: int, layer: str, row: int, group: int) -> list[int]:
    """Which positions of one group are kept at a step; without torch."""
    m, step = run.job().learn.m, require_step(run, step)
    if step not in run.masks():
        return np.flatnonzero(run.mask(layer, step)[row, group * m : (group + 1) * m]).tolist()
    with safe_open(run.masks()[step], "np") as file:
        packed = file.get_slice(layer)[row : row + 1]
    bits = np.unpackbits(packed[0], bitorder="little")
    return np.flatnonzero(bits[group * m : (group + 1) * m]).tolist()


def method_masks(comparison: Comparison, method: str) -> Callable[[str], np.ndarray]:
    """layer → the mask of it that a method of a comparison made: bool (rows, columns); without torch.

    Raises ProxSparseError, now or when it is asked, where the comparison keeps no mask of that method or layer.
    """
    file, columns = comparison.masks_file(method), comparison.run.layers().set_index("name")["columns"]

    def mask(layer: str) -> np.ndarray:
        if layer not in columns.index or not file.is_file():
            raise ProxSparseError(
                f"Comparison {comparison.run.id} keeps no mask of {method} for {layer}: choose another method."
            )
        with safe_open(file, "np") as masks:
            packed = masks.get_tensor(layer)
        return np.unpackbits(packed, axis=1, bitorder="little")[:, : columns[layer]].astype(bool)

    return mask
