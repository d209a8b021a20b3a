"""Adding to a comparison that ended: further methods, runs, sparse checkpoints and texts, without repeating what it has."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable

from proxsparse.config import CompareJob, absolute
from proxsparse.errors import ProxSparseError
from proxsparse.files import write_json
from proxsparse.runs.commands import in_words, require
from proxsparse.runs.lock import held
from proxsparse.runs.readers.comparison import Comparison, check_masks, check_runs
from proxsparse.runs.run import Run

ADDED = ("methods", "runs", "masks", "evaluate_on")  # settings of a comparison that can be added to


def add_to_comparison(
    run: Run,
    methods: Iterable[str] = (),
    runs: Iterable[str] = (),
    masks: Iterable[str] = (),
    evaluate_on: Iterable[str] = (),
) -> CompareJob:
    """Let a comparison measure more; `run.start()` then does so, and all else that it has stays as it is.

    A method that gave no result is tried again when it is named again.

    Parameters
    ----------
    run : Run
        A comparison that is done, was stopped, or failed.
    methods, runs, masks, evaluate_on : iterable of str
        As in `CompareJob`: what it has already may be among them.

    Returns
    -------
    CompareJob
        What the comparison compares from now on.

    Raises
    ------
    ProxSparseError
        When nothing is new, or something new does not fit the comparison; nothing is changed then.
    """
    require(run, "add")
    comparison = Comparison(run)
    job, failed = comparison.job, comparison.failures()
    given = {"methods": tuple(methods), "runs": tuple(runs), "masks": tuple(masks)}
    evaluate_on = tuple(evaluate_on)
    if not any((*given.values(), evaluate_on)):
        raise ProxSparseError("Nothing was chosen: name a method, a run, masks or a text to add.")
    changes = {name: (*getattr(job, name), *values) for name, values in given.items()}
    texts = [text for text in map(absolute, evaluate_on) if text not in job.judged_on]
    if texts:
        changes["evaluate_on"] = (*job.judged_on, *texts)
    more = dataclasses.replace(job, **changes)
    again = [name for name in named(more, **given) if name in failed]
    if more == job and not again:
        raise ProxSparseError(
            f"Run {run.id} has all of that already: add a method, a run, masks or a text that it lacks."
        )
    check_runs(more, [path for path in more.runs if path not in job.runs])
    check_masks([path for path in more.masks if path not in job.masks])
    with in_words(run):
        try:
            with held(run.path / "lock", timeout=1):
                write_json(run.path / "run.json", run.header() | {"compare": more.to_dict()})
                for name in again:
                    shutil.rmtree(run.path / "results" / name)
                about = {"status": "stopped", "doing": "ready to measure what was added", "error": None}
                write_json(run.path / "state.json", run.state() | about)
        except BlockingIOError:
            raise ProxSparseError(f"Run {run.id} is being worked on: stop it first.") from None
    return more


def named(job: CompareJob, methods: Iterable[str], runs: Iterable[str], masks: Iterable[str]) -> list[str]:
    """The names that these have in the tables of a comparison."""
    directories = job.run_names() | job.mask_names()
    return [*methods, *(name for name, path in directories.items() if path in {*runs, *masks})]
