"""Sweeping λ1 and the learning rate, in a process of its own; see `proxsparse.runs.readers.sweep`."""

from __future__ import annotations

import dataclasses

from proxsparse.config import LearnConfig
from proxsparse.errors import DivergedError, ProxSparseError
from proxsparse.runs.jobs.base import Job
from proxsparse.runs.readers.sweep import Sweep
from proxsparse.runs.recorder import describe_device


class SweepJobWorker(Job):
    """Trial after trial; a sweep that was stopped goes on with the trial that was cut off."""

    def work(self) -> None:
        from proxsparse.layers import prunable_layers
        from proxsparse.models.load import load_model

        self.sweep = Sweep(self.run)
        base, plan = self.sweep.base, self.sweep.plan
        self.recorder.update(doing=f"loading {base.model}", step=0, steps=self.sweep.total())
        self.lm = load_model(base.model, base.device)
        self.recorder.update(doing=f"reading {base.corpus}", device=describe_device(self.lm.model.device))
        text = self.lm.windows(base.corpus, base.length, base.context, base.bos, self.progress)
        if len(text.calibration) < plan.windows + base.learn.batch:
            raise ProxSparseError(
                f"The calibration text has {len(text.calibration)} windows, too few to set {plan.windows} apart: give more "
                "text or set fewer apart."
            )
        self.describe(prunable_layers(self.lm.model, base.learn.m), text, self.lm.model)
        self.learn_from, self.judge_on = text.calibration[: -plan.windows], text.calibration[-plan.windows :]
        self.recorder.update(status="running")
        for rung in range(plan.rungs):
            for lambda1, learning_rate in self.sweep.settings(rung):
                self.take(rung, lambda1, learning_rate)
            if self.sweep.best() is None:
                raise ProxSparseError(
                    f"The loss of every setting ceased to be finite, the lowest learning rate being "
                    f"{min(plan.learning_rates):g}: give lower learning rates."
                )
        self.recorder.update(step=self.sweep.total())
        self.sweep.write_files()

    def take(self, rung: int, lambda1: float, learning_rate: float) -> None:
        trials = self.sweep.table()
        self.recorder.update(step=len(trials))
        known = trials[["rung", "lambda1", "learning_rate"]].itertuples(index=False)
        if (rung, lambda1, learning_rate) in set(map(tuple, known)):
            return
        steps = self.sweep.steps(rung)
        config = dataclasses.replace(self.sweep.base.learn, steps=steps, lambda1=lambda1, learning_rate=learning_rate)
        self.label = f"λ1 {lambda1:g}, learning rate {learning_rate:g}, {steps} steps"
        began = self.working_seconds
        found = self.perplexity_of(config)
        self.recorder.record(
            "trials",
            {
                "rung": rung, "steps": steps, "lambda1": lambda1, "learning_rate": learning_rate,
                "perplexity": found and found.value, "stderr": found and found.stderr,
                "seconds": self.working_seconds - began,
            },
        )  # fmt: skip

    def perplexity_of(self, config: LearnConfig):
        """Of the original weights under the masks that `config` learns; None when its loss is not finite."""
        from proxsparse.evaluation.perplexity import perplexity
        from proxsparse.learning.learner import MaskLearner

        try:
            with MaskLearner(self.lm.model, self.learn_from, config, progress=self.progress) as learner:
                while not learner.done:
                    self.progress(learner.step_index, config.steps, "step")
                    learner.step()
                with learner.projected():
                    return perplexity(self.lm.model, self.judge_on, precision=learner.precision, progress=self.progress)
        except DivergedError as error:
            self.recorder.event(
                "diverged", lambda1=config.lambda1, learning_rate=config.learning_rate, error=str(error)
            )
            return None
