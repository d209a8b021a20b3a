"""The process that works on a run: `proxsparse worker RUN`. It handles the run's commands and writes its
records."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.runs.explain import explain
from proxsparse.runs.lock import held, inherited
from proxsparse.runs.queue import devices_of, places_of, turn
from proxsparse.runs.ranks.start import Start
from proxsparse.runs.recorder import Recorder, remove_temporaries
from proxsparse.runs.run import Run


def work(path: str | Path, lock: int | None = None, start: Start | None = None) -> int:
    """Work on the run at `path` until it is done, stopped or failed; returns the exit code.

    lock: the descriptor of the run's lock file, where whoever started this process took the lock for it.
    start: how all of them were started, where this is rank 0 of several processes, the others of which wait to be told.
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
            starts_again = start is not None and not start.is_last
            recorder.update(status="starting", doing="looking whose turn it is", starts_again=starts_again)
            machines = start.machines if start else None
            with turn(run, lambda ahead: _wait(run, recorder, ahead, machines), machines):
                recorder.update(status="starting", doing="importing torch")
                recorder.flush()
                return _jobs(start)[run.header()["kind"]](run, recorder)
        except Withdrawn:
            recorder.update(status="stopped", doing="withdrawn before its turn came")
            recorder.event("withdrawn")
            return 0
        except Exception as error:  # whatever it was, the reader of the run is told
            traceback.print_exc()
            from proxsparse.runs.ranks.launched import will_start_again

            if start is None or not will_start_again(run, start, error):
                tell_why(run, error)
            return 2


class Withdrawn(Exception):
    """The run was asked to stop while it waited for its turn."""


def _wait(run: Run, recorder: Recorder, ahead: list[str], machines: dict[str, int] | None) -> None:
    """Say whom the run waits for; raise Withdrawn where it was asked to stop."""
    for path, command in run.commands():
        if command["command"] == "stop":
            path.unlink()
            raise Withdrawn
    first, place = ahead[0] if ahead else "another run", len(ahead)
    names = places_of(run, machines) if machines and len(machines) > 1 else devices_of(run)
    recorder.update(status="waiting", doing=f"waits for {', '.join(names)}: {place} before it, first {first}")


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


def _jobs(start: Start | None) -> dict[str, Callable[[Run, Recorder], int]]:
    from proxsparse.runs.jobs.bench import bench_export
    from proxsparse.runs.jobs.compare import CompareJobWorker
    from proxsparse.runs.jobs.export import export_run
    from proxsparse.runs.jobs.learn import LearnJobWorker
    from proxsparse.runs.jobs.probe import ProbeWorker
    from proxsparse.runs.jobs.sweep import SweepJobWorker
    from proxsparse.runs.ranks.launched import lead, learn_launched

    _keep_what_was_imported()

    def learn(run: Run, recorder: Recorder) -> int:
        if run.job().launch > 1:
            return learn_launched(run, tell_why) if start is None else lead(run, recorder, start)
        return LearnJobWorker(run, recorder).run_to_the_end()

    workers = {"compare": CompareJobWorker, "sweep": SweepJobWorker, "probe": ProbeWorker}
    return {"learn": learn, "export": export_run, "bench": bench_export} | {
        kind: lambda run, recorder, worker=worker: worker(run, recorder).run_to_the_end()
        for kind, worker in workers.items()
    }


@cache
def _keep_what_was_imported() -> None:
    """Once a process: torch and transformers made half a million objects that stay, and no collection of garbage looks at them again."""
    gc.freeze()
