"""`proxsparse sweep`: beginning a sweep, or joining one that another worker began."""

from __future__ import annotations

import argparse
import dataclasses

from proxsparse.cli import commands
from proxsparse.cli.settings import job_from
from proxsparse.config import LearnConfig, LearnJob, SweepPlan, absolute
from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.runs import Run, Sweep, new_run_path
from proxsparse.runs.readers.sweep import check_plan, require_optuna
from proxsparse.settings import given_settings

PLACES = ("model", "corpus")
HERE = (*PLACES, "device", "launch")  # what may be another on every machine


def sweep(arguments: argparse.Namespace) -> int:
    path = local_path(arguments.out or new_run_path("runs", "sweep"))
    content = begun(arguments, path.name) if arguments.join is None else joined(arguments)
    return commands.start(Run.create_kind("sweep", content, path), arguments)


def begun(arguments: argparse.Namespace, name: str) -> dict:
    """What run.json of a new sweep holds."""
    given = dict(vars(arguments))
    values = given_settings(SweepPlan, given)
    values.pop("windows", None)  # the held-out ones, of the job
    values |= {"windows": arguments.set_apart} if "set_apart" in arguments else {}
    given.pop("launch", None)  # of the plan: one process works on a trial
    plan, job = SweepPlan(**values), job_from(argparse.Namespace(**given))
    check_plan(plan, job)
    study = {"name": arguments.study or name, "storage": arguments.storage and _place(arguments.storage)}
    return {"sweep": job.to_dict(), "plan": plan.to_dict(), "study": study}


def joined(arguments: argparse.Namespace) -> dict:
    """What run.json of a worker holds that joins a sweep: the sweep's job, with where its files lie here."""
    require_optuna()
    from proxsparse.runs.jobs.study import asked_of

    given = vars(arguments)
    own = {*given_settings(SweepPlan, given), *given_settings(LearnJob, given), *given_settings(LearnConfig, given)}
    own |= {name for name in ("storage", "set_apart") if given.get(name) is not None}
    own |= {"preset"} if arguments.preset != "Quick" else set()
    if own - {*HERE}:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(own - {*HERE}))
        raise ProxSparseError(f"{flags}: with --join these are the sweep's own; leave them out.")
    if (local_path(arguments.join) / "run.json").is_file():
        other = Sweep(arguments.join)
        place, name = other.storage, other.name
    else:
        place, name = _place(arguments.join), arguments.study
    name, job, plan = asked_of(place, name)
    here = {"device": given.get("device")} | {each: absolute(given[each]) for each in PLACES if each in given}
    job, plan = LearnJob.from_dict(job.to_dict() | here), dataclasses.replace(plan, launch=given.get("launch", 1))
    check_plan(plan, job)
    return {
        "sweep": job.to_dict(), "plan": plan.to_dict(), "study": {"name": name, "storage": place, "joined": True},
    }  # fmt: skip


def _place(storage: str) -> str:
    """A storage as run.json names it: it is found from everywhere."""
    if "://" not in storage:
        return str(local_path(storage).resolve())
    require_optuna()
    from proxsparse.runs.jobs.database import checked_url

    return checked_url(storage)
