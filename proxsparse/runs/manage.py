"""Keeping a folder of runs in order: rename, delete, how much room a run takes, and the command that makes it again."""

from __future__ import annotations

import re
import secrets
import shlex
import shutil

from proxsparse.config import LearnConfig, LearnJob, SweepPlan
from proxsparse.errors import ProxSparseError
from proxsparse.files import bytes_in
from proxsparse.runs.commands import in_words, require
from proxsparse.runs.directory import ACTIVE
from proxsparse.runs.readers.probe import Probe
from proxsparse.runs.run import Run
from proxsparse.settings import settings_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def rename(run: Run, name: str) -> Run:
    """Give the run's directory another name in the same folder.

    Raises ProxSparseError for a name that is taken or no plain name, a run that is worked on, or the recorded example.
    """
    require_unused(run, "rename")
    target = run.path.parent / name
    if not NAME.fullmatch(name):
        raise ProxSparseError(
            f"{name[:80]!r} is no name of a run: take letters, digits, '.', '_' and '-', a letter or digit first."
        )
    if target.exists():
        raise ProxSparseError(f"There is already something named {name!r} in {run.path.parent}: choose another name.")
    with in_words(run):
        run.path.rename(target)
    return Run(target)


def delete(run: Run) -> None:
    """Remove the run's directory with everything in it.

    Raises ProxSparseError for a run that is worked on, or the recorded example.
    """
    require_unused(run, "delete")
    # First out of sight, one folder deeper than runs are looked for: half a run is listed nowhere.
    hidden = run.path.with_name(f".deleted-{secrets.token_hex(4)}")
    try:
        hidden.mkdir()
        run.path.rename(hidden / run.id)
        shutil.rmtree(hidden)
    except OSError as error:
        raise ProxSparseError(
            f"Run {run.id} cannot be deleted ({error.strerror}): remove {hidden.name} by hand."
        ) from error


def require_unused(run: Run, action: str) -> None:
    """Raise ProxSparseError while a process writes into the run's directory: its worker, that of an export, or that
    which answers questions about its model."""
    require(run, action)
    exports = run.exports()
    if any(bench is not None and bench.is_alive() for bench in (export.bench() for export in exports)):
        raise ProxSparseError(f"An export of run {run.id} is being timed: wait until it is done.")
    if any(export.is_alive() or export.state()["status"] in ACTIVE for export in exports):
        raise ProxSparseError(f"An export of run {run.id} is being written: wait until it is done.")
    if run.kind == "learn" and Probe(run).is_there():
        raise ProxSparseError(f"The model of run {run.id} is in memory to be asked: end it on the Try it screen first.")


def size_on_disk(run: Run) -> int:
    """Bytes of all files of the run, each counted once under however many names. A checkpoint that a fork shares with its
    parent counts in both."""
    return bytes_in(run.path)


def command_line(run: Run) -> str:
    """The command that makes such a run again, ready for a shell; settings at their default are left out."""
    header, kind = run.header(), run.kind
    if kind == "learn":
        parent, job = header.get("parent"), run.job()
        if parent:
            values = _values(job) | {"evaluate_on": job.judged_on}
            changed = {name: value for name, value in values.items() if name in parent["changed"]}
            words = ["fork", str(run.path.parent / parent["run"]), "--step", parent["step"], *_flags(changed, {})]
            return _command([*words, "--out", "DIR"])
        usual = _values(LearnJob()) | {"evaluate_on": LearnJob(corpus=job.corpus).judged_on}
        usual |= {"launch": 1, "max_restarts": 0}
        beside = {"evaluate_on": job.judged_on, "track": job.track, "launch": job.launch}
        beside["max_restarts"] = job.max_restarts
        return _command(["learn", *_flags(_values(job) | beside, usual)])
    if kind == "compare":
        from proxsparse.config import CompareJob

        job = CompareJob(**header["compare"])
        values = header["compare"] | {"evaluate_on": job.judged_on}
        usual = CompareJob().to_dict() | {"evaluate_on": CompareJob(corpus=job.corpus).judged_on}
        flags = _flags({name: value for name, value in values.items() if name not in ("methods", "runs")}, usual)
        methods = ["--methods", *values["methods"]] if values["methods"] else []
        return _command(["compare", *methods, *(["--run", *values["runs"]] if values["runs"] else []), *flags])
    if kind == "sweep":
        plan, job, study = header["plan"], LearnJob.from_dict(header["sweep"]), header.get("study") or {}
        if study.get("joined"):
            where = {"join": study["storage"], "study": study["name"], "model": job.model, "corpus": job.corpus}
            return _command(["sweep", *_flags(where, {})])
        swept, usual = ("lambda1", "learning_rate"), _values(LearnJob())
        words = ["sweep", "--lambdas", *plan["lambdas"], "--learning-rates", *plan["learning_rates"]]
        words += _flags({name: plan.get(name) for name in settings_of(SweepPlan) if name != "windows"}, {})
        words += ["--set-apart", plan["windows"], *_flags({"storage": study.get("storage")}, {})]
        return _command([*words, *_flags({k: v for k, v in _values(job).items() if k not in swept}, usual)])
    raise ProxSparseError(f"Run {run.id} is of the kind {kind!r}, which no command makes by itself.")


def _values(job: LearnJob) -> dict:
    names = (*settings_of(LearnJob), *settings_of(LearnConfig))
    return {name: getattr(job if hasattr(job, name) else job.learn, name) for name in names}


def _flags(values: dict, usual: dict) -> list:
    """`--name value` of each setting that is not at its usual value."""
    words: list = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if (
            value == usual.get(name, ...)
            or value is None
            or (isinstance(value, list | tuple) and list(value) == list(usual.get(name, ())))
        ):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple):
            words += [f"--{flag}", *value]
        else:
            words += [f"--{flag}", value]
    return words


def _command(words: list) -> str:
    return shlex.join(["proxsparse", *map(_written, words)])


def _written(word: object) -> str:
    """A number with as many digits as make it again, and no more: 1, not 1.0."""
    if isinstance(word, float):
        return f"{word:g}" if float(f"{word:g}") == word else repr(word)
    return str(word)
