"""Reading what a run remembers of its masks: numpy arrays and pandas tables, any layer at any recorded step."""

from __future__ import annotations

import shutil
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open

from proxsparse.errors import ProxSparseError
from proxsparse.runs.history import coding
from proxsparse.runs.history.frames import Frames
from proxsparse.runs.history.layout import MASKS, Layout, RecordedLayer

FOLDER = "history"
REFERENCES = ("start", "magnitude", "wanda")


class History:
    """What a run remembers, as it is on disk now: open it again (`run.history()`, a few milliseconds) to see later steps.

    Masks are bool (rows, columns) = (out_features, in_features), True for kept, whatever way the model stores its weights.

    Raises
    ------
    ProxSparseError
        Where nothing was recorded, a layer was not, or the files are damaged.

    Examples
    --------
    >>> history = run.history()                                         # doctest: +SKIP
    >>> history.mask(history.layers[0], step=40).mean()                 # doctest: +SKIP
    0.5
    """

    def __init__(self, run_path: Path):
        self.path = Path(run_path) / FOLDER
        layout = Layout.load(self.path)
        frames = Frames(self.path, layout.parts) if layout else None
        if layout is None or frames is None or not len(frames):
            raise ProxSparseError(
                f"Run {Path(run_path).name} recorded no masks: it is older than the recording, learned nothing yet, or had "
                "history set to 0. Start a run with history above 0."
            )
        self._layout, self._frames = layout, frames

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose masks are known at every recorded step, in the model's order; of all others there are only
        the summaries (`patterns`)."""
        return tuple(self._layout.recorded)

    @property
    def steps(self) -> list[int]:
        """The steps at which masks are known, in ascending order, from 0."""
        return self._frames.steps.tolist()

    @property
    def every(self) -> int:
        """Every how many steps masks are recorded: 1, or more since the history came near its limit."""
        return int(self._frames.every[-1])

    @property
    def block_stride(self) -> int:
        """Every how many decoder blocks one is recorded, from the first."""
        return self._layout.block_stride

    @property
    def n(self) -> int:
        """Weights kept in a group."""
        return self._layout.n

    @property
    def m(self) -> int:
        """Weights in a group."""
        return self._layout.m

    @cached_property
    def pattern_names(self) -> dict[int, str]:
        """{code: as a column of `patterns` is called} of all n:m patterns; bit k of a code is set where the k-th weight
        of the group is kept. {3: '1100', …}; empty where there are more than 100."""
        return {code: coding.pattern_name(code, self.m) for code in self._layout.patterns()}

    def mask(self, layer: str, step: int) -> np.ndarray:
        """The mask after `step`, exactly; at a step that was not recorded, that of the last recorded one before.

        Returns
        -------
        bool (rows, columns)
        """
        about = self._recorded(layer)
        if step < 0:
            raise ProxSparseError(f"step is {step}: give 0, which is the start, or more.")
        mask = self._stored("start", about)
        changed = self._changes(about, step)
        groups, changes = _last_of_each_group(changed["group"].to_numpy(), changed["change"].to_numpy())
        grouped = mask.reshape(-1, self.m)  # a view
        grouped[groups] ^= coding.bits_of(changes, self.m)
        return mask

    def flips(self, layer: str) -> pd.DataFrame:
        """Every change of a group's pattern, in the order of steps.

        Returns
        -------
        step, row, group (its index in the row), before, after (codes: bit k set where the group's k-th weight is kept).
        Between two recorded steps a group changes at most once, from the first pattern to the last.
        """
        about = self._recorded(layer)
        step, group, before, after = self._by_group(about, self._start_codes(about))
        groups_a_row = about.columns // self.m
        table = pd.DataFrame(
            {
                "step": step, "row": group // groups_a_row, "group": group % groups_a_row, "before": before, "after": after,
            }
        )  # fmt: skip
        return table.sort_values(["step", "row", "group"], ignore_index=True)

    def tile(self, layer: str) -> pd.DataFrame:
        """The tracked tile: soft weights in the metric after every half step, to the precision of float16.

        Returns
        -------
        step, half ("gradient" or "prox"), row and column in the layer, weight, moved (how far this half moved it). Step 0 is the
        original weights, as a half "prox" that moved nothing. `moved` is recorded by itself: it is as precise where it is
        small beside the weight. Steps that were not recorded are left out.
        """
        about = self._recorded(layer)
        part, first = self._layout.tile_part(about)
        size = sum(other.weights_in_tile for other in self._layout.blocks[about.block])
        chosen = slice(first, first + about.weights_in_tile)
        steps: list[int] = []
        halves: list[int] = []
        weights: list[np.ndarray] = []
        moved: list[np.ndarray] = []
        for step, raw in zip(self.steps, self._frames.read(part), strict=True):
            kinds = coding.read_tile(raw, size)[:, chosen] * about.unit
            if len(kinds) == 1:
                taken = [(1, kinds[0], np.zeros_like(kinds[0]))]
            else:
                taken = [(0, kinds[0], kinds[1]), (1, kinds[0] + kinds[2], kinds[2])]
            for half, weight, by in taken:
                steps.append(step)
                halves.append(half)
                weights.append(weight)
                moved.append(by)
        row, column, rows, columns = about.tile
        each = about.weights_in_tile
        return pd.DataFrame(
            {
                "step": np.repeat(steps, each),
                "half": pd.Categorical.from_codes(np.repeat(halves, each), ["gradient", "prox"]),
                "row": np.tile(np.repeat(np.arange(row, row + rows), columns), len(steps)),
                "column": np.tile(np.arange(column, column + columns), rows * len(steps)),
                "weight": np.concatenate(weights),
                "moved": np.concatenate(moved),
            }
        )

    def tile_position(self, layer: str) -> tuple[int, int, int, int]:
        """(row, column, rows, columns) of the tracked tile in the layer."""
        return self._recorded(layer).tile

    def patterns(self, layer: str) -> pd.DataFrame:
        """The whole layer at each recorded step; every prunable layer has it, also one whose masks were not recorded.

        Returns
        -------
        step; one column a pattern (`pattern_names`: "1100", …): the share of groups that have it, left out where there are
        more than 100 patterns; agreement_start, agreement_magnitude, agreement_wanda: the share of the kept weights that
        this mask keeps too, NaN where it is not known. Two masks at random share n/m.
        """
        about = self._layout.by_name.get(layer)
        if about is None:
            raise ProxSparseError(f"There is no layer {layer!r}: choose one of run.layers()['name'].")
        counts = self._counts[:, self._layout.layers.index(about)]
        groups = about.rows * about.columns // self.m
        kept, shares = counts[:, :2] / (groups * self.n), counts[:, 2:] / groups
        columns = {"step": self._frames.steps}
        columns |= dict(zip(self.pattern_names.values(), shares.T, strict=True))
        columns |= {f"agreement_{name}": self._of(name, kept) for name in REFERENCES}
        return pd.DataFrame(columns)

    def agreement(self, name: str) -> pd.DataFrame:
        """Of all prunable layers at each recorded step, the share of the kept weights that the mask `start`, `magnitude` or
        `wanda` keeps too; NaN where it is not known.

        Returns
        -------
        One row a recorded step (the index), one column a layer, in the order of `run.layers()`.
        """
        self._check_reference(name)
        kept = np.array([layer.rows * layer.columns // self.m * self.n for layer in self._layout.layers])
        shares = self._of(name, self._counts[:, :, :2] / kept[:, None])
        steps = pd.Index(self._frames.steps, name="step")
        return pd.DataFrame(shares, index=steps, columns=[layer.name for layer in self._layout.layers])

    def agreement_with(self, layer: str, other: np.ndarray) -> np.ndarray:
        """Of a layer at each recorded step, the share of the kept weights that any other mask of it keeps too.

        Parameters
        ----------
        layer : str
            One of `layers`.
        other : bool (rows, columns)
            The other mask.

        Returns
        -------
        float (recorded steps,)
            From one pass over the changes: what each of them gains is added up from the start.

        Raises
        ------
        ProxSparseError
            Where the other mask has another shape.
        """
        about = self._recorded(layer)
        if other.shape != (about.rows, about.columns):
            raise ProxSparseError(
                f"A mask of {layer} is {about.rows} × {about.columns}, this one {other.shape}: choose another."
            )
        theirs, start = coding.codes_of(other, self.m), self._start_codes(about)
        step, group, *codes = self._by_group(about, start)
        before, after = (coding.BITS_SET[code & theirs[group]].astype(float) for code in codes)
        gained = np.bincount(np.searchsorted(self.steps, step), after - before, len(self.steps))
        return (coding.BITS_SET[start & theirs].sum() + gained.cumsum()) / (len(start) * self.n)

    @cached_property
    def _counts(self) -> np.ndarray:
        """int64 (recorded steps, layers, 2 + patterns): the summaries."""
        layers = len(self._layout.layers)
        return np.stack([coding.read_summary(raw, layers) for raw in self._frames.read(0)])

    def _of(self, name: str, kept: np.ndarray) -> np.ndarray:
        """The agreement with one mask, of those with start and magnitude along the last dimension."""
        if name == "wanda" and not self._layout.wanda:
            return np.full(kept.shape[:-1], np.nan)
        return kept[..., 1 if name == "magnitude" else 0]

    def reference_mask(self, layer: str, name: str) -> np.ndarray:
        """The mask `start`, `magnitude` or `wanda`: bool (rows, columns). Raises ProxSparseError where it is not known."""
        about = self._recorded(layer)
        self._check_reference(name)
        if name == "wanda" and not self._layout.wanda:
            raise ProxSparseError(
                "Wanda's mask is not known in this run, which compares magnitudes in the metric weight: choose start, which is "
                "the magnitude mask here."
            )
        start = self._stored("start", about)
        return start ^ self._stored("magnitude", about) if name == "magnitude" and self._layout.wanda else start

    def _check_reference(self, name: str) -> None:
        if name not in REFERENCES:
            raise ProxSparseError(f"There is no reference mask {name!r}: choose one of {', '.join(REFERENCES)}.")

    def _recorded(self, layer: str) -> RecordedLayer:
        try:
            return self._layout.recorded[layer]
        except KeyError:
            if layer not in self._layout.by_name:
                raise ProxSparseError(f"There is no layer {layer!r}: choose one of history.layers.") from None
            blocks = ", ".join(map(str, self._layout.blocks))
            raise ProxSparseError(
                f"The masks of {layer!r} were not recorded: this run recorded one block in {self.block_stride} ({blocks})."
            ) from None

    def _stored(self, kind: str, about: RecordedLayer) -> np.ndarray:
        with safe_open(self.path / MASKS, "np") as file:
            raw = zlib.decompress(file.get_tensor(f"{kind}/{about.name}").tobytes())
        return coding.unpacked(np.frombuffer(raw, np.uint8).reshape(about.rows, -1), about.columns)

    def _start_codes(self, about: RecordedLayer) -> np.ndarray:
        """The pattern of every group at the start, as its code."""
        return coding.codes_of(self._stored("start", about), self.m)

    def _by_group(self, about: RecordedLayer, start: np.ndarray) -> tuple[np.ndarray, ...]:
        """step, group (its index in the layer), code before and after, of every change: group by group, each in the order of steps."""
        changed = self._changes(about)
        order = np.argsort(changed["group"].to_numpy(), kind="stable")
        step, group, change = (changed[name].to_numpy()[order] for name in ("step", "group", "change"))
        after = start[group] ^ _running_xor(group, change)
        return step, group, after ^ change, after

    def _changes(self, about: RecordedLayer, last: int | None = None) -> pd.DataFrame:
        """step, group (its index in the layer), change (code before XOR code after), in the order of steps."""
        part, first = self._layout.flips_part(about)
        count = about.rows * about.columns // self.m
        none = np.zeros(0, np.int64)
        steps, groups, changes = [none], [none], [np.zeros(0, coding.code_type(self.m))]
        for step, raw in zip(self.steps, self._frames.read(part, last), strict=False):
            found, change = coding.read_flips(raw, self.m)
            low, high = np.searchsorted(found, [first, first + count])
            steps.append(np.full(high - low, step))
            groups.append(found[low:high] - first)
            changes.append(change[low:high])
        return pd.DataFrame(
            {"step": np.concatenate(steps), "group": np.concatenate(groups), "change": np.concatenate(changes)}
        )


def carry_over(parent: Path, child: Path, step: int) -> None:
    """Copy the history of one run directory to another, up to `step`; nothing where there is none."""
    layout = Layout.load(parent / FOLDER)
    if layout is not None:
        shutil.copytree(parent / FOLDER, child / FOLDER)
        Frames(child / FOLDER, layout.parts).cut(step)


def _running_xor(group: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The XOR of a group's changes up to and with each one; all changes of a group lie together, in order."""
    if not len(group):
        return change
    running = np.bitwise_xor.accumulate(change)
    first = np.flatnonzero(np.diff(group, prepend=-1))  # where each group begins
    before = np.concatenate([running[:1] ^ running[:1], running[first[1:] - 1]])
    return running ^ np.repeat(before, np.diff(first, append=len(group)))


def _last_of_each_group(group: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which groups changed, and the XOR of all their changes."""
    order = np.argsort(group, kind="stable")
    group, change = group[order], change[order]
    running = _running_xor(group, change)
    last = np.flatnonzero(np.diff(group, append=-1))
    return group[last], running[last]
