"""The process that works on a run: `proxsparse worker RUN`. It handles the run's commands and writes its
records."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import temporaries_in
from proxsparse.runs.checkpoints.places import remove
from proxsparse.runs.explain import explain
from proxsparse.runs.lock import held, inherited
from proxsparse.runs.queue import devices_of, turn
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
    recorder.update(status="waiting", doing=f"waits for {', '.join(devices_of(run))}: {place} before it, first {first}")


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
