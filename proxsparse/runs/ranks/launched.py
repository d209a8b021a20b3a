"""Starting the processes that share a run, with torch's own launcher, and saying what became of them."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.runs.ranks.start import Start, ended, said_here
from proxsparse.runs.recorder import Recorder, remove_temporaries
from proxsparse.runs.run import Run


def learn_launched(run: Run, explain_to) -> int:
    """Work on a run with as many processes as its job says, and wait for them. After one was lost all are started again, and go on from the
    last checkpoint, as often as its job says.

    explain_to : callable
        (run, error): leaves a sentence about what ended rank 0 where readers of the run look.

    Raises
    ------
    ProxSparseError
        Where a process was lost, and they have been started again so often.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    job = run.job()
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=job.launch, run_id=run.id, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=job.max_restarts, start_method="spawn",
    )  # fmt: skip
    try:
        return elastic_launch(launch, work_as_rank)(str(run.path), explain_to)[0]
    except ChildFailedError as error:
        code = ended(run)
        if code is not None:  # rank 0 has said how
            return code
        raise ProxSparseError(
            lost(job.launch, {rank: failure.exitcode for rank, failure in error.failures.items()})
        ) from error


def lead(run: Run, recorder: Recorder, start: Start) -> int:
    """Work on a run as rank 0, which the others follow; they wait to be told more when this returns."""
    from proxsparse.runs.ranks.leading import LeadingJob

    if start.again:
        remove_temporaries(run.path)
        recorder.update(status="starting", doing="started again after a process was lost")
    return LeadingJob(run, recorder, start).run_to_the_end()


def lost(count: int, exit_codes: dict[int, int]) -> str:
    """The sentence about processes that ended before their work; exit_codes: of those that did, negative for a signal."""
    # By SIGTERM the launcher ends the others.
    first = {rank: code for rank, code in exit_codes.items() if code != -signal.SIGTERM}
    killed = {rank: code for rank, code in first.items() if code < 0}
    rank, code = min((killed or first or exit_codes).items())
    return (
        f"Process {rank} of {count} (from 0) {how_it_ended(code)}, and the others with it: see worker.log, and the memory of its device; "
        "resume goes on from the last checkpoint."
    )


def how_it_ended(code: int) -> str:
    """What an exit code says, negative for a signal."""
    return f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"


def work_as_rank(path: str, explain_to) -> int:
    """What each process does. Any exit code but 0 has the launcher start all of them again, so that in a run that has failed with a reason
    they then only return."""
    from proxsparse.runs.ranks.following import follow
    from proxsparse.runs.ranks.group import END, join, tell

    run = Run(Path(path))
    code = ended(run) if said_here()[1] else None
    if code is not None:
        return code
    start = join()
    if int(os.environ["RANK"]) > 0:
        try:
            follow(run)
        except ProxSparseError:
            traceback.print_exc()  # what ends one ends all, and rank 0 says so
        return 0
    try:
        code = lead(run, Recorder(run), start)
        tell(END)
        return code
    except Exception as error:
        traceback.print_exc()
        if not will_start_again(run, start, error) and not another_was_lost(error):
            explain_to(run, error)
        sys.exit(2)


def will_start_again(run: Run, start: Start, error: Exception) -> bool:
    """Whether the error is that another process was lost, and all are going to be started again, which the run's state then says."""
    if start.is_last or not another_was_lost(error):
        return False
    Recorder(run).update(doing="a process was lost: all are started again")
    return True


def another_was_lost(error: Exception) -> bool:
    """Whether an error is that of a process that waits for one that is gone: whoever started both knows which."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
