"""The process that works on a run: `proxsparse worker RUN`. It handles the run's commands and writes its
records."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import free_bytes, is_full_disk, temporaries_in
from proxsparse.runs.checkpoints.places import remove
from proxsparse.runs.lock import held, inherited
from proxsparse.runs.queue import device_of, turn
from proxsparse.runs.recorder import Recorder
from proxsparse.runs.run import Run

OTHERS = ("export", "exports", "probe", "commands")  # folders of a run into which others than its worker write


def work(path: str | Path, lock: int | None = None) -> int:
    """Work on the run at `path` until it is done, stopped or failed; returns the exit code.

    lock: the descriptor of the run's lock file, where whoever started this process took the lock for it.
    """
    run = Run(path)
    with ExitStack() as stack:
        try:  # patiently: a reader may hold it for a moment, to see whether anybody does
            stack.enter_context(held(run.path / "lock", timeout=1) if lock is None else inherited(lock))
        except BlockingIOError:
            raise ProxSparseError(f"Run {run.id} is being worked on already.") from None
        try:
            remove_temporaries(run.path)
            recorder = Recorder(run)
            recorder.update(status="starting", doing="looking whose turn it is")
            with turn(run, lambda ahead: _wait(run, recorder, ahead)):
                recorder.update(status="starting", doing="importing torch")
                recorder.flush()
                return _jobs()[run.header()["kind"]](run, recorder)
        except Withdrawn:
            recorder.update(status="stopped", doing="withdrawn before its turn came")
            recorder.event("withdrawn")
            return 0
        except Exception as error:  # whatever it was, the reader of the run is told
            traceback.print_exc()
            tell_why(run, error)
            return 2


class Withdrawn(Exception):
    """The run was asked to stop while it waited for its turn."""


def _wait(run: Run, recorder: Recorder, ahead: list[str]) -> None:
    """Say whom the run waits for; raise Withdrawn where it was asked to stop."""
    for path, command in run.commands():
        if command["command"] == "stop":
            path.unlink()
            raise Withdrawn
    first, place = ahead[0] if ahead else "another run", len(ahead)
    recorder.update(status="waiting", doing=f"waits for {device_of(run)}: {place} before it, first {first}")


def remove_temporaries(directory: Path) -> None:
    """Remove what a worker that was killed had half written; those of an export or of questions, and commands, have others who
    may be writing them."""
    for path in temporaries_in(directory):
        if path.relative_to(directory).parts[0] not in OTHERS:
            remove(path)


def tell_why(run: Run, error: Exception) -> None:
    """Leave a sentence about the error where readers of the run look; where that cannot be, with whoever started the worker."""
    sentence = explain(error, run)
    try:
        if not (run.path / "run.json").exists():
            raise FileNotFoundError  # it was deleted: there is nobody to be told
        recorder = Recorder(run)
        recorder.update(status="failed", doing="failed", error=sentence, remaining=None)
        recorder.event("failed", error=sentence)
    except OSError as unwritten:
        raise ProxSparseError(sentence) from unwritten


def _jobs() -> dict[str, Callable[[Run, Recorder], int]]:
    from proxsparse.runs.jobs.bench import bench_export
    from proxsparse.runs.jobs.compare import CompareJobWorker
    from proxsparse.runs.jobs.export import export_run
    from proxsparse.runs.jobs.launched import lead, learn_launched
    from proxsparse.runs.jobs.learn import LearnJobWorker
    from proxsparse.runs.jobs.probe import ProbeWorker
    from proxsparse.runs.jobs.sweep import SweepJobWorker

    def learn(run: Run, recorder: Recorder) -> int:
        if run.job().launch > 1:
            return lead(run, recorder) if "TORCHELASTIC_RUN_ID" in os.environ else learn_launched(run, tell_why)
        return LearnJobWorker(run, recorder).run_to_the_end()

    workers = {"compare": CompareJobWorker, "sweep": SweepJobWorker, "probe": ProbeWorker}
    return {"learn": learn, "export": export_run, "bench": bench_export} | {
        kind: lambda run, recorder, worker=worker: worker(run, recorder).run_to_the_end()
        for kind, worker in workers.items()
    }


def explain(error: Exception, run: Run) -> str:
    """One sentence about what ended a run, with the way out."""
    import torch

    from proxsparse.runs.jobs.launched import another_was_lost

    if isinstance(error, ProxSparseError):
        return str(error)
    if another_was_lost(error):
        return "Another process of this run was lost: see what it said; resume goes on from the last checkpoint."
    out_of_memory = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(
        error
    )
    if out_of_memory and "job" in run.header():
        job = run.job()
        recompute = "" if job.learn.recompute or job.learn.memory == "lean" else "recompute, or with "
        return (
            f"Memory ran out with {job.learn.batch} windows of {job.length} tokens in a pass: fork the run with {recompute}a smaller batch "
            "and more accumulation, or choose shorter windows or a smaller model."
        )
    if is_full_disk(error):
        return (
            f"The disk is full ({free_bytes(run.path) / 1e6:.0f} MB left at {run.path}): free some space and resume; the last "
            "checkpoint is kept."
        )
    if isinstance(error, OSError) and error.filename is not None:
        name = Path(os.fsdecode(error.filename)).name
        return f"{name} of run {run.id} cannot be read or written ({error.strerror}): see to its folder, then resume."
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}; see worker.log."
