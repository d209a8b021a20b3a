"""Rank 0, which works on a run as one process would, and tells the others what to do as well."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.language_model import LanguageModel
from proxsparse.progress import Progress
from proxsparse.runs.checkpoints.places import hidden, shared_checkpoint
from proxsparse.runs.checkpoints.shared import SharedCheckpoints
from proxsparse.runs.history.watched import WatchedLearner
from proxsparse.runs.jobs.learn import LearnJobWorker
from proxsparse.runs.ranks.checking import check_together
from proxsparse.runs.ranks.group import BEGIN, COMPARE, MEET, READ, tell, together
from proxsparse.runs.ranks.learner import RankLearner, device_of_rank, load_to_share, make_learner
from proxsparse.runs.ranks.start import Start
from proxsparse.runs.recorder import Recorder, describe_device
from proxsparse.runs.run import Run

BEFORE_AND_AFTER_A_PAUSE = ("started", "resumed", "paused", "went on", "stopped")  # events


class LeadingLearner:
    """Rank 0's learner, in the place that a `MaskLearner` has in the job of one process: what it is told to do all ranks do.

    What is only read is that of rank 0, whose numbers are those of all.
    """

    BATCH = 4  # windows that a rank evaluates in one forward pass

    def __init__(self, own: RankLearner):
        self.__dict__["_own"] = own

    def __getattr__(self, name: str):
        return getattr(self._own.learner, name)

    def __setattr__(self, name: str, value: float) -> None:
        self._own.set(name, value)  # which may refuse it
        tell("set", name, value)

    def gradient_step(self) -> float:
        return self._all("gradient_step")

    def prox_step(self):
        return self._all("prox_step")

    def masks(self) -> MaskSet:
        return self._all("masks")

    def begin_checkpoint(self, path: Path) -> None:
        """See `SharedCheckpoints.begin`."""
        self._all("begin_checkpoint", str(hidden(path)), str(path))

    def watch(self, name: str, *arguments):
        """See `RankLearner.watch`."""
        return self._all("watch", name, *arguments)

    @property
    def watched(self) -> WatchedLearner:
        return self._own.watched

    @property
    def checkpoints(self) -> SharedCheckpoints:
        return self._own.checkpoints

    def window_losses(self, mask: str, windows: Tensor, progress: Progress) -> Tensor:
        """See `RankLearner.window_losses`; between two passes of all ranks, `progress` is told."""
        losses = []
        for some in windows.split(self.BATCH * self._own.learner.layers.ranks.count):
            progress(sum(map(len, losses)), len(windows), "measuring perplexity")
            losses.append(self._all("window_losses", mask, some))
        return torch.cat(losses)

    def _all(self, name: str, *arguments):
        tell(name, *arguments)
        return getattr(self._own, name)(*arguments)


class LeadingWatched:
    """What a history reads of the learners of all ranks, in the place that a `WatchedLearner` has in the job of one process."""

    def __init__(self, leading: LeadingLearner):
        self._leading, own = leading, leading.watched
        self.learner, self.shapes = own.learner, own.shapes

    def __getattr__(self, name: str):
        return partial(self._leading.watch, name)


def was_paused(run: Run) -> bool:
    """Whether a run was paused when its processes ended."""
    events = run.table("events")
    names = [] if events.empty else [name for name in events["event"] if name in BEFORE_AND_AFTER_A_PAUSE]
    return names[-1:] == ["paused"]


class LeadingJob(LearnJobWorker):
    """The job of rank 0."""

    being_written: tuple[int, Path] | None = None  # the step of a checkpoint, and where it is going to lie

    def __init__(self, run: Run, recorder: Recorder, start: Start):
        super().__init__(run, recorder)
        self.start, self.was_paused = start, start.again > 0 and was_paused(run)

    def load(self) -> None:
        tell(READ)
        super().load()
        if self.start.again:
            self.recorder.event("processes started again", times=self.start.again, most=self.start.most)
        if self.was_paused:
            self.pause()

    def load_model(self) -> LanguageModel:
        lm, why_whole = load_to_share(self.job)
        if why_whole is not None:
            self.recorder.event("every process loads the whole model", why=why_whole)
        return lm

    def load_checkpoint(self):
        """Its parts are shared out among the ranks, to look whether they are what was written; before that, whether all ranks have read
        the same."""
        tell(COMPARE, self.run.corpus()["sha256"], self.run.weights_sha256())
        together()
        return self.recorder.load_checkpoint(check_together)

    def make_learner(self, windows: Tensor, layers, checkpoint) -> LeadingLearner:
        tell(BEGIN, None if checkpoint is None else str(self.run.checkpoints()[checkpoint[1]["step"]]))
        machines = len(self.start.machines)
        on = f", {machines} machines" if machines > 1 else ""
        self.recorder.update(device=f"{dist.get_world_size()} × {describe_device(device_of_rank(self.job))}{on}")

        def report(done: int, total: int, what: str) -> None:
            # Commands are not looked at: none must end what the others are in the middle of.
            self.recorder.update(doing=f"{what} {min(done + 1, total)}/{total}")

        return LeadingLearner(make_learner(self.model, windows, self.job, layers, checkpoint, report))

    def watched(self) -> LeadingWatched:
        return LeadingWatched(self.learner)

    def window_losses(self, mask: str, windows: Tensor, progress: Progress) -> Tensor:
        return self.learner.window_losses(mask, windows, progress)

    def checkpoint(self) -> None:
        self.end_checkpoint()
        self.recorder.update(doing="writing a checkpoint")
        self.recorder.require_place()
        step = self.learner.step_index
        self.being_written = step, shared_checkpoint(self.run.path / "checkpoints", step)
        self.learner.begin_checkpoint(self.being_written[1])
        self.recorder.save_masks(step, self.learner.masks())

    def end_checkpoint(self) -> None:
        """Wait until the checkpoint that is being written, if any, is whole."""
        if self.being_written is not None:
            if self.learner.checkpoints.is_writing:
                self.recorder.update(doing="writing a checkpoint")
            self.learner.checkpoints.wait()
            self.recorder.checkpoint_written(*self.being_written)
            self.being_written = None

    def handle_commands(self) -> None:
        if self.being_written is not None and not self.learner.checkpoints.is_writing:
            self.end_checkpoint()
        super().handle_commands()

    def finish(self) -> None:
        super().finish()
        self.end_checkpoint()

    def stop(self) -> None:
        super().stop()
        self.end_checkpoint()
        # Where one is gone, this was no wish to stop: the launcher ends those that are left, to start all again.
        tell(MEET)
        together()
