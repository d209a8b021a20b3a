"""Commands that torchrun has started, once a process: `torchrun --nproc-per-node 8 -m proxsparse learn …`."""

from __future__ import annotations

import os
from collections.abc import Callable

from proxsparse.cli.follow import follow
from proxsparse.errors import ProxSparseError
from proxsparse.runs import Run
from proxsparse.runs.launch import set_launch


def are_several() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def work_as_rank(made: Callable[[], Run], as_json: bool) -> int:
    """Work on a run with the other processes; rank 0 makes or finds it, and says what came out. Returns the exit code."""
    from proxsparse.runs.jobs.ranks import follow as follow_rank
    from proxsparse.runs.jobs.ranks import join, tell, told
    from proxsparse.runs.worker import work

    join()
    if int(os.environ["RANK"]) > 0:
        try:
            _, (path,) = told()
        except RuntimeError:  # rank 0 is gone, and has said why
            return 2
        try:
            follow_rank(Run(path))
        except ProxSparseError:  # what ends one ends all, and rank 0 says so
            return 2
        return 0
    run = made()
    if run.kind != "learn":
        raise ProxSparseError(
            f"Run {run.id} is of the kind {run.kind!r}, and torchrun's processes share one model that learns: resume it without torchrun, "
            "with --launch."
        )
    set_launch(run, int(os.environ["WORLD_SIZE"]))
    tell("run", str(run.path.resolve()))
    work(run.path)
    return follow(run, None, as_json)
