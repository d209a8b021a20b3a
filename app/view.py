"""What the screens show of a run, kept up to date by reading only what was added since the last look."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import pandas as pd

from proxsparse.figures import QUANTITIES, layer_values
from proxsparse.files import Tail
from proxsparse.runs import Run


class RunView:
    """One run as tables in memory. Shared by everybody who looks at the run; `refresh` is cheap when nothing
    happened."""

    def __init__(self, path: Path):
        self.run = Run(path)
        self.job = self.run.job()
        self.layers = self.run.layers()
        self.steps, self.layer_records, self.perplexity, self.events = [], [], [], []
        self.limits: dict[str, tuple[float, float]] = {}
        self._records = {
            name: (rows, Tail(self.run.path / f"{name}.jsonl"))
            for name, rows in (
                ("steps", self.steps), ("layers", self.layer_records),
                ("perplexity", self.perplexity), ("events", self.events),
            )
        }  # fmt: skip
        self.state: dict = {}
        self.version = 0
        self._lock = threading.Lock()

    def refresh(self) -> RunView:
        """Read what is new. `version` grows when anything did change."""
        with self._lock:
            state, changed = self.run.state(), False
            for name, (rows, tail) in self._records.items():
                new = tail.read()
                if tail.restarted:
                    rows.clear()
                    if name == "layers":
                        self.limits.clear()
                rows.extend(new)
                changed |= bool(new) or tail.restarted
                if name == "layers" and new:
                    self._widen_limits(new)
            if changed or state != self.state:
                self.state, self.version = state, self.version + 1
        return self

    def _widen_limits(self, records: list[dict]) -> None:
        if self.layers.empty:
            self.layers = self.run.layers()
        for record in records:
            for quantity in QUANTITIES:
                values = layer_values(self.layers, record, quantity).to_numpy()
                low, high = self.limits.get(quantity, (0.0, 0.0))
                self.limits[quantity] = (min(low, float(values.min())), max(high, float(values.max())))
        if "pattern share" in self.limits:
            self.limits["pattern share"] = (0.0, 1.0)

    @property
    def is_active(self) -> bool:
        return self.state.get("status") in ("starting", "running", "paused")

    @property
    def strength(self) -> float:
        """λ1 at the step that comes; before the learner has said it, that of the first step."""
        learn = self.job.learn
        return self.state.get("lambda1", learn.lambda1 / learn.ramp)

    @property
    def weights(self) -> int:
        return int((self.layers["rows"] * self.layers["columns"]).sum())

    def steps_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.steps)

    def perplexity_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.perplexity)

    def latest(self, mask: str, scope: str) -> dict | None:
        """The newest measurement of a mask."""
        return next((row for row in reversed(self.perplexity) if (row["mask"], row["scope"]) == (mask, scope)), None)

    def layer_record(self, step: int | None) -> dict | None:
        """The layers at a step; None: at the newest."""
        if not self.layer_records:
            return None
        if step is None:
            return self.layer_records[-1]
        return min(self.layer_records, key=lambda record: abs(record["step"] - step))


@lru_cache(maxsize=16)
def view_of(path: Path) -> RunView:
    """The shared view of the run at `path`."""
    return RunView(path)
