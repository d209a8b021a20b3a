"""What a run remembers of its masks, read once for everybody who looks at it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from app.views.run import RunSnapshot
from proxsparse import ProxSparseError, Run
from proxsparse.runs.history.reader import History

KEPT = 48  # masks and tables that stay in memory; the largest mask of a 7B model has 45 MB


class MasksView:
    """The history of one run as it was at one moment; a newer one is another view.

    history: None where nothing was recorded, and `why` says so in a sentence.
    """

    def __init__(self, run: Run):
        self.run, self.history, self.why = run, None, ""
        try:
            self.history = run.history()
        except ProxSparseError as error:
            self.why = str(error)
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, Any] = OrderedDict()

    @property
    def steps(self) -> list[int]:
        """Steps at which masks are known, ascending."""
        return [] if self.history is None else self.history.steps

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose masks are known."""
        return () if self.history is None else self.history.layers

    def recorded_step(self, step: int) -> int:
        """The last step up to `step` at which masks are known."""
        return max((each for each in self.steps if each <= step), default=0)

    def mask(self, layer: str, step: int) -> np.ndarray:
        """Bool (rows, columns)."""
        return self._once(("mask", layer, step), lambda: self._read().mask(layer, step))

    def reference_mask(self, layer: str, name: str) -> np.ndarray:
        """The mask `start`, `magnitude` or `wanda`. Raises ProxSparseError where it is not known."""
        return self._once(("reference", layer, name), lambda: self._read().reference_mask(layer, name))

    def tile(self, layer: str) -> pd.DataFrame:
        """As `History.tile`."""
        return self._once(("tile", layer), lambda: self._read().tile(layer))

    def flips(self, layer: str) -> pd.DataFrame:
        """As `History.flips`."""
        return self._once(("flips", layer), lambda: self._read().flips(layer))

    def patterns(self, layer: str) -> pd.DataFrame:
        """As `History.patterns`."""
        return self._once(("patterns", layer), lambda: self._read().patterns(layer))

    def differing(self, name: str, step: int) -> pd.Series:
        """Of every prunable layer, the share of the kept weights that the reference drops; NaN where it is not known."""
        table = self._once(("agreement", name), lambda: self._read().agreement(name))
        return 1 - table.loc[self.recorded_step(step)]

    def differing_from(self, key: Hashable, others: Callable[[str], np.ndarray], step: int) -> pd.Series:
        """The same of any other mask; NaN where either mask is not known.

        key: names the other mask; others: gives it, layer by layer. All steps are computed at once, from one pass over the layers.
        """
        table = self._once(("with", key), lambda: self._agreement_with(others))
        return 1 - table.loc[self.recorded_step(step)]

    def _agreement_with(self, others: Callable[[str], np.ndarray]) -> pd.DataFrame:
        found = {}
        for layer in self.layers:
            try:
                found[layer] = self._read().agreement_with(layer, others(layer))
            except ProxSparseError:  # it has no mask of this layer
                found[layer] = np.full(len(self.steps), np.nan)
        return pd.DataFrame(found, index=self.steps)

    def composition(self, view: RunSnapshot, layer: str) -> pd.DataFrame:
        """How many nonzero soft weights the layer's groups have, over the steps; see `RunSnapshot.compositions`."""
        names = list(view.layers["name"])
        if layer not in names:  # layers.json is damaged
            return pd.DataFrame()
        return self._once(("composition", layer), lambda: view.compositions(names.index(layer)))

    def _read(self) -> History:
        if self.history is None:
            raise ProxSparseError(self.why)
        return self.history

    def _once(self, key: Hashable, read: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = read()
        with self._lock:
            self._known[key] = found
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found


_views: OrderedDict[Path, tuple[tuple, MasksView]] = OrderedDict()
_views_lock = threading.Lock()


def masks_of(run: Run) -> MasksView:
    """The run's masks as they are on disk now; read again only when more was recorded."""
    path = run.path.resolve()
    signature = _signature(path)
    with _views_lock:
        known = _views.get(path)
        if known is None or known[0] != signature:
            known = _views[path] = (signature, MasksView(run))
        _views.move_to_end(path)
        while len(_views) > 8:
            _views.popitem(last=False)
        return known[1]


def _signature(path: Path) -> tuple:
    """Changes whenever a step was recorded, or the run is another one."""
    try:
        status = (path / "history" / "frames.index").stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
