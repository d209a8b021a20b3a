"""What one rank does in tests of several: learn the mask of every tiny model named, and leave what came out.

python tests/learning/sharded_learner.py DIRECTORY INDEX COUNT FAMILY …

They compute on the CPU, or on the device that RANK_DEVICE names.
"""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from tiny_models import random_windows, tiny_model
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.tensor import DTensor

from proxsparse import LearnConfig, MaskLearner, load_model, prunable_layers
from proxsparse.layers import ShardedLayers, shard_model
from proxsparse.models.forward import arithmetic, autocast
from proxsparse.runs.checkpoints import shared
from proxsparse.runs.checkpoints.parts import PartsReader
from proxsparse.runs.checkpoints.stored import Stored, opened

STEPS = 20
# Clipping is on, and every step has three windows: with 2 and 4 ranks not all of them have as many, or any.
CONFIGS = {
    "masked": {"precision": "fp32", "distill": 0.5},
    "soft": {"precision": "fp32", "distill": 0.0, "loss_at": "soft", "metric": "weight", "lambda2": 0.1},
    "accumulated": {"precision": "fp32", "distill": 0.0, "accumulation": 2},
    "recomputed": {"precision": "fp32", "distill": 0.5, "recompute": True},
    "offloaded": {"precision": "fp32", "distill": 0.5, "offload": True},
    "in bf16": {"precision": "bf16", "distill": 0.5, "lambda2": 0.1},
    "lean": {"precision": "bf16", "distill": 0.5, "lambda2": 0.1, "memory": "lean"},
}


def config(kind: str) -> LearnConfig:
    every = {"steps": STEPS, "batch": 3, "learning_rate": 3e-3, "metric_windows": 5, "memory": "full"}
    return LearnConfig(**every | CONFIGS[kind])


def learned(learner: MaskLearner, steps: int = STEPS) -> tuple[dict, dict]:
    """(numbers of all steps, {layer: packed mask}) of a learner that takes so many steps."""
    reports = [learner.step() for _ in range(steps)]
    masks = learner.masks()
    numbers = {
        "losses": [report.loss for report in reports], "norms": [report.gradient_norm for report in reports],
        "flips": [report.flips for report in reports], "drift": [report.drift for report in reports],
        "regularizer": [report.regularizer for report in reports],
        "layers": [report.layers["flips_from_start"] for report in reports],
    }  # fmt: skip
    return numbers, {name: mask.packed for name, mask in masks.items()}


def case(name: str) -> tuple[str, str, str]:
    """(family, what is learned, which half of the steps)."""
    family, _, rest = name.partition(" ")
    kind = next((kind for kind in CONFIGS if rest.startswith(kind)), "masked")
    half = rest.removeprefix(kind).strip() if "half" in rest else ""
    return family, kind, half


def after_half(directory: str | Path, name: str) -> Path:
    """Where the state lies that is saved after half of the steps."""
    family, kind, half = case(name)
    by = " of one" if half.endswith("of one") else ""
    return Path(directory, f"{family}{' lean' if kind == 'lean' else ''} after half{by}")


