"""One rank's part of what is learned, and what all ranks do with theirs together."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from torch import Tensor

from proxsparse.config import LearnJob
from proxsparse.errors import CannotStreamError, DivergedError
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.layers import shard_model
from proxsparse.learning.learner import MaskLearner
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods import magnitude
from proxsparse.models.forward import arithmetic
from proxsparse.models.language_model import LanguageModel
from proxsparse.models.load import load_model
from proxsparse.progress import Progress
from proxsparse.runs.checkpoints.shared import SharedCheckpoints
from proxsparse.runs.history.watched import WatchedLearner
from proxsparse.runs.jobs.devices import devices_of_processes
from proxsparse.runs.jobs.learn import under


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


def make_learner(model, windows: Tensor, job: LearnJob, layers, checkpoint, progress: Progress) -> RankLearner:
    """Shard the model, and make this rank's part of the learner. All ranks call it."""
    device = device_of_rank(job)
    config = job.learn
    if config.memory == "lean":  # which multiplies in bf16 on every device: the shards have that dtype
        config = dataclasses.replace(config, precision="bf16")
    shards = shard_model(model, layers, arithmetic(device, config.precision), device, config.offload)
    masks = magnitude(model, None, config.n, config.m, layers=shards).masks
    return RankLearner(MaskLearner(model, windows, config, shards, progress, state=checkpoint), masks)
