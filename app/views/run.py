"""A run that learns, as a snapshot: read piece by piece under a lock, handed out whole and never changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from proxsparse.config import LearnJob
from proxsparse.figures import QUANTITIES, layer_values
from proxsparse.runs import Run
from proxsparse.runs.directory import ACTIVE
from proxsparse.runs.readers.judged import judged_table
from proxsparse.runs.readers.records import BINS, LineIndex, thinned, thinned_measurements
from proxsparse.runs.records import tail_of

SAMPLED = 64  # records of a long run that the ends of the colour scales are taken from
KEPT = 16  # runs whose views stay in memory


@dataclass(frozen=True)
class RunSnapshot:
    """A run at one moment. All tables have complete rows, and nothing in it changes.

    records: grows by one whenever a record grew; state: as `Run.state`; asked: the commands that its worker has not handled yet.
    steps, perplexity: tables; judged: as `judged_table`; events: rows, oldest first; last: the newest step's record; limits:
    {quantity: (low, high)} of the whole run; left_out: damaged lines of the records, which none of this has.
    """

    run: Run
    job: LearnJob
    created: str
    state: dict
    asked: tuple[str, ...]
    records: int
    layers: pd.DataFrame
    steps: pd.DataFrame
    perplexity: pd.DataFrame
    judged: pd.DataFrame
    events: tuple[dict, ...]
    last: dict | None
    limits: dict[str, tuple[float, float]]
    left_out: int
    _layer_records: LineIndex = field(repr=False)

    @property
    def is_active(self) -> bool:
        """Whether a worker is on it, or should be in a moment."""
        return self.state["status"] in ACTIVE

    @property
    def newest(self) -> int:
        """The last step that was taken."""
        return 0 if self.last is None else self.last["step"]

    @property
    def strength(self) -> float:
        """λ1 at the step that comes; before the learner has said it, that of the first step."""
        return self.state.get("lambda1", self.job.learn.lambda1 / self.job.learn.ramp)

    @property
    def weights(self) -> int:
        """How many prunable weights the model has."""
        return int((self.layers["rows"] * self.layers["columns"]).sum())

    def curves(self) -> pd.DataFrame:
        """The steps, thinned to what a chart can show."""
        return thinned(self.steps, "loss") if len(self.steps) else self.steps

    def measurements(self) -> pd.DataFrame:
        """The perplexities, those of the learned mask while it was learned thinned to what a chart can show."""
        return thinned_measurements(self.perplexity)

    @property
    def drawn(self) -> tuple:
        """What the charts show: equal for two snapshots whose charts would look the same. A curve of many steps changes by
        less than a pixel with each: it is drawn again after as many as lie in one of its bins."""
        every = max(1, len(self.steps) // BINS) if self.state["status"] == "running" else 1
        return (self.created, self.newest // every, len(self.perplexity), len(self.judged))

    def latest(self, mask: str, scope: str) -> dict | None:
        """The newest measurement of a mask."""
        if self.perplexity.empty:
            return None
        rows = self.perplexity[(self.perplexity["mask"] == mask) & (self.perplexity["scope"] == scope)]
        return None if rows.empty else {key: None if pd.isna(value) else value for key, value in rows.iloc[-1].items()}

    def judged_now(self) -> dict[str, dict[str, dict]]:
        """{further text: {mask: row of `judged`}} of the mask as it is now."""
        texts = dict(tuple(self.judged.groupby("text", sort=False)))
        found = {text: {row["mask"]: row for row in rows.to_dict("records")} for text, rows in texts.items()}
        return {text: masks for text, masks in found.items() if masks["learned"]["step"] == self.newest}

    def layer_record(self, step: int) -> dict | None:
        """The layers at the recorded step nearest to `step`, read from disk."""
        record = self._layer_records.nearest(step)
        return record if record and _is_of(record, self.layers) else None

    def compositions(self, layer: int) -> pd.DataFrame:
        """How many nonzero soft weights the groups of one layer have: step, nonzeros_k; of a long run at some hundred steps.

        layer: its row in `layers`.
        """
        index = self._layer_records
        count = len(index.steps)
        chosen = sorted({*range(0, count, max(1, count // SAMPLED)), *range(max(0, count - 1), count)})
        records = (record for record in map(index.record, chosen) if record and _is_of(record, self.layers))
        return pd.DataFrame(
            {"step": record["step"]} | {name: record[name][layer] for name in record if name.startswith("nonzeros_")}
            for record in records
        )


def _is_of(record: dict, layers: pd.DataFrame) -> bool:
    """Whether a record of the layers is of these: layers.json may be damaged, and is then empty."""
    return len(record["flips"]) == len(layers)


class RunView:
    """Keeps up with one run. Shared by everybody who looks at it; `snapshot` is cheap when nothing happened."""

    def __init__(self, path: Path):
        self.run = Run(path)
        self.created, self.job = self.run.header()["created"], self.run.job()
        self._lock = threading.Lock()
        self._tails = {name: tail_of(self.run.path, name) for name in ("steps", "perplexity", "judged", "events")}
        self._rows: dict[str, list[dict]] = {name: [] for name in self._tails}
        self._layer_records = LineIndex(self.run.path / "layers.jsonl")
        self._measured = 0  # lines of the layers' record whose values are within the limits
        self._limits: dict[str, tuple[float, float]] = {}
        self._snapshot: RunSnapshot | None = None

    def snapshot(self) -> RunSnapshot:
        """The run as it is now."""
        with self._lock:
            state, grew = self.run.state(), False
            asked = tuple(given["command"] for _, given in self.run.commands()) if state["status"] in ACTIVE else ()
            for name, tail in self._tails.items():
                new = tail.read()
                if tail.restarted:
                    self._rows[name].clear()
                self._rows[name].extend(new)
                grew |= bool(new) or tail.restarted
            layers = (
                self.run.layers() if self._snapshot is None or self._snapshot.layers.empty else self._snapshot.layers
            )
            if self._layer_records.refresh():
                self._measured, self._limits = 0, {}
            self._widen_limits(layers)
            last = self._snapshot
            if last is None or grew or (state, asked) != (last.state, last.asked) or len(layers) != len(last.layers):
                self._snapshot = self._made(state, asked, grew or last is None, layers)
            return self._snapshot

    def _made(self, state: dict, asked: tuple[str, ...], grew: bool, layers: pd.DataFrame) -> RunSnapshot:
        last, steps = self._snapshot, self._rows["steps"]
        tables = (
            (
                pd.DataFrame(steps), pd.DataFrame(self._rows["perplexity"]), judged_table(self._rows["judged"]),
                tuple(self._rows["events"]),
            )
            if grew
            else (last.steps, last.perplexity, last.judged, last.events)
        )  # fmt: skip
        return RunSnapshot(
            self.run, self.job, self.created, state, asked, (last.records if last else 0) + grew, layers, *tables,
            last=dict(steps[-1]) if steps else None, limits=dict(self._limits), left_out=self._left_out(),
            _layer_records=self._layer_records,
        )  # fmt: skip

    def _left_out(self) -> int:
        return sum(tail.left_out for tail in self._tails.values()) + self._layer_records.left_out

    def _widen_limits(self, layers: pd.DataFrame) -> None:
        """Take in the records that are new: all of them while a run grows, a sample of a long one at the first look."""
        count = len(self._layer_records.steps)
        if layers.empty or count == self._measured:
            return
        stride = max(1, (count - self._measured) // SAMPLED)
        for index in [*range(self._measured, count - 1, stride), count - 1]:
            record = self._layer_records.record(index)
            for quantity in QUANTITIES if record and _is_of(record, layers) else ():
                values = layer_values(layers, record, quantity).to_numpy()
                low, high = self._limits.get(quantity, (0.0, 0.0))
                self._limits[quantity] = (min(low, float(values.min())), max(high, float(values.max())))
        self._measured = count
        if "pattern share" in self._limits:
            self._limits["pattern share"] = (0.0, 1.0)


_views: OrderedDict[tuple[Path, str], RunView] = OrderedDict()
_views_lock = threading.Lock()


def snapshot_of(run: Run) -> RunSnapshot:
    """The run as it is now, through a view that all visitors share. A run that was deleted and made anew under the same
    name is another one: it has another creation time."""
    key = (run.path.resolve(), run.header()["created"])
    with _views_lock:
        view = _views.get(key) or RunView(key[0])
        _views[key] = view
        _views.move_to_end(key)
        while len(_views) > KEPT:
            _views.popitem(last=False)
    return view.snapshot()
