"""Making run directories, and starting the process that works on one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from proxsparse.config import LearnConfig, LearnJob, check_launch
from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path, why_not_written, write_json
from proxsparse.runs.checkpoints.places import share
from proxsparse.runs.commands import forget_waiting, refuse_what_is_done, require
from proxsparse.runs.directory import VERSION, RunDirectory, launched
from proxsparse.runs.disk import require_room
from proxsparse.runs.history.reader import carry_over
from proxsparse.runs.lock import held
from proxsparse.runs.places import check_places
from proxsparse.settings import given_settings

# A step allocates and frees gigabytes. glibc gives large blocks back to the system at once, and each step then pays
# again for every page; these settings let a worker keep what it has until it ends. Other C libraries ignore them.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_ARENA_MAX": "1"}
# OpenMP's threads wait for each other by spinning; where anything else computes on the machine they then steal time from the
# one that is waited for, and two runs at once take fourteen times as long each (`benchmarks/together.py`).
GENTLE = KEEP_MEMORY | {"OMP_WAIT_POLICY": "PASSIVE"}
LOCK_SECONDS = 1.0  # that readers, who look whether a worker lives, may be waited for
# What a checkpoint belongs to, or what its records were measured with: a fork cannot change it.
FIXED = (
    "model", "corpus", "samples", "length", "context", "bos", "live_windows", "history_blocks", "tile_rows", "tile_columns", "n", "m",
    "metric", "metric_windows", "memory",
)  # fmt: skip
CARRIED_OVER = ("layers.json", "steps.jsonl", "layers.jsonl", "perplexity.jsonl")


def create(path: str | Path, kind: str, content: dict, owner: str | None = None) -> None:
    """Make the directory of a new run. Raises ProxSparseError when it is taken or cannot be written."""
    path = local_path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ProxSparseError(f"{path} exists and is not empty: give the run another name.")
    try:
        (path / "commands").mkdir(parents=True)
        whose = {} if owner is None else {"owner": owner}
        created = datetime.now(UTC).isoformat(timespec="microseconds")
        write_json(path / "state.json", {"status": "new", "step": 0, "doing": "waiting to be started"})
        write_json(path / "run.json", {"version": VERSION, "kind": kind, "created": created} | content | whose)
    except OSError as error:
        raise ProxSparseError(
            f"The run {path.name} cannot be written ({why_not_written(error)}): see to the rights of its folder, or give another one."
        ) from error


def check_alone(job: LearnJob) -> None:
    """Raise ProxSparseError for what takes several processes, where one is going to work on a job."""
    if job.launch == 1 and job.learn.offload:
        raise ProxSparseError(
            "offload is for several processes that share a model, and launch is 1: leave it out, or give --launch 2 or more."
        )


def start(run: RunDirectory) -> subprocess.Popen:
    """Start a worker process for `run`, or go on from its last checkpoint. It outlives its parent."""
    require(run, "start")
    if run.kind == "learn":
        check_alone(run.job())
    check_places(run)
    require_room(run.path)
    try:
        with held(run.path / "lock", LOCK_SECONDS) as lock:
            refuse_what_is_done(run)
            forget_waiting(run)
            fresh = {"status": "starting", "doing": "starting its worker", "error": None, "updated": time.time()}
            write_json(run.path / "state.json", run.state() | fresh)
            with open(run.path / "worker.log", "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "proxsparse", "worker", str(run.path.resolve()), "--lock", str(lock.fileno())],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock.fileno()],
                    env=GENTLE | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )  # fmt: skip
    except BlockingIOError:
        raise ProxSparseError(f"Run {run.id} is being worked on already.") from None
    threading.Thread(target=process.wait, daemon=True).start()  # else it stays a zombie of ours once it ended
    return process


def set_launch(run: RunDirectory, count: int | None = None, max_restarts: int | None = None) -> None:
    """Let so many processes work on a run from the next start on: share the model of one that learns; each with the whole model, measure
    methods, or try settings. max_restarts: how often those that share a model are started again after one was lost. None: as before.
    Raises ProxSparseError for a number that cannot be, and for another kind of run."""
    header = run.header()
    asked = launched(header)
    if asked is None:
        raise ProxSparseError(
            f"One process works on run {run.id}, which is of the kind {run.kind!r}: leave --launch out."
        )
    if max_restarts is not None and "job" not in header:
        raise ProxSparseError(
            f"In run {run.id}, of the kind {run.kind!r}, another process does again what a lost one was at: leave --max-restarts out."
        )
    if count is not None:
        asked["launch"] = count
        check_launch(count, (run.asked() or {}).get("device"))
    if "job" in header:
        _set_restarts(asked, max_restarts)
        LearnJob.from_dict(asked)  # checked
    write_json(run.path / "run.json", header)


def _set_restarts(job: dict, max_restarts: int | None) -> None:
    """Set how often the processes of a job are started again; None: as before, and a process that is alone never is."""
    if max_restarts is not None:
        job["max_restarts"] = max_restarts
    elif job.get("launch", 1) == 1:
        job["max_restarts"] = 0


def fork(run: RunDirectory, path: str | Path, step: int | None = None, owner: str | None = None, **changes) -> None:
    """Make at `path` a run that goes on from a checkpoint of `run`; see `Run.fork`."""
    require(run, "fork")
    checkpoints = run.checkpoints()
    if not checkpoints:
        raise ProxSparseError(f"Run {run.id} has no checkpoint yet: pause it first, or wait for the next one.")
    step = max(checkpoints) if step is None else step
    if step not in checkpoints:
        choices = ", ".join(map(str, checkpoints))
        raise ProxSparseError(f"Run {run.id} has no checkpoint of step {step}: choose {choices}.")
    job = changed_job(run, changes)
    if job.learn.steps < step:
        raise ProxSparseError(f"steps is {job.learn.steps} and the checkpoint is of step {step}: give {step} or more.")
    parent = {"run": run.id, "step": step, "changed": sorted(changes)}
    create(path, "learn", {"job": job.to_dict(), "parent": parent}, owner)
    child = RunDirectory(path)
    share(checkpoints[step], child.path / "checkpoints")
    for name in CARRIED_OVER:
        if (run.path / name).exists():
            shutil.copyfile(run.path / name, child.path / name)
    carry_over(run.path, child.path, step)
    write_json(child.path / "state.json", {"status": "stopped", "step": step, "doing": "ready to go on"})


def changed_job(run: RunDirectory, changes: dict) -> LearnJob:
    """The job of `run` with other settings. Raises ProxSparseError for one that a fork cannot change, by its name."""
    job = run.job()
    values = job.to_dict()
    unknown = changes.keys() - given_settings(LearnJob, changes).keys() - given_settings(LearnConfig, changes).keys()
    if unknown:
        raise ProxSparseError(f"There is no setting {min(unknown)!r}: choose fields of LearnJob or LearnConfig.")
    for name, value in changes.items():
        (values["learn"] if name in values["learn"] else values)[name] = value
    _set_restarts(values, changes.get("max_restarts"))
    changed = LearnJob.from_dict(values)
    before, after = (each.to_dict() | each.to_dict()["learn"] for each in (job, changed))
    for name in FIXED:
        if before[name] != after[name]:
            flag = name.replace("_", "-")
            raise ProxSparseError(
                f"{flag} is {before[name]!r} in run {run.id}, whose checkpoint and records depend on it, and cannot become "
                f"{after[name]!r} in a fork: start a new run."
            )
    return changed
