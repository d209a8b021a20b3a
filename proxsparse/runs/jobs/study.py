"""Optuna's study of a sweep: which settings are tried, by whom, and which of them end early.

**A trial is a series of whole runs, one a rung**, each with its own warm-up, ramp and decay, from the original weights; Optuna's
pruner is told the perplexity of each, at its number of steps, and says whether the next one is worth it. The usual way, one long run
that is measured on its way, would judge λ1 and learning rate wrongly: λ1 grows a thousandfold over a run (`LearnConfig.ramp`), so
that a quarter into the long schedule it is 1/178 of what is being tried, and the learning rate has just passed its peak. A short run
whose schedule is complete is a small copy of the long one. It costs a trial that is never pruned less than twice its last run.

**All trials are enqueued at once**, a grid's with their settings. Workers take what waits, which Optuna does atomically, so that
several never try the same; `GridSampler` would repeat some, and needs `Study.optimize`. A sampler is made anew for each trial, seeded
with its number: a sweep that was stopped goes on as if it had not been.

**A journal file, not SQLite, is the default storage.** Both survive SIGKILL. SQLite relies on locks that many network file systems
lack, and several writers make each other fail ("database is locked"); the journal is only appended to, under a lock that is a
symbolic link, which Optuna takes away when whoever held it has been dead for 30 seconds. What Optuna lacks is added here: half a
line, left by a full disk or a loss of power, is cut off before the next is written (see `cut_torn_line`).

**Whoever works on a trial is heard of** every 20 seconds, in a user attribute that it counts up. Heartbeats of Optuna's own are for
databases and `Study.optimize` only. A trial whose count another worker has seen unchanged for two minutes is taken over where
it stands: no clocks of two machines are compared. Should two take it over, or its worker come back, the same is computed twice.

Nothing is unpickled: journals and databases hold JSON. Optuna unpickles snapshots of a journal in Redis, and the state of CMA-ES;
neither is used here.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Collection
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from proxsparse.config import LearnJob, SweepPlan
from proxsparse.errors import ProxSparseError
from proxsparse.files import check_version, cut_torn_line
from proxsparse.runs.jobs.database import open_database
from proxsparse.runs.readers.sweep import Sweep

VERSION = 1
BEAT_SECONDS, GRACE_SECONDS = 20.0, 120.0
ASKED, PLANNED, WORKER, BEAT = "proxsparse", "planned", "worker", "beat"  # user attributes
NOTED = "completed_rung_"  # begins the names of what Optuna's pruners note of a trial

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Journal(JournalFileBackend):
    """Optuna's journal in a file, without what a crash has left half written."""

    def __init__(self, path: str):
        self.path, self.lock = path, JournalFileSymlinkLock(path)
        super().__init__(path, self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self.lock.acquire()
        try:
            with open(self.path, "ab+") as file:
                cut_torn_line(file)
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self.lock.release()


def open_storage(place: str, create: bool = False) -> BaseStorage:
    """The storage at a database's URL, or a journal's path. Raises ProxSparseError where there is none, or it cannot be read."""
    if "://" in place:
        return open_database(place)
    if not create and not os.path.isfile(place):
        raise ProxSparseError(f"There is no study at {place}: give the sweep's directory, or wait until it has begun.")
    try:
        return JournalStorage(Journal(place))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ProxSparseError(f"{place} is no journal of Optuna's that can be read: give that of a sweep.") from error


def asked_of(place: str, name: str | None) -> tuple[str, LearnJob, SweepPlan]:
    """The name of a study, and the job and plan that it was made with; name: None where it is the only one there. Raises
    ProxSparseError where there is none, or several."""
    storage = open_storage(place)
    names = sorted(each for each in optuna.get_all_study_names(storage) if name in (None, each))
    if not names:
        raise ProxSparseError(
            f"There is no sweep {'' if name is None else repr(name) + ' '}in that storage: start one first."
        )
    if len(names) > 1:
        raise ProxSparseError(f"That storage holds {len(names)} studies: give --study, one of {', '.join(names)}.")
    asked = optuna.load_study(study_name=names[0], storage=storage).user_attrs.get(ASKED)
    if not isinstance(asked, dict) or not all(isinstance(asked.get(each), dict) for each in ("job", "plan")):
        raise ProxSparseError(f"The study {names[0]!r} is no sweep of proxsparse: choose another one.")
    check_version(asked.get("version"), VERSION, f"The study {names[0]!r}")
    return names[0], LearnJob.from_dict(asked["job"]), SweepPlan(**asked["plan"])


def pruner_of(sweep: Sweep) -> optuna.pruners.BasePruner:
    """Optuna's pruner of the plan, with our rungs."""
    steps, plan = sweep.steps(), sweep.plan
    if plan.pruner == "none" or plan.rungs == 1:
        return optuna.pruners.NopPruner()
    if plan.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=steps[0], max_resource=steps[-1], reduction_factor=2)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=steps[0], reduction_factor=2)


