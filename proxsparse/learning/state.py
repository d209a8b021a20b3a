"""The state of a learner between two steps, as it is saved: tensors (for safetensors) and the rest (for JSON).

soft.P, exp_avg.P, exp_avg_sq.P     weights and AdamW's moments of parameter P; no moments before its first gradient
start.L, previous.L                 packed masks of layer L, uint8
scale.L                             the metric of layer L; absent where the weight alone counts
version, step, lambda1, growth_left, memory, pattern, unseen, updates {parameter: its optimizer steps}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.learning.seen import Learner
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet

VERSION = 1
MOMENTS = ("exp_avg", "exp_avg_sq")
State = tuple[Mapping[str, Any], dict]  # of tensors, or of what has their shape and gives their slices


def current(state: State) -> State:
    """A state of any version as one of VERSION. Raises ProxSparseError for a newer one."""
    tensors, rest = state
    version = rest.get("version", 0)
    if version not in range(VERSION + 1):
        raise ProxSparseError(
            f"The checkpoint has format version {version!r} and this proxsparse reads versions up to {VERSION}: install a "
            "newer proxsparse."
        )
    if version == 0:  # written before there were a choice of memory, a ramp, and a record of the pattern
        rest = {"memory": "full", "growth_left": 1.0, "pattern": None, "unseen": []} | rest | {"version": 1}
    return tensors, rest


def written(learner: Learner) -> State:
    """The state of `learner`, which stands between two steps: its own tensors, not copies of them. Where several ranks learn, each gets
    the parts that it holds, and what all of them hold alike whole."""
    tensors, updates, layers = {}, {}, learner.layers
    for name, parameter in learner.originals.parameters.items():
        tensors[f"soft.{name}"] = layers.placed(parameter, parameter.data)
        moments = learner.update.optimizer.state.get(parameter)
        if moments:
            for kind in MOMENTS:
                tensors[f"{kind}.{name}"] = layers.placed(parameter, moments[kind])
            updates[name] = int(moments["step"].item())
    for kind, masks in (("start", learner.start), ("previous", learner.own_masks())):
        for name, mask in masks.items():
            tensors[f"{kind}.{name}"] = layers.placed_rows(name, mask.packed)
    for name in layers:
        if learner.scales[name] is not None:
            tensors[f"scale.{name}"] = learner.scales[name]
    rest = {
        "version": VERSION, "step": learner.step_index, "lambda1": learner.lambda1, "growth_left": learner.growth_left,
        "memory": learner.memory, "pattern": learner.config.pattern, "unseen": list(learner.unseen), "updates": updates,
    }  # fmt: skip
    return tensors, rest


def check(state: State, learner: Learner) -> None:
    """Raise ProxSparseError unless the state is of this model, metric and pattern."""
    tensors, rest = state
    pattern = learner.config.pattern
    if rest["pattern"] not in (None, pattern):
        raise ProxSparseError(
            f"The checkpoint was written with pattern {rest['pattern']} and this run has pattern {pattern}: set n and m to it."
        )
    whole = {name: learner.layers.shape_of(own) for name, own in learner.originals.parameters.items()}
    shapes = {f"soft.{name}": [shape] for name, shape in whole.items()}
    for name, layer in learner.layers.items():
        rows, columns = learner.layers.numel(name) // layer.in_features, layer.in_features
        shapes |= {f"{kind}.{name}": [(rows, -(-columns // 8))] for kind in ("start", "previous")}
        if learner.config.metric == "activation":
            shapes[f"scale.{name}"] = [(columns,), (rows, columns)]
    for name, shape in whole.items():
        if name in rest["updates"]:
            shapes |= {f"{kind}.{name}": [shape] for kind in MOMENTS}
    for name, allowed in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) not in [tuple(shape) for shape in allowed]:
            raise ProxSparseError(f"The checkpoint does not fit this run: {name} is missing or has another shape.")
    if learner.config.metric == "weight" and any(name.startswith("scale.") for name in tensors):
        raise ProxSparseError(
            "The checkpoint was written with metric activation and this run has metric weight: set metric to activation."
        )


def check_memory(state: State, memory: str) -> None:
    """Raise ProxSparseError unless the state was written under this plan: its weights and moments have other dtypes."""
    if state[1]["memory"] != memory:
        raise ProxSparseError(
            f"The checkpoint was written with memory {state[1]['memory']} and this run has memory {memory}: set memory to "
            f"{state[1]['memory']}."
        )


def scales_of(state: State, learner: Learner) -> dict[str, Tensor | None]:
    """The metric of every layer."""
    tensors, found = state[0], {}
    for name in learner.layers:
        scale = tensors.get(f"scale.{name}")
        found[name] = None if scale is None else scale[:].to(learner.home, copy=True)
    return found


def masks_of(state: State, kind: str, learner: Learner) -> MaskSet:
    """kind: `start` or `previous`."""
    n, m, found = learner.config.n, learner.config.m, MaskSet()
    for name, layer in learner.layers.items():
        packed = learner.layers.own_rows(name, state[0][f"{kind}.{name}"])
        found[name] = Mask(packed.to(learner.home, copy=True), (layer.out_features, layer.in_features), n, m)
    return found


def put_weights(state: State, learner: Learner) -> None:
    """The soft weights into the model, and the moments into the optimizer."""
    tensors, rest = state
    for name, parameter in learner.originals.parameters.items():
        parameter.data.copy_(learner.layers.part_of(parameter, tensors[f"soft.{name}"]))
        moments = learner.update.optimizer.state
        moments.pop(parameter, None)
        if name in rest["updates"]:
            moments[parameter] = {"step": torch.tensor(float(rest["updates"][name]), device=learner.home)}
            for kind in MOMENTS:
                part = learner.layers.part_of(parameter, tensors[f"{kind}.{name}"])
                moments[parameter][kind] = part.to(learner.home, copy=True)
