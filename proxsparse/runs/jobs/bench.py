"""Timing an export dense and sparse on this machine's GPU, in a process of its own; the result stays beside the export."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from proxsparse.errors import ProxSparseError
from proxsparse.files import write_json
from proxsparse.runs.commands import in_words, require
from proxsparse.runs.directory import ACTIVE
from proxsparse.runs.lock import held
from proxsparse.runs.run import Run

if TYPE_CHECKING:  # it imports torch
    from proxsparse.runs.recorder import Recorder


def start_bench(run: Run, method: str | None = None) -> Run:
    """Time the export of `run`, or of a method that it compares, in a worker process; an earlier result is replaced.

    One that is being timed is returned as it is. Raises ProxSparseError where there is no finished export.
    """
    require(run, "export")
    export = run.export(method)
    if export is None or export.state()["status"] != "done":
        raise ProxSparseError(f"Run {run.id} has no finished export to be timed: export it first.")
    with in_words(run):
        try:
            with held(run.path / "export.lock", timeout=1):
                earlier = export.bench()
                if earlier is not None and earlier.state()["status"] in ACTIVE:
                    return earlier
                shutil.rmtree(export.path / "bench", ignore_errors=True)
                content = {"model": str((export.path / "model").resolve())}
                bench = Run.create_kind("bench", content, export.path / "bench")
                bench.start()
                return bench
        except BlockingIOError:
            raise ProxSparseError(f"The export of run {run.id} is just being started: wait a moment.") from None


def bench_export(job: Run, recorder: Recorder) -> int:
    """The work of the timing's own process."""
    from proxsparse.export.benchmark import bench_model

    recorder.update(status="running", doing="loading the model")

    def tell(done: int, total: int, what: str) -> None:
        recorder.update(doing=f"{what} {done + 1}/{total}" if total > 1 else what)

    write_json(job.path / "report.json", bench_model(job.header()["model"], progress=tell))
    recorder.update(status="done", doing="done")
    return 0
