"""The job of a run that learns: load the model, measure it, take the steps, write checkpoints, measure again."""

from __future__ import annotations

import itertools
import math
import time
from contextlib import AbstractContextManager
from functools import partial

from proxsparse.errors import ProxSparseError
from proxsparse.learning.ramp import left_of
from proxsparse.memory import peak_bytes
from proxsparse.runs.commands import checked_delay
from proxsparse.runs.disk import room_left
from proxsparse.runs.jobs.base import Job, windows_of
from proxsparse.runs.recorder import CHECKPOINTS_KEPT, Recorder, describe_device
from proxsparse.runs.run import Run
from proxsparse.runs.tracking import Tracking

WITH_MOMENTS = 3  # numbers that a checkpoint holds for each weight that is learned


class LearnJobWorker(Job):
    """Learns a mask step by step, and handles the run's commands between two half steps."""

    def __init__(self, run: Run, recorder: Recorder):
        super().__init__(run, recorder)
        self.job, self.learner = run.job(), None
        self.tracking = Tracking(run, recorder)
        self.allowed = None  # the one half or step that may be taken although the run is paused
        self.delay = recorder.state.get("delay", 0.0)  # slow motion: seconds between two halves
        self.half_ended = -math.inf

    def run_to_the_end(self) -> int:
        with self.tracking:  # which is told of the last step, too, that a run takes when it is stopped
            return super().run_to_the_end()

    def work(self) -> None:
        self.load()
        self.recorder.update(status="running", doing="measuring where it starts")
        self.tracking.open()
        self.learn()
        self.finish()

    # From start to end

    def load(self) -> None:
        self.recorder.update(doing=f"loading {self.job.model}")
        from proxsparse.layers import prunable_layers
        from proxsparse.layers.stored import device_of

        lm = self.load_model()
        self.recorder.update(doing=f"reading {self.job.corpus}", device=describe_device(device_of(lm.model)))
        text = windows_of(lm, self.job, self.progress)
        self.heldout = text.heldout_windows(self.job.windows)
        self.live = self.heldout[: self.job.live_windows]
        self.judged_on = self.further_texts(lm, text)
        layers = prunable_layers(lm.model, self.job.learn.m)
        self.describe(layers, text, lm.model)
        self.model = lm.model
        checkpoint = self.load_checkpoint()
        self.learner = self.make_learner(text.calibration, layers, checkpoint)
        if checkpoint:
            self._take_on_forked_strength()
        else:
            self._require_disk()
        self.replay = self._strengths_set_since(self.learner.step_index)
        self.recorder.forget_after(self.learner.step_index)
        self.recorder.update(doing="preparing the history of the masks", step=self.learner.step_index)
        self.history = self.make_history()
        self._show_position()
        self.recorder.event("resumed" if checkpoint else "started")
        if len(text.calibration) < self.job.samples and not checkpoint:
            self.recorder.event("fewer windows than samples", windows=len(text.calibration), samples=self.job.samples)
        if self.learner.unseen and not checkpoint:
            self.recorder.event(
                "layers that saw no token", count=len(self.learner.unseen), first=self.learner.unseen[0]
            )

    def load_model(self):
        from proxsparse.models.load import load_model

        return load_model(self.job.model, self.job.device)

    def load_checkpoint(self):
        """The state to go on from; None at the first step."""
        return self.recorder.load_checkpoint()

    def make_learner(self, windows, layers, checkpoint):
        """The learner, at its first step or where a checkpoint stands."""
        from proxsparse.learning.learner import MaskLearner
        from proxsparse.methods import magnitude

        self.magnitude = magnitude(self.model, None, self.job.learn.n, self.job.learn.m, layers=layers).masks
        return MaskLearner(self.model, windows, self.job.learn, layers, self.progress, state=checkpoint)

    def make_history(self):
        """What records how the masks change, if anything does."""
        from proxsparse.runs.history.recorder import HistoryRecorder

        return HistoryRecorder.of(self.recorder, self.watched(), self.job)

    def watched(self):
        """What a history reads of the learner."""
        from proxsparse.runs.history.watched import WatchedLearner

        return WatchedLearner(self.learner, self.magnitude)

    def _require_disk(self) -> None:
        """Raise ProxSparseError where the disk, or an operator's limit, has no room for the checkpoints of the run."""
        weights = sum(self.learner.layers.shape_of(each).numel() for each in self.learner.originals.parameters.values())
        soft = weights * next(iter(self.learner.originals.values)).element_size()
        every = self.job.checkpoint_every or self.job.learn.steps
        at_once = min(
            CHECKPOINTS_KEPT + 1, -(-self.job.learn.steps // every)
        )  # the oldest goes when the newest is whole
        needed, left = at_once * WITH_MOMENTS * soft, room_left(self.run.path)
        if needed > left:
            raise ProxSparseError(
                f"Up to {at_once} checkpoints lie on disk at once, which take {needed / 1e9:.3g} GB of this model, and {left / 1e9:.3g} GB "
                "may still be taken: free some space, or choose a smaller model."
            )

    def _take_on_forked_strength(self) -> None:
        """A fork with a new λ1 ends at it; with a new ramp it goes on where that ramp would be at its step."""
        parent, learn = self.run.header().get("parent"), self.job.learn
        if not parent or parent["step"] != self.learner.step_index:
            return
        if "ramp" in parent["changed"]:
            self.learner.growth_left = left_of(learn.ramp, self.learner.step_index, learn.steps)
        if {"lambda1", "ramp", "relative"} & set(parent["changed"]):
            self.learner.lambda1 = learn.lambda1 / self.learner.growth_left

    def learn(self) -> None:
        self.steps_before, self.learning_since = self.learner.step_index, self.working_seconds
        while not self.learner.done:
            self._replay_strengths()
            self.handle_commands()
            if self.is_waiting:
                self.wait()
            elif self.is_resting:
                self.recorder.update(status="running", doing=f"slow motion: the {self.learner.phase} half comes next")
                self.idle()
            else:
                self.stop_at_disk_limit()
                self.take_half()
                self.half_ended = time.monotonic()

    def take_half(self) -> None:
        """The half whose turn it is; both where a whole step was asked for."""
        if self.learner.phase == "gradient":
            self.measure_if_due()
            self.recorder.update(status="paused" if self.paused else "running", doing="gradient half")
            self.learner.gradient_step()
            if self.history:
                self.history.after_gradient()
            self.allowed = None if self.allowed == "gradient" else self.allowed
            self._show_position()
        else:
            self.take_prox_half()
            self.allowed = None

    def take_prox_half(self) -> None:
        self.recorder.update(doing="prox half")
        report = self.learner.prox_step()
        self.recorder.record("layers", report.layer_record())
        self.recorder.record("steps", report.record() | {"time": time.time()})
        self.tracking.follow()
        if self.history:
            self.history.after_prox()
        self._show_position()
        every = self.job.checkpoint_every
        if self.learner.done or (every and self.learner.step_index % every == 0):
            self.checkpoint()

    def measure_if_due(self) -> None:
        """Held-out perplexity while the run goes on; at step 0 also of the dense model and the magnitude mask."""
        step, every = self.learner.step_index, self.job.evaluate_every
        if step == 0:
            self.measure(("dense", "magnitude", "learned"), "live", self.live)
        elif every and step % every == 0:
            self.measure(("learned",), "live", self.live)

    def finish(self) -> None:
        self.measure_if_due()
        self.measure(("dense", "magnitude", "learned"), "final", self.heldout)
        self.judge()

    def stop(self) -> None:
        if self.learner is not None:
            if self.learner.phase == "prox":  # a checkpoint lies between two steps
                self.take_prox_half()
            self.checkpoint()

    # Pieces

    def measure(self, masks: tuple[str, ...], scope: str, windows) -> None:
        from proxsparse.evaluation.perplexity import Perplexity

        step = self.learner.step_index
        table = self.run.table("perplexity")
        known = set() if table.empty else set(zip(table["step"], table["mask"], table["scope"], strict=True))
        for mask in masks:
            if (step, mask, scope) in known:
                continue

            def progress(done: int, total: int, _: str, mask: str = mask) -> None:
                self.progress(done, total, f"measuring perplexity, {mask}")

            began = time.perf_counter()
            losses = self.window_losses(mask, windows, progress)
            found = Perplexity.of(losses, windows.shape[1], time.perf_counter() - began)
            self.recorder.record(
                "perplexity",
                {
                    "step": step, "mask": mask, "scope": scope, "perplexity": found.value, "stderr": found.stderr,
                    "tokens": found.tokens, "windows": found.windows, "context": found.context, "seconds": found.seconds,
                },
            )  # fmt: skip
        self.tracking.follow()
        self.recorder.save_masks(step, self.learner.masks())

    def judge(self) -> None:
        """The losses of the dense and the masked model on every window of the further texts."""
        step, table = self.learner.step_index, self.run.table("judged")
        known = set() if table.empty else set(zip(table["step"], table["mask"], table["sha256"], strict=True))
        for text, mask in itertools.product(self.judged_on, ("dense", "learned")):
            if (step, mask, text.sha256) in known:
                continue
            progress = partial(self.judging_progress, f"{text.name}, {mask}")
            began = time.perf_counter()
            losses = self.window_losses(mask, text.windows, progress)
            self.recorder.record(
                "judged",
                {
                    "step": step, "mask": mask, "text": text.name, "sha256": text.sha256, "context": text.windows.shape[1],
                    "losses": losses.tolist(), "seconds": time.perf_counter() - began,
                },
            )  # fmt: skip

    def window_losses(self, mask: str, windows, progress):
        """The loss of every window under a mask, float64 (count,)."""
        from proxsparse.evaluation.perplexity import window_losses

        with under(self.learner, mask, self.magnitude):
            return window_losses(self.model, windows, precision=self.learner.precision, progress=progress)

    def checkpoint(self) -> None:
        self.recorder.update(doing="writing a checkpoint")
        self.recorder.save_checkpoint(*self.learner.state_dict())
        self.recorder.save_masks(self.learner.step_index, self.learner.masks())

    @property
    def pausing(self) -> str:
        return "paused" if self.learner is None else f"the {self.learner.phase} half comes next"

    @property
    def is_waiting(self) -> bool:
        return self.paused and self.allowed is None and self.learner is not None

    @property
    def is_resting(self) -> bool:
        """Whether slow motion lets the next half wait; one that was asked for by hand is taken at once."""
        return self.allowed is None and time.monotonic() < self.half_ended + self.delay

    def can_handle(self, command: str) -> bool:
        return self.learner is not None or command == "stop"  # while loading there is nothing to pause or to set

    def handle(self, command: str, **values) -> None:
        if command in ("step", "gradient", "prox"):
            if not self.paused:
                self.pause()
            if command not in ("step", self.learner.phase):
                self.recorder.event("ignored", command=command, phase=self.learner.phase)
            else:
                self.allowed = command
        elif command == "set":
            self._set_strength(values.get("lambda1"))
        elif command == "delay":
            self._set_delay(values.get("seconds"))
        else:
            super().handle(command, **values)

    def pause(self) -> None:
        self.allowed = None
        super().pause()

    def _set_strength(self, lambda1) -> None:
        try:
            self.learner.lambda1 = lambda1
        except ProxSparseError as error:
            self.recorder.event("ignored", command="set", error=str(error))
            return
        self.replay = []  # what was set at later steps, before they were lost, no longer counts
        self.recorder.forget_strengths_from(self.learner.step_index, self.learner.phase)
        self.recorder.event("lambda1", lambda1=self.learner.lambda1, phase=self.learner.phase)
        self._show_position()

    def _set_delay(self, seconds) -> None:
        try:
            self.delay = checked_delay(seconds)
        except ProxSparseError as error:
            self.recorder.event("ignored", command="delay", error=str(error))
            return
        self.recorder.event("delay", seconds=self.delay)
        self._show_position()

    def _strengths_set_since(self, step: int) -> list[dict]:
        events = self.run.table("events")
        if events.empty or "lambda1" not in events:
            return []
        chosen = events[(events["event"] == "lambda1") & (events["step"] >= step)]
        return chosen[["step", "phase", "lambda1"]].to_dict("records")

    def _replay_strengths(self) -> None:
        """Set λ1 again at the half steps at which it was set by hand: a resumed run repeats the steps after its checkpoint."""
        here = (self.learner.step_index, self.learner.phase)
        while self.replay and (self.replay[0]["step"], self.replay[0]["phase"]) <= here:
            self.learner.lambda1 = float(self.replay.pop(0)["lambda1"])

    def _show_position(self) -> None:
        done = self.learner.step_index - getattr(self, "steps_before", self.learner.step_index)
        remaining = None
        if done > 0:
            pace = (self.working_seconds - self.learning_since) / done
            remaining = (pace + 2 * self.delay) * (self.job.learn.steps - self.learner.step_index)
        self.recorder.update(
            step=self.learner.step_index, steps=self.job.learn.steps, phase=self.learner.phase,
            lambda1=self.learner.lambda1, growth_left=self.learner.growth_left, elapsed=self.total_elapsed, remaining=remaining,
            delay=self.delay, peak_bytes=max(peak_bytes(self.learner.device), self.recorder.state.get("peak_bytes") or 0),
        )  # fmt: skip
        self.recorder.flush()


def under(learner, mask: str, magnitude) -> AbstractContextManager:
    """The learner's model under a mask, or without one. mask: `dense`, `magnitude` or `learned`. magnitude: the masks of that name, of the
    rows that this rank holds."""
    if mask == "dense":
        return learner.dense()
    return learner.under(magnitude if mask == "magnitude" else learner.own_masks())
