"""A run: read its directory, send it commands, start its worker, fork it; and finding runs."""

from __future__ import annotations

import re
import secrets
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.runs import commands, launch
from proxsparse.runs.directory import RunDirectory
from proxsparse.runs.history.reader import History


class Run(RunDirectory):
    """One run directory: everything there is to read (see `RunDirectory`), and what can be done with it.

    Every action first asks whether the run may be changed, is of the kind that can, and in a state that allows it; if not
    it raises ProxSparseError with one sentence and changes nothing.
    """

    @classmethod
    def create(cls, job: LearnJob, path: str | Path, owner: str | None = None) -> Run:
        """Make the directory of a new run that learns; the worker is started by `start`. owner: who alone may change it on a page
        with logins."""
        launch.create(path, "learn", {"job": job.to_dict(), "parent": None}, owner)
        return cls(path)

    @classmethod
    def create_kind(cls, kind: str, content: dict, path: str | Path, owner: str | None = None) -> Run:
        """Make the directory of a run of any kind; content: what its `run.json` holds besides; owner: see `create`."""
        launch.create(path, kind, content, owner)
        return cls(path)

    def send(self, command: str, **values) -> None:
        """Ask the worker for something: pause, resume, step, gradient, prox, stop, set (lambda1=…), or delay (seconds=…).

        Handled between two halves of a step, in the order sent. `step`, `gradient` and `prox` leave the run paused. `delay`
        is slow motion: from then on the worker rests so long between two half steps, whoever looks; 0 ends it.
        """
        with commands.in_words(self):
            commands.send(self, command, **values)

    def commands(self) -> list[tuple[Path, dict]]:
        """The commands that the worker has not handled yet, oldest first."""
        return commands.waiting(self)

    def start(self) -> subprocess.Popen:
        """Start a worker process for this run, or go on from its last checkpoint. It outlives its parent."""
        with commands.in_words(self):
            return launch.start(self)

    def fork(self, path: str | Path, step: int | None = None, owner: str | None = None, **changes) -> Run:
        """A new run that goes on from one of this run's checkpoints (default: the last), with changed settings.

        Parameters
        ----------
        changes : fields of `LearnConfig` and `LearnJob`. With a new lambda1 the fork ends at this strength, to which it
            grows by what is left of the ramp; with a new ramp it goes on where that ramp would be at its step. What a
            checkpoint belongs to (model, text, pattern, metric, …) cannot change and is refused by name.
        owner : see `create`.

        Steps already taken, and their records, are carried over.
        """
        with commands.in_words(self):
            launch.fork(self, path, step, owner, **changes)
            return Run(path)

    # What it remembers of its masks; many looks at one run are quicker on one `History`.

    def history(self) -> History:
        """What the run remembers of its masks. Raises ProxSparseError where nothing was recorded."""
        return History(self.path)

    def mask(self, layer: str, step: int) -> np.ndarray:
        """The mask of a layer after a step: bool (rows, columns), exact. See `History.mask`."""
        return self.history().mask(layer, step)

    def flips(self, layer: str) -> pd.DataFrame:
        """Every change of a group's pattern: step, row, group, before, after. See `History.flips`."""
        return self.history().flips(layer)

    def tile(self, layer: str) -> pd.DataFrame:
        """The tracked soft weights: step, half, row, column, weight, moved. See `History.tile`."""
        return self.history().tile(layer)

    def tile_position(self, layer: str) -> tuple[int, int, int, int]:
        """(row, column, rows, columns) of the tracked tile in the layer."""
        return self.history().tile_position(layer)

    def patterns(self, layer: str) -> pd.DataFrame:
        """Shares of the patterns and agreement with other masks at each recorded step. See `History.patterns`."""
        return self.history().patterns(layer)

    def reference_mask(self, layer: str, name: str) -> np.ndarray:
        """The mask `start`, `magnitude` or `wanda` of a layer: bool (rows, columns). See `History.reference_mask`."""
        return self.history().reference_mask(layer, name)

    def export(self, method: str | None = None) -> Run | None:
        """The run's export, or of a comparison that of a method; itself a run directory, whose `model/` is what can be downloaded."""
        return readable_run(self.export_path(method))

    def bench(self) -> Run | None:
        """Of an export: the timing of it, itself a run directory, whose report.json is what `bench_model` found."""
        return readable_run(self.path / "bench")

    def export_path(self, method: str | None = None) -> Path:
        """Where an export of the run, or of a method that it compares, lies. Raises ProxSparseError for what names no method."""
        if method is not None and not re.fullmatch(r"[^./\0][^/\0]*", method):
            raise ProxSparseError(f"There is no method {method[:80]!r} in run {self.id}: choose one that it compares.")
        return self.path / "export" if method is None else self.path / "exports" / method

    def exports(self) -> list[Run]:
        """All exports that are written or being written: its own, and those of methods."""
        paths = [self.export_path(), *sorted((self.path / "exports").glob("*"))]
        return [export for export in map(readable_run, paths) if export is not None]


def readable_run(path: Path) -> Run | None:
    """The run at `path`; None where there is none whose run.json can be read."""
    try:
        run = Run(path)
        run.header()
        return run
    except ProxSparseError:
        return None


def new_run_path(root: str | Path, label: str) -> Path:
    """A fresh directory name such as `runs/20260131-142530-embedded-1f3a`."""
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(label).name).strip("-.")[:40] or "run"
    return local_path(root) / f"{datetime.now():%Y%m%d-%H%M%S}-{label}-{secrets.token_hex(2)}"


def find_run(root: str | Path, id: str) -> Run:
    """The run of that name directly under `root`; a name that leads elsewhere is refused."""
    known = isinstance(id, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", id)
    if not known or not (Path(root) / id / "run.json").is_file():
        raise ProxSparseError(f"There is no run named {str(id)[:80]!r}: choose one from the list of runs.")
    return Run(Path(root) / id)


def list_runs(root: str | Path = "runs", kind: str | None = None) -> list[Run]:
    """Every run under `root` that can be read, newest first.

    Parameters
    ----------
    root : str or Path
        The folder of the runs. Names that begin with a dot are left out: they are being deleted.
    kind : str, optional
        learn, export, compare or sweep: only those.

    Returns
    -------
    list of Run
        Without those whose files are damaged or of a newer version; `look_at_runs` has them too.
    """
    return [run for run in look_at_runs(root)[0] if kind in (None, run.kind)]


def look_at_runs(root: str | Path = "runs") -> tuple[list[Run], dict[str, str]]:
    """The runs under `root` that can be read, newest first; and those that cannot, by name, with the reason in one
    sentence."""
    readable: list[tuple[str, str, Run]] = []
    unreadable: dict[str, str] = {}
    for path in sorted(local_path(root).glob("[!.]*/run.json")):
        try:
            run = Run(path.parent)
            run.state()
            readable.append((run.header()["created"], run.id, run))
        except ProxSparseError as error:
            unreadable[path.parent.name] = str(error)
    return [run for _, _, run in sorted(readable, key=lambda each: each[:2], reverse=True)], unreadable
