"""A run is a directory. This is the reader's side of it, and the way to send a run commands.

run.json          the job's kind, the configuration, parent, creation time
state.json        status, step, pid, what is being done, the last error      (written whole)
layers.json       the prunable layers, in the order of the columns below, and what was skipped, with the reason
steps.jsonl       one line a step                                            (append-only)
layers.jsonl      one line a step, each quantity a list over the layers      (append-only)
perplexity.jsonl  one line a measurement                                     (append-only)
events.jsonl      what happened: started, paused, lambda1 set, checkpoint …  (append-only)
commands/         one file a command, deleted once obeyed
checkpoints/      step-000040.safetensors: everything needed to go on exactly
masks/            step-000040.safetensors: packed masks
export/           a run directory of its own (kind "export"); its model/ is the download
worker.log        what the worker process printed
lock              held by the worker as long as it lives
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.files import Tail, read_json, write_json

ACTIVE = ("starting", "running", "paused")
START_SECONDS = 30
# A step allocates and frees gigabytes. glibc gives large blocks back to the system at once, and each step then pays
# again for every page; these settings let a worker keep what it has until it ends. Other C libraries ignore them.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_ARENA_MAX": "1"}
COMMANDS = ("pause", "resume", "step", "gradient", "prox", "set", "stop")


class Run:
    """One run directory. Reading never disturbs the worker; writing happens only through `send` and `start`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / "run.json").is_file():
            raise ProxSparseError(f"There is no run at {self.path}: list the runs with `proxsparse runs`.")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.state()['status']})"

    @property
    def id(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, job: LearnJob, path: str | Path, parent: dict | None = None) -> Run:
        """Make the directory of a new run; the worker is started by `start`."""
        return cls.create_kind("learn", {"job": job.to_dict(), "parent": parent}, path)

    @classmethod
    def create_kind(cls, kind: str, content: dict, path: str | Path) -> Run:
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ProxSparseError(f"{path} exists and is not empty: give the run another name.")
        try:
            (path / "commands").mkdir(parents=True)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(path / "state.json", {"status": "new", "step": 0, "doing": "waiting to be started"})
            write_json(path / "run.json", {"kind": kind, "created": created, **content})
        except OSError as error:
            raise ProxSparseError(f"The run cannot be written to {path}: {error.strerror}.") from error
        return cls(path)

    # Reading

    def header(self) -> dict:
        """`run.json`: kind, created, job, parent."""
        return read_json(self.path / "run.json")

    @property
    def kind(self) -> str:
        """learn, export, compare or sweep."""
        return self.header()["kind"]

    def job(self) -> LearnJob:
        if "job" not in self.header():
            raise ProxSparseError(
                f"Run {self.id} learned no mask (it is of the kind {self.kind!r}): choose another run."
            )
        return LearnJob.from_dict(self.header()["job"])

    def state(self) -> dict:
        """`state.json`; a run whose worker died without a word has the status `interrupted`."""
        state = read_json(self.path / "state.json")
        if state["status"] in ACTIVE and not self.is_alive():
            state = read_json(self.path / "state.json")  # the worker may have ended properly between the two looks
            patience = START_SECONDS if state["status"] == "starting" else 0  # a new worker needs a moment for the lock
            if state["status"] in ACTIVE and time.time() - state["updated"] > patience:
                state |= {"status": "interrupted", "doing": "its worker ended without a word"}
        return state

    def is_alive(self) -> bool:
        """Whether a worker holds the run's lock (the operating system lets go of it when a process dies)."""
        lock = FileLock(self.path / "lock")
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def layers(self) -> pd.DataFrame:
        """The prunable layers: name, block, projection, rows, columns; in the order of the lists in `layers.jsonl`."""
        content = read_json(self.path / "layers.json", default={"layers": []})
        return pd.DataFrame(content["layers"], columns=["name", "block", "projection", "rows", "columns"])

    def skipped(self) -> dict[str, str]:
        """Linear maps that are left dense, with the reason."""
        return read_json(self.path / "layers.json", default={}).get("skipped", {})

    def corpus(self) -> dict | None:
        """The text it works on: name, sha256, calibration_tokens, heldout_tokens; None before it is read."""
        return read_json(self.path / "layers.json", default={}).get("corpus")

    def table(self, name: str) -> pd.DataFrame:
        """One of the records as a table: `steps`, `layers` (lists), `perplexity` or `events`."""
        return pd.DataFrame(Tail(self.path / f"{name}.jsonl").read())

    def checkpoints(self) -> dict[int, Path]:
        """Steps at which the run can be resumed or forked, oldest first."""
        return _numbered(self.path / "checkpoints")

    def masks(self) -> dict[int, Path]:
        """Steps whose projected masks are on disk, oldest first."""
        return _numbered(self.path / "masks")

    def export(self) -> Run | None:
        """The run's export, itself a run directory; its `model/` is what can be downloaded."""
        path = self.path / "export"
        return Run(path) if (path / "run.json").is_file() else None

    # Commands

    def send(self, command: str, **values) -> None:
        """Ask the worker for something: pause, resume, step, gradient, prox, stop, or set (lambda1=…).

        Obeyed between two halves of a step, in the order sent. `step`, `gradient` and `prox` leave the run paused.
        """
        if command not in COMMANDS:
            raise ProxSparseError(f"A run does not know {command!r}: choose one of {', '.join(COMMANDS)}.")
        if self.state()["status"] not in ACTIVE:
            raise ProxSparseError(
                f"Run {self.id} is {self.state()['status']}: it takes no commands until it is resumed."
            )
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
        write_json(self.path / "commands" / name, {"command": command, **values})

    def commands(self) -> list[tuple[Path, dict]]:
        """What is waiting to be obeyed, oldest first."""
        return [(path, read_json(path)) for path in sorted((self.path / "commands").glob("[0-9]*.json"))]

    def start(self) -> subprocess.Popen:
        """Start a worker process for this run, or go on from its last checkpoint. It outlives its parent."""
        if self.is_alive():
            raise ProxSparseError(f"Run {self.id} is being worked on already.")
        for path, _ in self.commands():  # meant for a worker that is gone
            path.unlink()
        state = read_json(self.path / "state.json", default={})
        fresh = {"status": "starting", "doing": "starting its worker", "error": None, "updated": time.time()}
        write_json(self.path / "state.json", state | fresh)
        with open(self.path / "worker.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "proxsparse", "worker", str(self.path.resolve())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=KEEP_MEMORY | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip

    def fork(self, path: str | Path, step: int | None = None, **changes) -> Run:
        """A new run that goes on from one of this run's checkpoints (default: the last), with changed settings.

        `changes` are fields of `LearnConfig`. Steps already taken, and their records, are carried over.
        """
        pattern, checkpoints = self.job().learn.pattern, self.checkpoints()
        if not checkpoints:
            raise ProxSparseError(f"Run {self.id} has no checkpoint yet: pause it first, or wait for the next one.")
        step = max(checkpoints) if step is None else step
        if step not in checkpoints:
            raise ProxSparseError(f"Run {self.id} has no checkpoint of step {step}: choose {_choices(checkpoints)}.")
        values = self.header()["job"]
        values["learn"] |= changes
        job = LearnJob.from_dict(values)
        if job.learn.pattern != pattern:
            raise ProxSparseError(
                f"Run {self.id} learns {pattern} masks, and so do its forks: start a new run to learn {job.learn.pattern}."
            )
        child = Run.create(job, path, parent={"run": self.id, "step": step, "lambda1": changes.get("lambda1")})
        (child.path / "checkpoints").mkdir()
        target = child.path / "checkpoints" / checkpoints[step].name
        try:
            os.link(checkpoints[step], target)  # no second copy of gigabytes where the file system can share
        except OSError:
            shutil.copyfile(checkpoints[step], target)
        for name in ("layers.json", "steps.jsonl", "layers.jsonl", "perplexity.jsonl"):
            if (self.path / name).exists():
                shutil.copyfile(self.path / name, child.path / name)
        write_json(child.path / "state.json", {"status": "stopped", "step": step, "doing": "ready to go on"})
        return child


def _numbered(directory: Path) -> dict[int, Path]:
    found = {}
    for path in sorted(directory.glob("step-*.safetensors")):
        found[int(path.stem.removeprefix("step-"))] = path
    return found


def _choices(steps) -> str:
    return ", ".join(map(str, steps))


def numbered_file(directory: Path, step: int) -> Path:
    return directory / f"step-{step:06d}.safetensors"


def new_run_path(root: str | Path, label: str) -> Path:
    """A fresh directory name such as `runs/20260131-142530-embedded-1f3a`."""
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(label).name).strip("-.")[:40] or "run"
    return Path(root) / f"{datetime.now():%Y%m%d-%H%M%S}-{label}-{secrets.token_hex(2)}"


def find_run(root: str | Path, id: str) -> Run:
    """The run of that name directly under `root`; a name that leads elsewhere is refused."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", id) or not (Path(root) / id / "run.json").is_file():
        raise ProxSparseError(f"There is no run named {id[:80]!r}: choose one from the list of runs.")
    return Run(Path(root) / id)


def list_runs(root: str | Path = "runs", kind: str | None = None) -> list[Run]:
    """Every run under `root`, newest first. kind: only those of one kind."""
    paths = [path.parent for path in Path(root).glob("*/run.json")]
    runs = [run for run in map(Run, paths) if kind in (None, run.kind)]
    return sorted(runs, key=lambda run: (run.header()["created"], run.id), reverse=True)
