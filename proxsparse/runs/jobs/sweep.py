"""Sweeping λ1 and the learning rate, in a process of its own; see `proxsparse.runs.readers.sweep`, and for what a trial is
`proxsparse.runs.jobs.study`."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from proxsparse.config import LearnConfig
from proxsparse.errors import DivergedError, ProxSparseError
from proxsparse.files import write_json
from proxsparse.runs.jobs.base import Job, windows_of
from proxsparse.runs.jobs.side_by_side import Work, devices_of, processes
from proxsparse.runs.readers.judged import with_stderr
from proxsparse.runs.readers.sweep import TRIALS_FILE, Sweep, require_optuna
from proxsparse.runs.recorder import describe_device

if TYPE_CHECKING:
    from optuna.trial import Trial

LOOK_SECONDS = 2.0  # between two looks at what other workers do
DIGITS = 6  # after the point, of a window's loss: less than any error, and a database's text holds thousands of them


class SweepJobWorker(Job):
    """Trial after trial, or several at a time, until all have ended: those of other workers are waited for, and taken over where these
    die. A sweep that was stopped goes on with the trials that were cut off, at the rung where each was."""

    in_hand: dict[int, Trial]  # by number: those that are being tried

    @cached_property
    def sweep(self) -> Sweep:
        return Sweep(self.run)

    def work(self) -> None:
        self.in_hand = {}
        if self.sweep.is_former:
            raise ProxSparseError(
                f"Sweep {self.run.id} began with an earlier proxsparse, which halved by rounds and not by Optuna's rungs: read it, and "
                "start a new one."
            )
        require_optuna()
        from proxsparse.runs.jobs.database import OptunaError
        from proxsparse.runs.jobs.study import Study

        try:
            self.study = Study(self.sweep)
            self.recorder.update(step=self.study.finished(), steps=self.sweep.plan.count)
            devices_of(self, self.sweep.plan.launch)  # that there are so many
            self.load()
            self.study.require_same(model=self.run.weights_sha256(), corpus=self.run.corpus()["sha256"])
            self.recorder.update(status="running")
            self.try_all()
        except OptunaError as error:
            raise ProxSparseError(
                f"The study {self.sweep.name!r} cannot be read or written ({str(error).splitlines()[0]}): see to its storage, then "
                "resume."
            ) from error
        self.sweep.write_files()

    def load(self) -> None:
        """The model, and the text in two parts."""
        from proxsparse.layers import prunable_layers
        from proxsparse.models.load import load_model

        base, plan = self.sweep.base, self.sweep.plan
        self.recorder.update(doing=f"loading {base.model}")
        self.lm = load_model(base.model, self.own_device or base.device)
        self.recorder.update(doing=f"reading {base.corpus}", device=describe_device(self.lm.model.device))
        text = windows_of(self.lm, base, self.progress)
        if len(text.calibration) < plan.windows + base.learn.batch:
            raise ProxSparseError(
                f"The calibration text has {len(text.calibration)} windows, too few to set {plan.windows} apart: give more "
                "text or set fewer apart."
            )
        self.describe(prunable_layers(self.lm.model, base.learn.m), text, self.lm.model)
        self.learn_from, self.judge_on = text.calibration[: -plan.windows], text.calibration[-plan.windows :]

    def try_all(self) -> None:
        count = self.sweep.plan.count
        self.write_down()
        with processes(self, self.sweep.plan.launch) as do:
            while True:
                do(self.claimed())
                finished = self.study.finished()
                self.write_down()  # what others have found meanwhile, too: the last trial may be theirs
                if finished >= count:
                    break
                self.label = ""
                self.progress(finished, count, "other workers still try: waiting for trial")
                time.sleep(LOOK_SECONDS)
        if self.sweep.best() is None:
            raise ProxSparseError(
                f"The loss of every setting ceased to be finite, the lowest learning rate being "
                f"{min(self.sweep.plan.learning_rates):g}: give lower learning rates."
            )

    def claimed(self) -> Iterator[Work]:
        """The trials that there are to take, each claimed when it is asked for."""
        while (trial := self.study.next(self.in_hand)) is not None:
            self.in_hand[trial.number] = trial
            yield self.taken(trial)

    def taken(self, trial: Trial) -> Work:
        with self.study.heard_of(trial):
            yield from self.take(trial)
        del self.in_hand[trial.number]
        self.write_down()

    def take(self, trial: Trial) -> Work:
        """A run of each rung that it has not reached yet, as long as it is not pruned."""
        lambda1, learning_rate = self.study.values_of(trial)
        known, rungs = self.study.known(trial), self.sweep.steps()
        before = {*known}
        for steps, following in zip(rungs, [*rungs[1:], None], strict=True):
            if steps not in known:
                config = dataclasses.replace(
                    self.sweep.base.learn, steps=steps, lambda1=lambda1, learning_rate=learning_rate
                )
                losses, seconds = yield "tried", trial.number, config
                if not self.study.is_mine(trial):
                    self.recorder.event("trial taken over by another worker", trial=trial.number)
                    return
                known[steps], stderr = with_stderr(losses) if losses else (math.inf, None)
                about = {"stderr": stderr, "seconds": seconds}
                about |= {"losses": [round(loss, DIGITS) for loss in losses]} if losses else {}
                self.study.report(trial, steps, known[steps], about)
                self.write_down()
            if following is None and known[steps] < math.inf:
                self.study.end(trial, known[steps])
            elif known[steps] == math.inf or (following not in known and self.study.is_worse(trial, steps in before)):
                self.study.end(trial, None)
                return

    def tried(self, trial: int, config: LearnConfig) -> tuple[list[float] | None, float]:
        """What `losses_of` finds, and the seconds that it takes."""
        plan = self.sweep.plan
        what = f" ({trial + 1} of {plan.count}), λ1 {config.lambda1:g}, learning rate {config.learning_rate:g}"
        self.label = f"trial {trial}{what if plan.launch == 1 else ''}, {config.steps} steps"
        began = self.working_seconds
        return self.losses_of(config), self.working_seconds - began

    def losses_of(self, config: LearnConfig) -> list[float] | None:
        """Of every window set apart, under the masks that `config` learns; None when one is not finite."""
        from proxsparse.evaluation.perplexity import window_losses
        from proxsparse.learning.learner import MaskLearner

        try:
            with MaskLearner(self.lm.model, self.learn_from, config, progress=self.progress) as learner:
                while not learner.done:
                    self.progress(learner.step_index, config.steps, "step")
                    learner.step()
                with learner.projected():
                    return window_losses(
                        self.lm.model, self.judge_on, precision=learner.precision, progress=self.progress
                    ).tolist()
        except DivergedError as error:
            self.recorder.event(
                "diverged", lambda1=config.lambda1, learning_rate=config.learning_rate, error=str(error)
            )
            return None

    def write_down(self) -> None:
        """What all workers have found so far, for readers."""
        self.recorder.require_place()
        write_json(self.run.path / TRIALS_FILE, self.study.rows())
        self.recorder.update(step=self.study.finished(), steps=self.sweep.plan.count)

    def stop(self) -> None:
        for trial in self.in_hand.values():
            self.study.release(trial)
