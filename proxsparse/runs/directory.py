"""A run is a directory. This is the reader's side of it.

run.json          format version, kind of job, configuration, parent, creation time
state.json        status, step, pid, what is being done, the last error      (written whole)
layers.json       the prunable layers, in the order of the columns below, and what was skipped, with the reason
steps.jsonl       one line a step                                            (append-only)
layers.jsonl      one line a step, each quantity a list over the layers      (append-only)
perplexity.jsonl  one line a measurement                                     (append-only)
events.jsonl      what happened: started, paused, lambda1 set, checkpoint …  (append-only)
commands/         one file a command, deleted once handled
checkpoints/      step-000040.safetensors, of several processes step-000040/: everything needed to go on exactly
masks/            step-000040.safetensors: packed masks
history/          every change of the masks, tracked tiles, summaries: see `proxsparse.runs.history`  (append-only)
export/           a run directory of its own (kind "export"); its model/ is the download, its bench/ what was timed of it
exports/          of a comparison: such a directory for each method that was exported
tracking/         what a tracker was told, if one was asked for (`--track`), and how far
probe/            a run directory of its own (kind "probe"): answers questions about the model, see readers/probe.py
worker.log        what the worker process printed
lock              held by the worker as long as it lives

A resumed run takes steps again: the append-only records are then cut back to the checkpoint, so that they tell one
history. A fork takes them over, the history of the masks up to its step.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.export.estimate import ITEM_BYTES, Extent
from proxsparse.files import check_version, free_bytes, local_path, read_json
from proxsparse.runs.checkpoints.places import checkpoints_in
from proxsparse.runs.lock import is_held
from proxsparse.runs.records import is_number, is_step, tail_of

VERSION = 1  # of run.json and of the records beside it
JOBS = ("job", "compare", "sweep")  # under which of these run.json holds what was asked for
ACTIVE = ("starting", "waiting", "running", "paused")
STATUSES = ("new", *ACTIVE, "stopped", "failed", "interrupted", "done")
# What else a state says.
NUMBERS = (
    "updated", "pid", "elapsed", "remaining", "steps", "lambda1", "growth_left", "delay", "peak_bytes",
)  # fmt: skip
TEXTS = ("doing", "error", "device", "phase")
_NUMBERED = re.compile(r"step-(\d{6,9})\.safetensors")
LEAST_BYTES = 1_000_000  # on a disk with less, a worker could not even say why it ended


class RunDirectory:
    """One run directory, read without disturbing its worker.

    Raises ProxSparseError for a directory that holds no run, or one that a newer version wrote.
    """

    def __init__(self, path: str | Path):
        self.path = local_path(path)
        if not (self.path / "run.json").is_file():
            raise ProxSparseError(f"There is no run at {self.path}: list the runs with `proxsparse runs`.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.state()['status']})"

    @property
    def id(self) -> str:
        """The directory's name."""
        return self.path.name

    def header(self) -> dict:
        """`run.json`: version, kind, created, job, parent."""
        header = read_json(self.path / "run.json")
        if not isinstance(header, dict) or not all(isinstance(header.get(name), str) for name in ("kind", "created")):
            raise ProxSparseError(f"run.json of run {self.id} is damaged: it does not say what the run is.")
        check_version(header.get("version", 0), VERSION, f"Run {self.id}")
        return migrated(header)

    @property
    def kind(self) -> str:
        """learn, export, bench, compare, sweep or probe."""
        return self.header()["kind"]

    def job(self) -> LearnJob:
        """What a run that learns was asked to do. Raises ProxSparseError for a run of another kind."""
        header = self.header()
        if "job" not in header:
            raise ProxSparseError(
                f"Run {self.id} learned no mask (it is of the kind {self.kind!r}): choose another run."
            )
        return LearnJob.from_dict(header["job"])

    def asked(self) -> dict | None:
        """What a run that learns, a comparison or a sweep was asked to do, as run.json holds it; None for other kinds."""
        header = self.header()
        return next((header[name] for name in JOBS if name in header), None)

    def state(self) -> dict:
        """`state.json`; a run whose worker ended without saying so has the status `interrupted`."""
        state = self._read_state()
        if state["status"] in ACTIVE and not self.is_alive():
            state = self._read_state()  # the worker may have ended properly between the two looks
            if state["status"] in ACTIVE:
                full = free_bytes(self.path) < LEAST_BYTES
                why = "; the disk is full: free some space, then resume it" if full else ""
                again = (
                    "; torchrun starts it again, unless torchrun has ended, too" if state.get("starts_again") else ""
                )
                state |= {"status": "interrupted", "doing": f"its worker process ended unexpectedly{again}{why}"}
        return state

    def _read_state(self) -> dict:
        """`state.json`; where it is damaged, what can be said without it: a run goes on from its checkpoint all the same."""
        try:
            state = read_json(self.path / "state.json")
        except ProxSparseError:
            state = None
        if isinstance(state, dict) and state.get("status") in STATUSES and is_step(state.get("step")):
            wrong = {name for name in NUMBERS if not is_number(state.get(name))}
            wrong |= {name for name in TEXTS if not isinstance(state.get(name), str | None)}
            return {"doing": ""} | {name: value for name, value in state.items() if name not in wrong}
        step = max(self.checkpoints(), default=0)
        return {
            "status": "interrupted",
            "step": step,
            "doing": "its state.json is damaged: resume it from its checkpoint",
        }

    def is_alive(self) -> bool:
        """Whether a worker process works on the run."""
        return is_held(self.path / "lock")

    def layers(self) -> pd.DataFrame:
        """The prunable layers: name, block, projection, rows, columns; in the order of the lists in `layers.jsonl`."""
        columns = ["name", "block", "projection", "rows", "columns"]
        layers = self._described("layers", list, [])
        whole = all(isinstance(layer, dict) and set(columns) <= layer.keys() for layer in layers)
        return pd.DataFrame(layers if whole else [], columns=columns)

    def skipped(self) -> dict[str, str]:
        """Linear maps that are left dense, with the reason."""
        return self._described("skipped", dict, {})

    def given(self) -> str:
        """What the model was as it came: `dense`, or that it was sparse already, with its pattern."""
        found = self._described("given", str, "dense")
        return found if found == "dense" else f"given model, {found}"

    def extent(self) -> Extent | None:
        """What a dense checkpoint of the model holds; None before it is loaded, and of runs of before it was written down."""
        found = self._described("extent", dict, {})
        counts = [found.get(name) for name in ("bytes", "outside")]
        whole = found.get("dtype") in ITEM_BYTES and all(type(count) is int and count >= 0 for count in counts)
        return Extent(found["dtype"], *counts) if whole else None

    def corpus(self) -> dict | None:
        """The text it works on: name, sha256, calibration_tokens, heldout_tokens; None before it is read."""
        return self._described("corpus", dict, None)

    def weights_sha256(self) -> str | None:
        """The fingerprint of the weights it began with; None before they are loaded, and of runs of before there was one."""
        return self._described("weights_sha256", str, None)

    def _described(self, name: str, kind: type, default):
        """An entry of `layers.json`; the default where it says nothing, or is damaged: the worker writes it anew."""
        try:
            content = read_json(self.path / "layers.json", default={})
        except ProxSparseError:
            return default
        found = content.get(name, default) if isinstance(content, dict) else default
        return found if isinstance(found, kind) else default

    def table(self, name: str) -> pd.DataFrame:
        """One of the records as a table: `steps`, `layers` (lists), `perplexity`, `judged` (losses of windows, which
        `judged_table` sums up) or `events`."""
        return pd.DataFrame(tail_of(self.path, name).read())

    def checkpoints(self) -> dict[int, Path]:
        """Steps at which the run can be resumed or forked, oldest first."""
        return checkpoints_in(self.path / "checkpoints")

    def masks(self) -> dict[int, Path]:
        """Steps whose projected masks are on disk, oldest first."""
        return _numbered(self.path / "masks")


