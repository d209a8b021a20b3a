"""A run on several processes, one a device: rank 0 works on it as one process would, and tells the others what to do as well.

The others follow: they wait to be told of a call, and make it on their own part of the learner. So commands, clocks and files concern
rank 0 alone, and all ranks make the same calls in the same order, between which rank 0 may be paused or stopped.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from proxsparse.config import LearnJob
from proxsparse.errors import CannotStreamError, DivergedError, ProxSparseError
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.layers import prunable_layers, shard_model
from proxsparse.layers.ranks import Ranks
from proxsparse.learning.learner import MaskLearner
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods import magnitude
from proxsparse.models.forward import arithmetic
from proxsparse.models.language_model import LanguageModel, fingerprint
from proxsparse.models.load import load_model
from proxsparse.progress import Progress, no_progress
from proxsparse.runs.checkpoints.places import hidden, shared_checkpoint
from proxsparse.runs.checkpoints.shared import SharedCheckpoints
from proxsparse.runs.checkpoints.stored import DAMAGE, Stored, StoredFile, StoredParts, opened
from proxsparse.runs.history.watched import WatchedLearner
from proxsparse.runs.jobs.base import windows_of
from proxsparse.runs.jobs.devices import devices_of_processes
from proxsparse.runs.jobs.group import gathered, tell, together, told
from proxsparse.runs.jobs.learn import LearnJobWorker, under
from proxsparse.runs.jobs.start import Start
from proxsparse.runs.recorder import Recorder, describe_device
from proxsparse.runs.run import Run

BEFORE_AND_AFTER_A_PAUSE = ("started", "resumed", "paused", "went on", "stopped")  # events
READ, COMPARE, CHECK, BEGIN, MEET, END = "read", "compare", "check", "begin", "meet", "end"


def device_of_rank(job: LearnJob) -> torch.device:
    """That of this rank: see `devices_of_processes`. All ranks of a machine raise ProxSparseError where one of them would have none."""
    devices = devices_of_processes(job.device, int(os.environ.get("LOCAL_WORLD_SIZE", job.launch)))
    device = torch.device(devices[int(os.environ.get("LOCAL_RANK", 0))])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def load_to_share(job: LearnJob) -> tuple[LanguageModel, str | None]:
    """(the model, with its weights left in their files, so that a rank reads one block at a time when they are shared out; None), or
    (the whole model on the CPU, from which blocks go to their ranks; why it had to be loaded)."""
    try:
        return load_model(job.model, str(device_of_rank(job)), stream=True), None
    except CannotStreamError as error:
        return load_model(job.model, "cpu"), str(error)


class RankLearner:
    """One rank's part of a learner, and what all ranks do with theirs together. magnitude: the masks of that name, of its own rows."""

    def __init__(self, learner: MaskLearner, magnitude: MaskSet):
        self.learner, self.magnitude = learner, magnitude
        self.watched = WatchedLearner(learner, magnitude)
        self.checkpoints = SharedCheckpoints(learner.layers.ranks)

    def gradient_step(self) -> float:
        return self.learner.gradient_step()

    def prox_step(self):
        return self.learner.prox_step()

    def masks(self) -> MaskSet:
        return self.learner.masks()

    def begin_checkpoint(self, written: str, path: str) -> None:
        self.checkpoints.begin(*self.learner.state_dict(), Path(written), Path(path))

    def watch(self, name: str, *arguments):
        """Call a method of the `WatchedLearner`."""
        return getattr(self.watched, name)(*arguments)

    def set(self, name: str, value: float) -> None:
        """Set λ1, or what is left of its ramp."""
        setattr(self.learner, name, value)

    def window_losses(self, mask: str, windows: Tensor) -> Tensor:
        """The loss of every window under a mask, each rank's share of the windows on its own device; float64 (count,)."""
        ranks, found = self.learner.layers.ranks, torch.zeros(len(windows), dtype=torch.float64)
        own, share = ranks.share(torch.arange(len(windows)))
        with under(self.learner, mask, self.magnitude):
            try:
                losses = window_losses(self.learner.model, windows[own], len(own), self.learner.precision)
            except DivergedError:  # the others wait to add theirs
                losses = torch.full((len(own),), torch.nan, dtype=torch.float64)
        if share:
            found[own] = losses
        if not bool(ranks.sum_(found).isfinite().all()):
            raise DivergedError("The loss on the held-out text is not a finite number: this model is broken.")
        return found


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


def make_learner(model, windows: Tensor, job: LearnJob, layers, checkpoint, progress: Progress) -> RankLearner:
    """Shard the model, and make this rank's part of the learner. All ranks call it."""
    device = device_of_rank(job)
    config = job.learn
    if config.memory == "lean":  # which multiplies in bf16 on every device: the shards have that dtype
        config = dataclasses.replace(config, precision="bf16")
    shards = shard_model(model, layers, arithmetic(device, config.precision), device, config.offload)
    masks = magnitude(model, None, config.n, config.m, layers=shards).masks
    return RankLearner(MaskLearner(model, windows, config, shards, progress, state=checkpoint), masks)


def follow(run: Run) -> None:
    """Do what rank 0 tells, to the end."""
    job, own, problem = run.job(), None, ""
    while True:
        name, arguments = told()
        if name == END:
            return
        if name == READ:
            try:
                lm, _ = load_to_share(job)
                text = windows_of(lm, job)
                layers = prunable_layers(lm.model, job.learn.m)
            except ProxSparseError as error:  # which may be so on this machine alone
                problem = str(error)
        elif name == COMPARE:
            together(problem or difference(text, lm.model, *arguments))
        elif name == MEET:
            together()
        elif name == CHECK:
            check_together(Path(arguments[0]))
        elif name == BEGIN:
            checkpoint = None if arguments[0] is None else stored_state(Path(arguments[0]))
            own = make_learner(lm.model, text.calibration, job, layers, checkpoint, no_progress)
        else:
            getattr(own, name)(*arguments)


def difference(text, model, sha256: str, weights_sha256: str) -> str:
    """What this rank has read other than rank 0, whose machine may be another one; "" where there is nothing. One rank a machine looks at
    the weights."""
    if text.sha256 != sha256:
        return f"the text {text.name} is not that of process 0: give --corpus the same text on all machines."
    if int(os.environ["LOCAL_RANK"]) == 0 and fingerprint(model) != weights_sha256:
        return f"the weights of {model.name_or_path} are not those of process 0: give --model the same model on all machines."
    return ""


def stored_state(path: Path) -> tuple[Mapping[str, Stored], dict]:
    """The state in a checkpoint, which all ranks have found whole; a rank reads its part of each tensor."""
    stored = opened(path)
    return stored.tensors, stored.rest


def check_together(path: Path, stored: StoredFile | StoredParts | None = None) -> None:
    """Look whether a checkpoint is what was written, each rank at its share. All ranks call it, rank 0 with what it has opened; it
    raises ValueError there where it is not."""
    ranks = Ranks.started()
    if stored is not None:
        tell(CHECK, str(path))
    try:
        (stored or opened(path)).check(ranks.index, ranks.count)
        wrong = ""
    except DAMAGE as error:
        wrong = str(error) or type(error).__name__
    found = gathered(wrong)
    if stored is not None and any(found):
        raise ValueError(next(filter(None, found)))
