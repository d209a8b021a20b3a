"""Recording what a run remembers of its masks, between two steps of its learner."""

from __future__ import annotations

import secrets
from dataclasses import replace

import numpy as np
import torch

from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.runs.disk import room_left
from proxsparse.runs.history import coding
from proxsparse.runs.history.frames import INDEX, Frames
from proxsparse.runs.history.layout import MASKS, Layout, RecordedLayer, recorded_blocks
from proxsparse.runs.history.reader import FOLDER
from proxsparse.runs.history.tiles import tile_of, unit_of
from proxsparse.runs.history.watched import WatchedLearner
from proxsparse.runs.recorder import Recorder

MB = 1e6
# Measured on the embedded model, and only used to foresee sizes: bytes of a coded mask over those of a packed one, and
# bytes of a step's flips over those of all packed masks.
CODED_START, CODED_MAGNITUDE, CODED_FLIPS = 0.66, 0.5, 0.01
LATELY = 8  # recorded steps whose size foretells that of the next


class HistoryRecorder:
    """Adds a row to the history after each step that is due, and keeps the history under its limit.

    A run that goes on from a checkpoint goes on with its history, cut back to the checkpoint's step, of the blocks and tiles
    with which it began. What a step costs is measured by `benchmarks/history.py`.

    Raises
    ------
    ProxSparseError
        Where the disk, or an operator's limit, leaves no room for the history, or its limit none for the start masks of a single block.
    """

    def __init__(self, recorder: Recorder, watched: WatchedLearner, job: LearnJob):
        self.recorder, self.watched, self.limit = recorder, watched, job.history * MB
        self.learner = watched.learner
        self.directory = recorder.run.path / FOLDER
        layout = Layout.load(self.directory)
        if layout is None or not (self.directory / INDEX).exists():
            (self.directory / INDEX).unlink(missing_ok=True)  # of masks that are gone
            layout = self._plan(job)
            self._require_disk(layout)
            self._write_masks(layout)
        self.layout = layout
        self.frames = Frames(self.directory, layout.parts)
        self.frames.cut(self.learner.step_index)
        self.every = int(self.frames.every[-1]) if len(self.frames) else 1
        self.full = False
        recorded = list(layout.recorded.values())
        last = int(self.frames.steps[-1]) if len(self.frames) else None
        counts = watched.begin(recorded, recorder.run.path, last)
        if last is None:
            none = np.zeros(0, np.int64)
            self._append(0, none, none, counts, watched.original_tiles(recorded)[None])
        self._before = self._middle = watched.tiles()

    @classmethod
    def of(cls, recorder: Recorder, watched: WatchedLearner, job: LearnJob) -> HistoryRecorder | None:
        """The recorder of a run; None where none is asked for, or groups are too large to be recorded."""
        if job.history == 0:
            return None
        if job.learn.m > coding.MOST_WEIGHTS:
            recorder.event("no history of masks", why=f"groups of more than {coding.MOST_WEIGHTS} weights")
            return None
        set_aside_if_damaged(recorder)
        return cls(recorder, watched, job)

    def after_gradient(self) -> None:
        """Call between the two halves of a step."""
        self._middle = self.watched.tiles()

    def after_prox(self) -> None:
        """Call after a step: records it, if it is due."""
        step, after = self.learner.step_index, self.watched.tiles()
        before, self._before = self._before, after
        if self.full or (step % self.every and not self.learner.done):
            return
        tile = torch.stack([self._middle, self._middle - before, after - self._middle])
        changed = self.watched.advance()
        self._append(step, changed.groups, changed.changes, changed.counts, tile)

    def _append(
        self, step: int, groups: np.ndarray, changes: np.ndarray, counts: np.ndarray, tile: torch.Tensor
    ) -> None:
        flips, tiles, done = [], [], 0
        values = tile.cpu().numpy()
        for layers in self.layout.blocks.values():
            begin = self.layout.first_groups[layers[0].name]
            end = begin + sum(layer.rows * layer.columns for layer in layers) // self.layout.m
            chosen = slice(*np.searchsorted(groups, [begin, end]))
            flips.append(coding.coded_flips(groups[chosen] - begin, changes[chosen]))
            size = sum(layer.weights_in_tile for layer in layers)
            tiles.append(coding.coded_tile(values[:, done : done + size]))
            done += size
        parts = [coding.coded_summary(counts), *flips, *tiles]
        used = self.frames.bytes + (self.directory / MASKS).stat().st_size + sum(map(len, parts))
        if used > self.limit and step > 0:
            self.full = True
            self.recorder.event("history of masks full", megabytes=round(self.limit / MB, 1))
            return
        before = self.every
        self.every = self._affordable_every(used, sum(map(len, parts)))
        self.frames.append(step, self.every, parts)
        if self.every != before:
            self.recorder.event("history of masks near its limit", every=self.every)

    def _affordable_every(self, used: int, size: int) -> int:
        """Every how many of the steps to come there is room for: fewer once half of the limit is used and the rest would not
        hold them all, each taking `size` bytes or what the last ones took."""
        left, every = self.learner.config.steps - self.learner.step_index, self.every
        each = max(size, self.frames.lately(LATELY))
        while used > self.limit / 2 and left / every * each > self.limit - used and every < left:
            every *= 2
        return every

    # Where it begins

    def _plan(self, job: LearnJob) -> Layout:
        """Every block if that leaves half of the limit for what changes; else as many as do."""
        layers = [
            RecordedLayer(name, *shape, tile_of(shape[1:], job.tile_rows, job.tile_columns, job.learn.m), unit=1.0)
            for name, shape in self.watched.shapes.items()
        ]
        values = self.watched.original_tiles(layers).split([layer.weights_in_tile for layer in layers])
        layers = [replace(layer, unit=unit_of(tile)) for layer, tile in zip(layers, values, strict=True)]
        wanda, stride = job.learn.metric == "activation", job.history_blocks
        blocks = len({layer.block for layer in layers})
        coded = CODED_START + (CODED_MAGNITUDE if wanda else 0)

        def start_bytes(stride: int) -> float:
            blocks = recorded_blocks(layers, stride).values()
            return coded * sum(packed_bytes(layer) for block in blocks for layer in block)

        while start_bytes(stride) > self.limit / 2 and stride < blocks:
            stride += 1
        if start_bytes(stride) > self.limit:
            raise ProxSparseError(
                f"history is {job.history:g} MB and the masks of one block alone take {start_bytes(stride) / MB:.3g} MB: give "
                "more, or 0 to record none."
            )
        if stride > job.history_blocks:
            self.recorder.event("history of masks of few blocks", block_stride=stride)
        return Layout(job.learn.n, job.learn.m, wanda, stride, tuple(layers))

    def _require_disk(self, layout: Layout) -> None:
        """Raise ProxSparseError where the disk has no room for what the history will probably take."""
        recorded = layout.recorded
        packed = sum(packed_bytes(layer) for layer in recorded.values())
        tile = 6 * sum(layer.weights_in_tile for layer in recorded.values())
        a_step = CODED_FLIPS * packed + tile + 4 * len(layout.layers) * (2 + len(layout.patterns()))
        coded = (CODED_START + CODED_MAGNITUDE) * packed
        needed = min(self.limit, coded + a_step * self.learner.config.steps)
        free = room_left(self.recorder.run.path)
        if free < needed:
            raise ProxSparseError(
                f"The history of the masks takes about {needed / MB:,.3g} MB and {free / MB:,.3g} MB are free at "
                f"{self.recorder.run.path}: free some space, or set history to fewer MB (0: none)."
            )

    def _write_masks(self, layout: Layout) -> None:
        tensors, names = {}, list(layout.recorded)
        starts = self.watched.packed("start", names)
        magnitudes = self.watched.packed("magnitude", names) if layout.wanda else {}
        for name, start in starts.items():
            stored = {"start": start}
            if layout.wanda:
                stored["magnitude"] = start ^ magnitudes[name]
            for kind, packed in stored.items():
                tensors[f"{kind}/{name}"] = np.frombuffer(coding.squeezed(packed.cpu().numpy().tobytes()), np.uint8)
        layout.save(self.directory, tensors)


def packed_bytes(layer: RecordedLayer) -> int:
    """Of a layer's mask: a bit a weight, rows of whole bytes."""
    return layer.rows * -(-layer.columns // 8)


def set_aside_if_damaged(recorder: Recorder) -> None:
    """A history that cannot be read, or whose last rows cannot, is renamed, and an event says so: a new one begins."""
    directory = recorder.run.path / FOLDER
    try:
        layout = Layout.load(directory)
        if layout is not None and (directory / INDEX).exists():
            frames = Frames(directory, layout.parts)
            for part in range(layout.parts):
                frames.read(part)
    except ProxSparseError as error:
        directory.rename(recorder.run.path / f"{FOLDER}.damaged-{secrets.token_hex(2)}")
        recorder.event("damaged history set aside", why=str(error))
