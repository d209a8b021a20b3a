"""What the worker that holds a run's model in memory can be asked: what a prompt is continued with, what a change of the
masks does to the loss, and what the mask of each layer costs. Checked when made; nothing here imports torch."""

from __future__ import annotations

import dataclasses
from typing import Literal

from proxsparse.config import MOST_STEPS
from proxsparse.errors import ProxSparseError
from proxsparse.settings import setting, settings

# What a run's model can be put under. `learned` needs a step.
MASKS = ("dense", "magnitude", "wanda", "learned")
MaskName = Literal["dense", "magnitude", "wanda", "learned"]
MOST_CHARACTERS = 2000  # of a prompt; how many tokens it has is known where the tokenizer is
MOST_WINDOWS, MOST_LAYERS = 256, 1_000_000
MOST_PLACES = 2**31  # rows of a layer, or groups of a row; what a layer has is known where the run is


@settings
class PromptRequest:
    """Next-token probabilities and the greedy completion of a prompt, dense and under every mask there is."""

    prompt: str = setting("", "the beginning of a text, which each model goes on with")
    step: int | None = setting(None, "of which step the learned mask is taken; default: the last", ge=0, le=MOST_STEPS)
    new_tokens: int = setting(32, "tokens that are added", "tokens", ge=1, le=128)

    def __post_init__(self):
        if not self.prompt.strip():
            raise ProxSparseError("The prompt is empty: type the beginning of a text.")
        if len(self.prompt) > MOST_CHARACTERS:
            raise ProxSparseError(
                f"The prompt has {len(self.prompt):,} characters: give {MOST_CHARACTERS:,} or fewer, its end matters most."
            )


@settings
class WhatIfRequest:
    """The change of the held-out loss when one group of a layer, or all of it, gets another mask.

    to: `group`: the group `group` of row `row` keeps the positions `kept`, all from 0; else the mask that the whole layer
    gets.
    """

    base: MaskName = setting("learned", "mask of all layers, before")
    layer: str = setting("", "name of the layer that changes")
    to: Literal["group", "dense", "magnitude", "wanda", "learned"] = setting("group", "what the layer gets")
    row: int = setting(0, "output row of the group, from 0", ge=0, le=MOST_PLACES)
    group: int = setting(0, "which group of the row, from 0", ge=0, le=MOST_PLACES)
    kept: tuple[int, ...] = ()
    step: int | None = setting(None, "of which step the learned mask is taken; default: the last", ge=0, le=MOST_STEPS)
    windows: int = setting(8, "held-out windows on which the loss is taken", "windows", ge=2, le=MOST_WINDOWS)

    def __post_init__(self):
        if self.base == self.to:
            raise ProxSparseError(f"The layer is {self.to} before and after: choose something else to change it to.")

    @property
    def needs_learned(self) -> bool:
        return "learned" in (self.base, self.to)


@settings
class RankingRequest:
    """How the held-out loss changes when one layer is dense again, for each layer: estimated to first order for all, then
    measured one by one, those first that seem to cost most."""

    base: MaskName = setting("learned", "mask of all layers")
    step: int | None = setting(None, "of which step the learned mask is taken; default: the last", ge=0, le=MOST_STEPS)
    windows: int = setting(4, "held-out windows on which the loss is taken", "windows", ge=2, le=MOST_WINDOWS)
    measured: int | None = setting(
        None, "layers that are measured after the estimate; default: all", "layers", ge=0, le=MOST_LAYERS
    )

    def __post_init__(self):
        if self.base == "dense":
            raise ProxSparseError("The dense model has no masks that could cost anything: choose another one.")

    @property
    def needs_learned(self) -> bool:
        return self.base == "learned"


Request = PromptRequest | WhatIfRequest | RankingRequest
KINDS = {"prompt": PromptRequest, "what-if": WhatIfRequest, "ranking": RankingRequest}


def request_from(values: dict) -> Request:
    """What `as_json` gave. Raises ProxSparseError for anything else."""
    values = dict(values)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise ProxSparseError(f"There is no request of the kind {kind!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[kind](**values)


def as_json(request: Request) -> dict:
    """A request as a file holds it."""
    kind = next(name for name, each in KINDS.items() if isinstance(request, each))
    return {"kind": kind} | dataclasses.asdict(request)