def launched(header: dict) -> dict | None:
    """The part of run.json that says, as `launch`, how many processes work on a run; None for kinds on which always one does."""
    return next((header[name] for name in ("job", "compare", "plan") if name in header), None)


def migrated(header: dict) -> dict:
    """`run.json` of an earlier format as version 1 would have written it.

    Version 0 had no number. Its oldest runs did not name where the loss is taken, nor a ramp: they took the loss at the
    soft weights, with a constant strength. Of a fork's changes only the strength was written down.
    """
    for name in JOBS:  # of before there was a choice
        job = header.get(name)
        if isinstance(job, dict):
            header = header | {name: {"bos": "once"} | job}
            if isinstance(job.get("learn"), dict):
                header[name]["learn"] = {"distill": 0.0} | job["learn"]
    if header.get("version", 0) >= 1:
        return header
    header = header | {"version": 1}
    for name in ("job", "sweep"):
        if isinstance(header.get(name), dict) and "learn" in header[name]:
            header[name] = header[name] | {"learn": {"loss_at": "soft", "ramp": 1.0} | header[name]["learn"]}
    if header["kind"] == "export":
        header.setdefault("format", "dense")  # the only one there was
    parent = header.get("parent")
    if parent and "changed" not in parent:
        changed = [] if parent.get("lambda1") is None else ["lambda1"]
        header["parent"] = {"run": parent["run"], "step": parent["step"], "changed": changed}
    return header


def numbered_file(directory: Path, step: int) -> Path:
    """Where the masks of a step lie, or the checkpoint of one process."""
    return directory / f"step-{step:06d}.safetensors"


def _numbered(directory: Path) -> dict[int, Path]:
    found = {path: _NUMBERED.fullmatch(path.name) for path in sorted(directory.glob("step-*.safetensors"))}
    return {int(match[1]): path for path, match in found.items() if match and path.is_file()}
