"""Commands that torchrun has started, once a process: `torchrun --nproc-per-node 8 -m proxsparse learn …`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from proxsparse.cli.follow import follow
from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.runs import Run
from proxsparse.runs.commands import forget_waiting
from proxsparse.runs.launch import set_launch


def are_several() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def require_fresh_store() -> None:
    """Raise ProxSparseError where torchrun would start processes on several machines again with a store that keeps the addresses of those
    that are gone (pytorch issue 135712): on one machine the number of the start tells them apart, but each machine counts for itself."""
    several = os.environ["LOCAL_WORLD_SIZE"] != os.environ["WORLD_SIZE"]
    may_start_again = int(os.environ["TORCHELASTIC_MAX_RESTARTS"]) > 0
    if several and may_start_again and os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True":
        raise ProxSparseError(
            "Processes on several machines that torchrun starts again find each other only with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in "
            "the environment of torchrun: set it on all machines, or leave --max-restarts out."
        )


def require_place(out: str | None) -> None:
    """Raise ProxSparseError where processes that are started again would not find their run."""
    if out is None and int(os.environ["TORCHELASTIC_MAX_RESTARTS"]):
        raise ProxSparseError(
            "torchrun may start these processes again, and then they look for their run: say with --out where it lies."
        )


def begun_or_made(job: LearnJob, path: str | Path) -> Run:
    """The run at `path`: that which the same command has begun, before torchrun or a queue of jobs started it again, or else a new one."""
    if (local_path(path) / "run.json").is_file():
        run = Run(path)
        if run.kind == "learn" and _asked(run.job()) == _asked(job):
            return run
    return Run.create(job, path)


def _asked(job: LearnJob) -> LearnJob:
    """What a job asks for, by however many processes it is done."""
    return replace(job, launch=1, max_restarts=0)


def work_as_rank(found: Callable[[], Run], prepare: Callable[[Run], object], as_json: bool) -> int:
    """Work on a run with the other processes; returns the exit code.

    found, prepare : what rank 0 does, which also says what came out: make or find the run; look whether it can be started
    """
    from proxsparse.runs.ranks.group import END, join, tell, together
    from proxsparse.runs.ranks.start import ended
    from proxsparse.runs.worker import work

    require_fresh_store()
    start = join()
    if int(os.environ["RANK"]) > 0:
        return _follow()
    run = found()
    code = ended(run) if start.again else None
    if code is None:
        prepare(run)
        if run.kind != "learn":
            raise ProxSparseError(
                f"Run {run.id} is of the kind {run.kind!r}, and torchrun's processes share one model that learns: resume it without "
                "torchrun, with --launch."
            )
        set_launch(run, int(os.environ["WORLD_SIZE"]))
        if not start.again:
            forget_waiting(run)
        tell("run", str(run.path.absolute()), run.header()["created"])
        together()
        code = work(run.path, start=start)
    if code == 0:
        tell(END)
    elif ended(run) is None:
        print("A process was lost: torchrun starts all of them again.", file=sys.stderr)
        return code
    return follow(run, None, as_json)


def _follow() -> int:
    """Do what rank 0 tells. What ends one ends all, and rank 0 says so; on other machines, where nobody sees that, one says it too."""
    from proxsparse.runs.ranks.following import follow
    from proxsparse.runs.ranks.group import together, told
    from proxsparse.runs.ranks.launched import another_was_lost

    try:
        name, about = told()
        if name == "run":
            path, created = about
            missing = f"there is no run at {path} here: give --out a folder that all machines share."
            together("" if _is_here(path, created) else missing)
            follow(Run(path))
        return 0
    except ProxSparseError:
        if os.environ["LOCAL_RANK"] == "0" and os.environ["GROUP_RANK"] != "0":
            raise
        return 2
    except RuntimeError as error:
        if not another_was_lost(error):
            raise
        return 2


def _is_here(path: str, created: str) -> bool:
    """Whether this machine sees the run that rank 0 sees, not another one of the same name."""
    return (Path(path) / "run.json").is_file() and Run(path).header()["created"] == created