def sampler_of(sweep: Sweep, draw: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of the plan for one value of one trial. A grid has nothing to choose: its values are enqueued."""
    seed = (sweep.base.learn.seed + draw) % 2**32
    kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    return kinds.get(sweep.plan.sampler, optuna.samplers.RandomSampler)(seed=seed)


class Study:
    """A sweep's study, as one of its workers sees it."""

    def __init__(self, sweep: Sweep):
        self.sweep, self.me = sweep, sweep.run.header()["created"]
        storage = open_storage(sweep.storage, create=not sweep.joined)
        known = sweep.name in optuna.get_all_study_names(storage)
        if sweep.joined and not known:
            raise ProxSparseError(f"There is no study {sweep.name!r} in {sweep.storage} any more: start a new sweep.")
        self.study = optuna.create_study(
            study_name=sweep.name, storage=storage, direction="minimize", load_if_exists=True, pruner=pruner_of(sweep)
        )
        self.heard: dict[int, tuple[tuple, float]] = {}
        if not sweep.joined:
            self._begin()

    def _begin(self) -> None:
        """Say what the study is of, and enqueue its trials, as far as that has not been done."""
        plan, job = self.sweep.plan.to_dict(), self.sweep.base.to_dict()
        del plan["launch"]  # of a machine, not of the study
        asked = {"version": VERSION, "creator": self.me, "job": job, "plan": plan}
        known = self.study.user_attrs.get(ASKED)
        if (known or {}).get("creator", self.me) != self.me or (known is None and self.trials()):
            raise ProxSparseError(
                f"There is a study {self.sweep.name!r} in that storage already: give --join to work on it, or another --study."
            )
        self.study.set_user_attr(ASKED, asked)
        for setting in self.sweep.settings()[len(self.trials()) :]:
            self.study.enqueue_trial(setting, user_attrs={PLANNED: True})

    def require_same(self, **fingerprints: str) -> None:
        """Raise ProxSparseError where another worker has other weights, or another text: their perplexities could not be compared."""
        known = self.study.user_attrs
        for name, fingerprint in fingerprints.items():
            if known.get(name, fingerprint) != fingerprint:
                raise ProxSparseError(
                    f"The {name} here is not the one that the sweep began with on another machine: give the same with --{name}."
                )
            if name not in known:
                self.study.set_user_attr(name, fingerprint)

    def trials(self) -> list[FrozenTrial]:
        """The plan's trials. Where a worker asked for one that another had just taken, Optuna made one more: it does not count."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if PLANNED in trial.user_attrs]

    def finished(self) -> int:
        """How many trials have ended."""
        return sum(trial.state.is_finished() for trial in self.trials())

    def next(self, in_hand: Collection[int] = ()) -> Trial | None:
        """A trial to work on: one that was cut off, else one that waits. None where there is none; others may be working. in_hand: the
        trials on which this worker works already."""
        running = [
            trial for trial in self.trials() if trial.state == TrialState.RUNNING and trial.number not in in_hand
        ]
        for trial in running:
            if trial.user_attrs.get(WORKER) in (self.me, "") or self._is_dead(trial):
                return self._claimed(Trial(self.study, trial._trial_id))
        if any(trial.state == TrialState.WAITING for trial in self.trials()):
            trial = self.study.ask()
            if PLANNED in trial.user_attrs:
                return self._claimed(trial)
            self.study.tell(trial, state=TrialState.FAIL)
        return None

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether nothing was heard of its worker for so long, as far as this one has listened."""
        beat, now = (trial.user_attrs.get(WORKER), trial.user_attrs.get(BEAT)), time.monotonic()
        earlier, since = self.heard.get(trial.number, (None, now))
        self.heard[trial.number] = (beat, since if earlier == beat else now)
        return earlier == beat and now - since > GRACE_SECONDS

    def _claimed(self, trial: Trial) -> Trial:
        trial.set_user_attr(WORKER, self.me)
        return trial

    def values_of(self, trial: Trial) -> tuple[float, float]:
        """(λ1, learning rate) of a trial, chosen now unless they are known."""
        plan, found = self.sweep.plan, []
        for index, (name, values) in enumerate((("lambda1", plan.lambdas), ("learning_rate", plan.learning_rates))):
            self.study.sampler = sampler_of(self.sweep, 2 * trial.number + index)
            low, high = min(values), max(values)
            found.append(trial.suggest_float(name, low, high, log=low > 0))  # a logarithmic range has no zero
        return found[0], found[1]

    def known(self, trial: Trial) -> dict[int, float]:
        """{steps: perplexity} of the rungs that a trial has reached."""
        return dict(self._frozen(trial).intermediate_values)

    def is_mine(self, trial: Trial) -> bool:
        """Whether nobody has taken the trial over meanwhile."""
        now = self._frozen(trial)
        return now.state == TrialState.RUNNING and now.user_attrs.get(WORKER) == self.me

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]

    def report(self, trial: Trial, steps: int, perplexity: float, about: dict) -> None:
        """Tell a rung's result. about: what the table says besides; it is there before the result is."""
        trial.set_user_attr(f"after {steps} steps", about)
        trial.report(perplexity, steps)

    def is_worse(self, trial: Trial, cut_off: bool = False) -> bool:
        """Whether the pruner ends a trial after what was reported last. cut_off: whether it was reported by somebody who then died.

        The pruner notes a perplexity before it answers, and asked again about what it has noted says no. After a trial that was cut off
        in between we look ourselves at what all have noted; of Hyperband, which compares within brackets, at all brackets.
        """
        now = self._frozen(trial)
        noted = [name for name in now.system_attrs if name.startswith(NOTED)]
        last, value = f"{NOTED}{len(noted) - 1}", now.intermediate_values[now.last_step]
        if not cut_off or now.system_attrs.get(last) != value:
            return trial.should_prune()
        rivals = sorted(each.system_attrs[last] for each in self.trials() if last in each.system_attrs)
        return value > rivals[max(1, len(rivals) // 2) - 1]

    def end(self, trial: Trial, perplexity: float | None) -> None:
        """Tell that a trial is complete, or with None that it was pruned."""
        if perplexity is None:
            self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            self.study.tell(trial, perplexity, skip_if_finished=True)

    def release(self, trial: Trial) -> None:
        """Let whoever comes next go on with a trial."""
        if self.is_mine(trial):
            trial.set_user_attr(WORKER, "")

    @contextmanager
    def heard_of(self, trial: Trial):
        """While open, others hear that somebody works on the trial."""
        ended = threading.Event()

        def beat() -> None:
            count = int(trial.user_attrs.get(BEAT, 0))
            while not ended.wait(BEAT_SECONDS):
                count += 1
                try:
                    trial.set_user_attr(BEAT, count)
                except UpdateFinishedTrialError:
                    return  # somebody else finished it, which the worker learns when it reports
                except (optuna.exceptions.StorageInternalError, OSError):
                    continue  # not to be reached just now; what the worker itself tells must not be lost, and would end it

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def rows(self) -> list[dict]:
        """The rows of `Sweep.table`."""
        rungs = {steps: rung for rung, steps in enumerate(self.sweep.steps())}
        return [
            {
                "trial": trial.number, "state": trial.state.name.lower(), "rung": rungs[steps], "steps": steps, **trial.params,
                "perplexity": perplexity, **trial.user_attrs.get(f"after {steps} steps", {}),
            }
            for trial in self.trials()
            for steps, perplexity in sorted(trial.intermediate_values.items())
            if steps in rungs
        ]  # fmt: skip