def first_step(model, layers: ShardedLayers, kind: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """({layer: this rank's soft weights after the gradient's half of the first step}, the bytes of what is learned and its moments)."""
    with MaskLearner(model, random_windows(), config(kind), layers) as learner:
        learner.gradient_step()
        soft = {name: layer.matrix.float().clone() for name, layer in layers.items()}
        state = learner.update.optimizer.state
        held = [
            (own, state[own]["exp_avg"], state[own]["exp_avg_sq"]) for own in layers.model_parameters if own in state
        ]
        return soft, sum(tensor.nbytes for tensors in held for tensor in tensors)


def rounding(wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> dict[str, float]:
    """How numbers in bf16 differ from those in float32, in units of the distance between two neighbours in bf16."""
    exact, rounded = (torch.cat([each[name].flatten() for name in wanted]) for each in (wanted, found))
    distance = 2.0 ** (exact.frexp().exponent - 8)
    error, nearest = (rounded - exact) / distance, (exact / distance - (exact / distance).round()).abs()
    found = {"most": error.abs().max(), "mean": error.mean(), "above half": (error.abs() > 0.5).float().mean()}
    return {name: value.item() for name, value in (found | {"chance of above half": nearest.mean()}).items()}


def save_state(learner: MaskLearner, path: Path, family: str) -> None:
    """Save it while the learner goes on; gathering a tensor is an error."""
    around = {
        "mixtral": mock.patch.object(shared, "FILE_BYTES", 10_000),  # several files a rank
        "gpt2": mock.patch.object(shared, "SHARE_OF_MEMORY", 0.0),  # no room for copies
    }
    checkpoints = shared.SharedCheckpoints(learner.layers.ranks)
    never = mock.Mock(side_effect=AssertionError("a tensor is gathered whole"))
    with around.get(family, nullcontext()), mock.patch.object(DTensor, "full_tensor", never):
        with mock.patch.object(ShardedLayers, "gathered", never):
            checkpoints.begin(*learner.state_dict(), path.with_name(f"{path.name} half written"), path)
        assert (family == "gpt2") == (checkpoints._writing is None), "copied where there is room"
        learner.step()
        checkpoints.wait()


@contextmanager
def noting_shares() -> Iterator[list[float]]:
    """What share of each tensor is read, of those that learn."""
    shares, read = [], PartsReader.read

    def noted(reader, name, offsets, sizes):
        if name.startswith(("soft", "exp_avg")):
            shares.append(math.prod(sizes) / math.prod(reader.shapes()[name]))
        return read(reader, name, offsets, sizes)

    with mock.patch.object(PartsReader, "read", noted):
        yield shares


def load_state(path: Path) -> tuple[Mapping[str, Stored], dict]:
    stored = opened(path)
    stored.check()
    return stored.tensors, stored.rest


def main(directory: str, index: str, count: str, *cases: str) -> None:
    torch.set_num_threads(1)
    device = torch.device(os.environ.get("RANK_DEVICE", "cpu"))
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=f"file://{directory}/store-of-{count}",
        rank=int(index),
        world_size=int(count),
    )
    found = {}
    for name in cases:
        family, kind, half = case(name)
        saved = after_half(directory, name)
        streamed, files = name.endswith("streamed"), str(Path(directory, family))
        model = load_model(files, str(device), stream=True).model if streamed else tiny_model(family).to(device)
        precision, one_window = config(kind).precision, random_windows(1).to(device)
        if kind == "lean":  # a model as they come
            model.bfloat16().float()
        with torch.no_grad(), autocast(device, precision):
            before = model(input_ids=one_window).logits
        with mock.patch("torch.distributed.fsdp.CPUOffloadPolicy", wraps=CPUOffloadPolicy) as policy:
            layers = shard_model(
                model, prunable_layers(model), arithmetic(device, precision), device, config(kind).offload
            )
        about = {}
        if kind == "lean" and not half:
            exact, held = first_step(model, layers, "in bf16")
            lean, half_held = first_step(model, layers, "lean")
            about = {"rounding": rounding(exact, lean), "share held": half_held / held}
        with noting_shares() as shares:
            state = load_state(saved) if half.startswith("second half") else None
            learner = MaskLearner(model, random_windows(), config(kind), layers, state=state)
        kept: list[int] = []  # bytes of each tensor that autograd keeps between forward and backward

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            numbers, masks = learned(learner, STEPS // 2 if half else STEPS)
        if half == "first half":
            save_state(learner, saved, family)
        with torch.no_grad(), autocast(device, precision), learner.dense():
            same = torch.equal(model(input_ids=one_window).logits, before)
        found[name] = (
            numbers
            | about
            | {
                "held whole": sum(layer.whole.parameter.untyped_storage().nbytes() for layer in layers.values()),
                "kept": sum(kept),
                "offloaded": policy.called,
                "dense is as before": same,
                "shares read": sorted(set(shares)),
                "masks": {key: mask.tolist() for key, mask in masks.items()},
            }
        )
        learner.restore()
    Path(directory, f"{index}-of-{count}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
