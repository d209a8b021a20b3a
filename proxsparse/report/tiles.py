"""The tracked tiles of a run for the page: which weights the mask keeps, and the soft weights, in a number of bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proxsparse.report.layers import spread
from proxsparse.report.packing import packed_bits, packed_numbers, packed_series
from proxsparse.runs.history.reader import REFERENCES, History

FEWEST_STEPS = 20  # with the soft weights; with fewer, the page is of more use with all steps and without them
MOST_STEPS = 400
HALVES = 3  # of a step: the soft weights before it, after its gradient half, after its prox half
PACKED_AT_BEST = 4  # how many times smaller soft weights become: what is read is at most that much more than fits


@dataclass(frozen=True)
class Tile:
    """What was recorded of one layer, at some of the recorded steps.

    kept: bool (steps, rows, columns) of the tile. weights: float32 (steps, HALVES, rows, columns), in the metric. whole: of the
    whole layer, float32 (steps, patterns and agreements). others: {reference mask: bool (rows, columns)}.
    """

    name: str
    shape: tuple[int, int]
    place: tuple[int, int, int, int]
    kept: np.ndarray
    weights: np.ndarray | None
    whole: np.ndarray
    others: dict[str, np.ndarray]


def fitted(history: History, most: int) -> tuple[dict[str, Any] | None, str]:
    """The masks for the page in at most `most` bytes, and a sentence on what is left out.

    Steps are left out first, evenly; where fewer than FEWEST_STEPS would stay, the soft weights are left out instead, and
    steps only where that is not enough. None where not even the first and last step fit.
    """
    steps = history.steps
    for with_weights, fewest in ((True, FEWEST_STEPS), (False, 2)):
        read = [steps[at] for at in spread(len(steps), _most_read(history, most, with_weights))]
        count, tiles = len(read), None
        while count >= min(fewest, len(steps)):
            tiles = tiles or [read_tile(history, name, read, with_weights) for name in history.layers]
            at = spread(len(read), count)
            found = _encoded(history, tiles, [read[index] for index in at], at)
            if len(json.dumps(found)) <= most:
                return found, _left_out(history, count, with_weights)
            count = count // 2 if count > 2 else 0
    return None, "The masks are left out: the page would be too large with them."


def read_tile(history: History, name: str, steps: list[int], with_weights: bool = True) -> Tile:
    """What the history holds of a layer's tile at these recorded steps."""
    row, column, rows, columns = history.tile_position(name)
    inside = np.s_[row : row + rows, column : column + columns]
    others, shape = {}, (0, 0)
    for reference in REFERENCES:
        if reference != "wanda":  # where Wanda's mask is known, it is the start
            mask = history.reference_mask(name, reference)
            others[reference], shape = mask[inside], mask.shape
    patterns = history.patterns(name).set_index("step").loc[steps]
    return Tile(
        name, shape, (row, column, rows, columns), _kept(history, name, steps, others["start"]),
        _weights(history.tile(name), steps, rows, columns) if with_weights else None,
        patterns.to_numpy(np.float32), others,
    )  # fmt: skip


def _kept(history: History, name: str, steps: list[int], start: np.ndarray) -> np.ndarray:
    """The tile's mask at each step, from the start mask and the changes in the tile."""
    row, column, rows, columns = history.tile_position(name)
    m = history.m
    flips = history.flips(name)
    group = flips["group"] - column // m
    here = flips[(flips["row"] >= row) & (flips["row"] < row + rows) & (group >= 0) & (group < columns // m)]
    known = np.array(steps)
    kept = np.repeat(start.reshape(1, rows, columns // m, m), len(steps), axis=0)
    for step, at, group, code in here[["step", "row", "group", "after"]].itertuples(index=False):
        kept[np.searchsorted(known, step) :, at - row, group - column // m] = (int(code) >> np.arange(m)) & 1 == 1
    return kept.reshape(len(steps), rows, columns)


def _weights(tile: pd.DataFrame, steps: list[int], rows: int, columns: int) -> np.ndarray:
    """The soft weights before each step and after its halves; NaN at steps where they were not recorded.

    Before a step they are what the step before left; where that was not recorded, what the gradient half did is taken back.
    """
    prox, gradient = (tile[tile["half"] == half] for half in ("prox", "gradient"))
    recorded = prox["step"].unique()
    after = prox["weight"].to_numpy(np.float32).reshape(len(recorded), -1)
    middle, moved = after.copy(), np.zeros_like(after)
    taken = np.isin(recorded, gradient["step"].unique())  # all but the start
    middle[taken] = gradient["weight"].to_numpy(np.float32).reshape(-1, after.shape[1])
    moved[taken] = gradient["moved"].to_numpy(np.float32).reshape(-1, after.shape[1])
    before = middle - moved
    follows = np.flatnonzero(np.diff(recorded) == 1) + 1
    before[follows] = after[follows - 1]
    found = np.full((len(steps), HALVES, after.shape[1]), np.nan, np.float32)
    known = np.isin(steps, recorded)
    at = np.searchsorted(recorded, np.array(steps)[known])
    found[known] = np.stack([before[at], middle[at], after[at]], axis=1)
    return found.reshape(len(steps), HALVES, rows, columns)


def _encoded(history: History, tiles: list[Tile], steps: list[int], at: list[int]) -> dict[str, Any]:
    """at: which of the steps that the tiles were read at."""
    layers = [
        {
            "name": tile.name, "shape": list(tile.shape), "tile": list(tile.place), "kept": packed_bits(tile.kept[at]),
            "weights": None if tile.weights is None else packed_series(_in_order(tile.weights[at])),
            "whole": packed_numbers(tile.whole[at]),
            "others": {name: packed_bits(mask) for name, mask in tile.others.items()},
        }
        for tile in tiles
    ]  # fmt: skip
    wanda = bool(history.agreement("wanda").notna().any(axis=None))
    return {
        "n": history.n, "m": history.m, "steps": steps, "patterns": list(history.pattern_names.values()),
        "start": "the start, which is Wanda's mask" if wanda else "the start, which is the magnitude mask",
        "references": list(REFERENCES[:2]) if wanda else ["start"], "layers": layers,
    }  # fmt: skip


def _in_order(weights: np.ndarray) -> np.ndarray:
    """(steps, HALVES, …) → one after the other in time: what follows is near, and often equal to, what was before."""
    return weights.reshape(-1, *weights.shape[2:])


def _most_read(history: History, most: int, with_weights: bool) -> int:
    """So many steps that what is read fits into memory; more than MOST_STEPS nobody could tell apart on a slider."""
    cells = sum(history.tile_position(name)[2] * history.tile_position(name)[3] for name in history.layers)
    a_step = cells * (2 * HALVES if with_weights else 1 / 8)
    return max(2, min(MOST_STEPS, int(PACKED_AT_BEST * most / a_step)))


def _left_out(history: History, count: int, with_weights: bool) -> str:
    whole = len(history.steps)
    said = [
        f"All {whole} recorded steps are here." if count == whole
        else f"Of {whole} recorded steps {count} are here, so that the page stays small."
    ]  # fmt: skip
    if not with_weights:
        said.append("The soft weights are left out for the same reason: the mask is shown without them.")
    if history.every > 1:
        said.append(f"The run recorded every {history.every}. step.")
    if history.block_stride > 1:
        said.append(f"It recorded the masks of every {history.block_stride}. decoder block.")
    return " ".join(said)
