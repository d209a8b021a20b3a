"""Whether a model can be learned on so many GPUs of so much memory: said before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import torch

from proxsparse.config import LearnConfig
from proxsparse.errors import ProxSparseError
from proxsparse.export.acceleration import CAPABILITY, Accelerator
from proxsparse.export.benchmark import shapes_on_paper
from proxsparse.export.card import RUN_AS_TWO_FOUR
from proxsparse.export.estimate import bound
from proxsparse.export.write import multiply_adds_outside
from proxsparse.layers import prunable_layers
from proxsparse.models.language_model import dtype_name
from proxsparse.models.without_weights import load_without_weights
from proxsparse.planning.memory import Load, Row, row, ways_out
from proxsparse.planning.shapes import Shapes
from proxsparse.planning.step_time import step_flops

GIGABYTE = 10**9
TIGHT = 0.9  # of the memory; the rest is for what is not counted, see docs/explain/memory.md


def plan_learning(
    name: str, gpus: int, gpu_memory: float, config: LearnConfig, length: int,
    memory_plans: tuple[str, ...] = ("full", "lean"), losses: tuple[str, ...] = ("masked", "soft"), tflops: float | None = None,
) -> dict:  # fmt: skip
    """What learning the masks of a model takes, by arithmetic over its configuration.

    Parameters
    ----------
    name : str
        What `load_model` takes, or a config.json; no weights are read.
    gpus : int
        How many there are. Several share the weights, and the windows of a pass.
    gpu_memory : float
        Of each, in GB (10⁹ bytes).
    config : LearnConfig
        Of it count batch, accumulation, precision, distill, recompute, offload, steps and the pattern.
    length : int
        Of a window, in tokens.
    memory_plans, losses
        For which rows are made.
    tflops : float, optional
        The speed that a GPU sustains, in 10¹² floating-point operations a second.

    Returns
    -------
    dict
        As JSON: `model`, `rows` (bytes), `step`, `kernels`.

    Raises
    ------
    ProxSparseError
        For numbers that make no sense, and a model that cannot be planned.
    """
    if gpus < 1:
        raise ProxSparseError(f"gpus is {gpus}: give 1 or more.")
    for what, value in (("gpu-memory", gpu_memory), ("tflops", tflops)):
        if value is not None and not 0 < value < math.inf:
            raise ProxSparseError(f"{what} is {value:g}: give a number above 0.")
    arithmetic = torch.float32 if config.precision == "fp32" else torch.bfloat16
    plans = [
        each for each in memory_plans if each == "full" or (arithmetic != torch.float32 and config.accumulation == 1)
    ]
    if not plans:
        raise ProxSparseError(
            "The lean plan multiplies in bf16 and updates in every pass: set accumulation to 1 and precision to auto."
        )
    model = load_without_weights(name)
    shapes = Shapes(name, model, prunable_layers(model, config.m))
    load = Load(config.batch, length, config.distill > 0, arithmetic, config.recompute, config.offload)
    wanted = [(each, at, 1) for each in plans for at in losses]
    wanted += [(each, at, gpus) for each in plans for at in losses if gpus > 1]
    rows = [_told(shapes, row(shapes, *each, load), load, gpu_memory * GIGABYTE) for each in wanted]
    return {
        "model": _about(shapes), "gpus": gpus, "memory_gb": gpu_memory, "batch": config.batch, "length": length,
        "accumulation": config.accumulation, "arithmetic": dtype_name(arithmetic), "distill": config.distill,
        "recompute": config.recompute, "offload": config.offload,
        "rows": rows, "step": [_time(shapes, each, load, config, tflops) for each in plans],
        "kernels": _kernels(shapes, config),
    }  # fmt: skip


def _told(shapes: Shapes, found: Row, load: Load, room: float) -> dict:
    fits = "no" if found.total > room else "barely" if found.total > TIGHT * room else "yes"
    ways = list(ways_out(shapes, found, load, room)) if fits == "no" else []
    return dataclasses.asdict(found) | {"fits": fits, "instead": ways}


def _about(shapes: Shapes) -> dict:
    skipped = Counter(shapes.layers.skipped.values())
    return {
        "name": shapes.name, "kind": type(shapes.model).__name__, "dtype": dtype_name(shapes.model.dtype),
        "parameters": shapes.parameters, "prunable": sum(layer.numel for layer in shapes.layers.values()),
        "layers": len(shapes.layers), "dense_in_blocks": dict(skipped), "outside_blocks": shapes.outside,
    }  # fmt: skip


def _time(shapes: Shapes, memory: str, load: Load, config: LearnConfig, tflops: float | None) -> dict:
    flops = step_flops(shapes, memory, load, config.accumulation)
    seconds = flops / (tflops * 1e12) if tflops is not None else None
    return {"memory": memory, "flops": flops, "tflops": tflops, "seconds": seconds, "steps": config.steps}


def _kernels(shapes: Shapes, config: LearnConfig) -> dict:
    """Which layers torch's 2:4 kernels take, in bf16, and what that gains at most; see `export.estimate.bound`."""
    if (config.n, config.m) not in RUN_AS_TWO_FOUR:
        return {
            "layers": 0,
            "of": len(shapes.layers),
            "reasons": {f"no kernel runs {config.pattern}": len(shapes.layers)},
            "bound": None,
        }
    for parameter in shapes.model.parameters():  # what is rounded for the kernels before they take it
        parameter.data = parameter.data.to(torch.bfloat16)
    found = shapes_on_paper(shapes.model, Accelerator("cuda", CAPABILITY))
    reasons: Counter[str] = Counter()
    for shape in found:
        reasons[shape["reason"]] += shape["layers"]
    runs = sum(shape["layers"] * shape["dense_multiply_adds"] for shape in found if not shape["reason"])
    rest = sum(shape["layers"] * shape["dense_multiply_adds"] for shape in found if shape["reason"])
    layers = reasons.pop("", 0)
    gain = bound(runs, rest + multiply_adds_outside(shapes.model, shapes.layers)) if layers else None
    return {"layers": layers, "of": len(shapes.layers), "reasons": dict(reasons), "bound": gain}
