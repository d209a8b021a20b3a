"""The model of a run in memory with everything that can be asked about it: texts, and the masks it can be put under."""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from proxsparse.evaluation.completions import complete_aloud
from proxsparse.evaluation.next_token import check_prompt, divergence, most_probable, next_token_probabilities
from proxsparse.evaluation.what_if import (
    estimated_layer_costs,
    keeping_all,
    layer_costs,
    masked_losses,
    what_if,
    with_group,
)
from proxsparse.files import written_whole
from proxsparse.layers import prunable_layers
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.memory import available_bytes
from proxsparse.methods import Pruned, magnitude, wanda
from proxsparse.models.language_model import dtype_name
from proxsparse.models.load import load_model
from proxsparse.progress import Progress, no_progress
from proxsparse.runs.jobs.base import require_same_text, windows_of
from proxsparse.runs.readers.known_masks import known_steps, masks_at
from proxsparse.runs.requests import PromptRequest, RankingRequest, Request, WhatIfRequest
from proxsparse.runs.run import Run

CANDIDATES = 10  # next tokens that are listed
MASK_SETS_KEPT = 6
LOSSES_KEPT = 12

Tell = Callable[[dict], None]


class LoadedRun:
    """Answers requests about a run, each by calls of tell(piece) as soon as a piece is known.

    Weights and sums are float32 where memory allows twice the model in it, since what one group does is lost in bf16;
    `arithmetic` says which. kept: a file for Wanda's masks, which are made once. progress: told while the text
    is read.
    """

    def __init__(self, run: Run, kept: Path | None = None, progress: Progress = no_progress):
        self.run, self.job, self.kept = run, run.job(), kept
        self.lm = load_model(self.job.model, self.job.device)
        self.model = self.lm.model
        text = windows_of(self.lm, self.job, progress)
        require_same_text(run, text)
        parameters = list(self.model.parameters())
        weights, bytes_now = sum(p.numel() for p in parameters), sum(p.nbytes for p in parameters)
        if 8 * weights - bytes_now < available_bytes(self.model.device):
            self.model.float()
        self.arithmetic = dtype_name(self.model.dtype)
        self.heldout, self.calibration = text.heldout, text.calibration[: self.job.learn.metric_windows]
        self.layers = prunable_layers(self.model, self.job.learn.m)
        self._masks: OrderedDict[tuple, MaskSet] = OrderedDict()
        self._losses: OrderedDict[tuple, Tensor] = OrderedDict()

    def answer(self, request: Request, tell: Tell, progress: Progress = no_progress, between: Callable = lambda: None):
        """Answer one request. between: called where the model is as it came, and something short may be done with it.

        Raises ProxSparseError for what turns out to be impossible, and whatever tell or progress raise.
        """
        if isinstance(request, PromptRequest):
            self._go_on_with(request, tell, progress)
        elif isinstance(request, WhatIfRequest):
            self._change(request, tell, progress)
        else:
            self._rank(request, tell, progress, between)

    # Requests

    def _go_on_with(self, request: PromptRequest, tell: Tell, progress: Progress) -> None:
        check_prompt(self.lm, request.prompt, request.new_tokens)
        learned = ["learned"] if known_steps(self.run) else []
        names, reference = ["dense", "magnitude", *learned, "wanda"], None  # last what takes longest the first time
        for index, name in enumerate(names):
            masks = self.masks(name, request.step, progress)
            progress(index, len(names), f"{name} goes on with the prompt, model")
            began = time.monotonic()
            with Pruned(masks).placed_in(self.layers) if masks else self.layers.on_copies():
                probabilities = next_token_probabilities(self.lm, request.prompt)
                reference = probabilities if reference is None else reference
                table = most_probable(self.lm, probabilities, CANDIDATES, reference)
                apart = divergence(reference, probabilities)
                tell({"model": name, "next": table.to_dict("records"), "divergence": apart})
                complete_aloud(
                    self.lm, request.prompt, request.new_tokens,
                    lambda piece, name=name, index=index: (
                        tell({"model": name, "piece": piece}),
                        progress(index, len(names), f"{name} goes on with the prompt, model"),
                    ),
                )  # fmt: skip
            tell({"model": name, "seconds": time.monotonic() - began})

    def _change(self, request: WhatIfRequest, tell: Tell, progress: Progress) -> None:
        windows = self.heldout[: request.windows]
        masks, about = dict(self.masks(request.base, request.step, progress)), {}
        if request.to == "group":
            learn, weight = self.job.learn, self.layers[request.layer].matrix
            mask = masks.get(request.layer) or keeping_all(tuple(weight.shape), learn.n, learn.m)
            changed: Mask | None = with_group(mask, request.row, request.group, request.kept)
            place = slice(request.group * learn.m, (request.group + 1) * learn.m)
            before, after = (each.dense()[request.row, place].nonzero().flatten().tolist() for each in (mask, changed))
            weights = weight[request.row, place].tolist()
            about = {"weights": weights, "kept_before": before, "kept_after": after}
        else:
            changed = self.masks(request.to, request.step, progress).get(request.layer)
        before = self._losses_under(request, windows, progress)
        found = what_if(
            self.model, masks, {request.layer: changed}, windows, layers=self.layers, before=before, progress=progress
        )
        tell({"change": dataclasses.asdict(found) | about})

    def _rank(self, request: RankingRequest, tell: Tell, progress: Progress, between: Callable) -> None:
        windows = self.heldout[: request.windows]
        masks = self.masks(request.base, request.step, progress)
        estimates = estimated_layer_costs(self.model, masks, windows, layers=self.layers, progress=progress)
        order = sorted(estimates, key=lambda name: estimates[name].difference)
        tell({"estimates": [[name, estimates[name].difference, estimates[name].stderr] for name in order]})
        chosen = order[: request.measured]
        before = self._losses_under(request, windows, progress)
        done = 0

        def own_progress(window: int, _: int, what: str) -> None:
            progress(done, len(chosen), f"measuring what the mask of {chosen[done]} costs, layer")

        for name, found in layer_costs(
            self.model, masks, windows, chosen, layers=self.layers, before=before, progress=own_progress
        ):
            tell({"layer": name} | dataclasses.asdict(found))
            done = min(done + 1, len(chosen) - 1)
            between()

    # What they need

    def masks(self, name: str, step: int | None, progress: Progress = no_progress) -> MaskSet:
        """The masks of that name; none for `dense`."""
        key = (name, step if name == "learned" else None)
        if key not in self._masks:
            self._masks[key] = self._made(name, step, progress)
        return _newest(self._masks, key, MASK_SETS_KEPT)

    def _made(self, name: str, step: int | None, progress: Progress) -> MaskSet:
        n, m = self.job.learn.n, self.job.learn.m
        if name == "dense":
            return MaskSet()
        if name == "learned":
            masks = masks_at(self.run, step)
            masks.check_fits(self.layers)
            return masks
        if name == "magnitude":
            return magnitude(self.model, None, n, m, layers=self.layers, progress=progress).masks
        if self.kept is not None and self.kept.is_file():
            return MaskSet.load(self.kept)
        masks = wanda(self.model, self.calibration, n, m, layers=self.layers, progress=progress).masks
        if self.kept is not None:
            with written_whole(self.kept) as temporary:
                masks.save(temporary)
        return masks

    def _losses_under(self, request: WhatIfRequest | RankingRequest, windows: Tensor, progress: Progress) -> Tensor:
        """The losses before any change; known from earlier requests where they had the same masks and windows."""
        key = (request.base, request.step if request.base == "learned" else None, len(windows))
        if key not in self._losses:
            masks = self.masks(request.base, request.step, progress)
            self._losses[key] = masked_losses(self.model, masks, windows, self.layers, progress=progress)
        return _newest(self._losses, key, LOSSES_KEPT)


def _newest(cache: OrderedDict, key: tuple, most: int):
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)
    return cache[key]
