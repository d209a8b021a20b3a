"""Everything that the product promises of a model, checked on a tiny one of a family: one function a promise."""

from __future__ import annotations

import functools
import math
import re
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import torch
from families.tiny_configs import tiny_config
from safetensors.torch import load_file, save_file
from tiny_models import random_windows, tiny_tokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import (
    LearnConfig,
    MaskLearner,
    ProxSparseError,
    export_model,
    load_compact,
    load_model,
    perplexity,
    prunable_layers,
    verify,
)
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.export import verification
from proxsparse.layers import decoder_blocks
from proxsparse.models import forward
from proxsparse.models.activations import activation_scales

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass
class Family:
    """What was found of one family, as JSON writes it.

    state: `right`, `refused`, `not built` or `wrong`. why: the sentence of a refusal, or what was wrong. left: {reason:
    share of the weights of the blocks}, of what is left dense.
    """

    name: str
    model: str = ""
    state: str = "right"
    why: list[str] = field(default_factory=list)
    layers: int = 0
    pruned: float = 0.0
    left: dict[str, float] = field(default_factory=dict)
    unseen: int = 0


def walk(name: str) -> Family:
    """Check one family. Nothing is raised: what goes wrong is what is looked for."""
    torch.set_num_threads(1)
    family = Family(name)
    try:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(name)).eval()
    except Exception as error:
        family.state, family.why = "not built", [_first_line(error)]
        return family
    family.model = type(model).__name__
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.save_pretrained(Path(directory) / "model")
            tiny_tokenizer().save_pretrained(Path(directory) / "model")
            _check(family, Path(directory))
        except ProxSparseError as error:
            family.state, family.why = (
                "refused",
                [_first_line(error).replace(f"{Path(directory) / 'model'}", "the model")],
            )
        except Exception as error:
            family.state, family.why = "wrong", [*family.why, "".join(traceback.format_exception(error)[-2:])]
    if family.state == "right" and family.why:
        family.state = "wrong"
    return family


def _check(family: Family, directory: Path) -> None:
    lm = load_model(str(directory / "model"), "cpu")
    layers = prunable_layers(lm.model)
    before = _bits(lm.model)
    _describe(family, lm.model, layers)
    family.why += _the_same_is_found_without_memory(lm.model, layers)
    family.why += _everything_is_pruned_or_listed(lm.model, layers)
    family.why += _routers_are_dense(lm.model, layers)
    family.why += _perplexity_is_that_of_a_plain_loop(lm.model)
    family.why += _streamed_it_measures_the_same(lm.model, directory)
    family.why += _inputs_are_seen(family, lm.model, layers)
    masks, wrong = _two_steps(lm.model)
    family.why += wrong
    if not _same(before, _bits(lm.model)):
        family.why.append("the original weights are not back")
    with patch.object(verification, "load_model", _loading_once(lm.name)):
        family.why += _exports(lm, masks, directory)


def _loading_once(original: str):
    """`load_model`, but for the original, which nobody changes: each export is compared with it twice."""
    once = functools.cache(load_model)

    def load(name: str, *arguments, **options):
        return (once if name == original else load_model)(name, *arguments, **options)

    return load


def _describe(family: Family, model, layers) -> None:
    """How large the pruned share is, of all parameters of two dimensions or more in the blocks."""
    sizes = {}
    for prefix, _, block in decoder_blocks(model):
        for name, parameter in block.named_parameters():
            if parameter.ndim > 1:
                sizes.setdefault(id(parameter), (f"{prefix}.{name}", parameter.numel()))
    whole = sum(size for _, size in sizes.values())
    family.layers = len(layers)
    family.pruned = sum(layer.numel for layer in layers.values()) / whole
    left = Counter()
    for name, reason in layers.skipped.items():
        held = [size for key, size in sizes.values() if key in (name, f"{name}.weight")]
        if held:
            left[reason] += held[0] / whole
        else:
            key, _, _ = name.rpartition(".")
            left[reason] += next(size for held, size in sizes.values() if held == key) / whole
    family.left = dict(left)


def _the_same_is_found_without_memory(model, layers) -> list[str]:
    """On the meta device, where there are shapes and no values."""
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(model.config).eval()
    found = prunable_layers(bare)
    rows = {name: _row(layer) for name, layer in layers.items()}, layers.skipped
    bare_rows = {name: _row(layer) for name, layer in found.items()}, found.skipped
    return [
        f"{name} is {here.get(name)}, and {there.get(name)} without memory"
        for here, there in zip(rows, bare_rows, strict=True) for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]  # fmt: skip


def _row(layer) -> tuple:
    shape = layer.out_features, layer.in_features
    return layer.block, layer.projection, layer.expert, layer.transposed, layer.stored, shape


def _everything_is_pruned_or_listed(model, layers) -> list[str]:
    pruned = {id(parameter) for parameter in layers.parameters()}
    wrong = []
    for prefix, _, block in decoder_blocks(model):
        for name, parameter in block.named_parameters():
            full = f"{prefix}.{name}"
            listed = full in layers.skipped or full.removesuffix(".weight") in layers.skipped
            partly = any(key.startswith(f"{full}.") for key in layers.skipped)
            if parameter.ndim > 1 and not (id(parameter) in pruned or listed or partly):
                wrong.append(f"{full} is neither pruned nor listed")
    if layers.keys() & layers.skipped.keys() or not all(layers.skipped.values()):
        wrong.append("a layer is pruned and listed, or listed without a reason")
    held = Counter()
    for layer in layers.values():
        held[id(layer.parameter)] += layer.numel
    wrong += [
        f"{layer.name} and its neighbours are not the whole parameter" for layer in layers.values()
        if held[id(layer.parameter)] > layer.parameter.numel()
    ]  # fmt: skip
    return wrong


def _routers_are_dense(model, layers) -> list[str]:
    """By their names and sizes, which the product does not look at."""
    config = model.config.get_text_config(decoder=True)
    counts = {
        getattr(config, name, None) or getattr(getattr(config, "ffn_config", None), name, None)
        for name in EXPERT_COUNTS
    }
    counts = {count for count in counts if isinstance(count, int) and count > 1}
    named = re.compile(r"router|(gate|wg)$")
    routers = {name for name, reason in layers.skipped.items() if reason.startswith("router")}
    wrong = [
        f"{name} is a router and is pruned" for name, layer in layers.items()
        if layer.expert is None and layer.out_features in counts and named.search(name)
    ]  # fmt: skip
    has_experts = any(".experts" in name for name in layers)
    if has_experts and not routers:
        wrong.append("there are experts and no router")
    if routers and not has_experts and not any(layer.expert is not None for layer in layers.values()):
        wrong.append(f"{min(routers)} is called a router where there are no experts")
    return wrong


@torch.no_grad()
def _perplexity_is_that_of_a_plain_loop(model) -> list[str]:
    windows = random_windows(3, 24, seed=3)
    losses = []
    for window in windows:
        logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
        losses += [-float(row.log_softmax(0)[token]) for row, token in zip(logits, window[1:], strict=True)]
    expected = math.exp(sum(losses) / len(losses))
    found = [perplexity(model, windows, precision="fp32").value]
    with patch.object(forward, "MOST_LOGITS", 1 << 11):  # as for a large vocabulary: some tokens at a time
        found.append(perplexity(model, windows, precision="fp32").value)
    return [
        f"perplexity {value} and not {expected}" for value in found if not math.isclose(value, expected, rel_tol=1e-4)
    ]


def _streamed_it_measures_the_same(model, directory: Path) -> list[str]:
    """Bit for bit, or it is refused with a sentence."""
    windows = random_windows(4, 12)
    try:
        streamed = load_model(str(directory / "model"), "cpu", stream=True).model
        found = window_losses(streamed, windows, precision="fp32")
    except ProxSparseError:
        return []
    same = torch.equal(found, window_losses(model, windows, precision="fp32"))
    return [] if same else ["streamed, it has other losses"]


def _inputs_are_seen(family: Family, model, layers) -> list[str]:
    scales = activation_scales(model, layers, random_windows(16, 48, seed=1), "fp32")
    family.unseen = len(scales.unseen)
    seen = {layers[name].parameter for name in layers if name not in scales.unseen}
    return [
        f"nothing was seen to enter {name}" for name in scales.unseen
        if "expert" not in name or layers[name].parameter not in seen
    ]  # fmt: skip


def _two_steps(model) -> tuple:
    config = LearnConfig(steps=2, batch=2, learning_rate=0.02, metric="activation", precision="fp32", memory="full")
    learner = MaskLearner(model, random_windows(8, 24, seed=2), config)
    reports = list(learner)
    masks, wrong = learner.masks(), []
    if not all(math.isfinite(report.loss) for report in reports):
        wrong.append("the loss is not finite")
    if not any(masks.flips(learner.start).values()):
        wrong.append("two steps changed no mask")
    return masks, wrong


@torch.no_grad()
def _exports(lm, masks, directory: Path) -> list[str]:
    wrong = []
    by_hand = load_model(lm.name, "cpu").model
    layers = prunable_layers(by_hand)
    for name, mask in masks.items():
        layers[name].matrix[~mask.dense()] = 0
    expected = _logits(by_hand)
    for form, load in (
        ("dense", AutoModelForCausalLM.from_pretrained),
        ("compact", lambda path: load_compact(path, "cpu").model),
    ):
        target = directory / form
        export_model(lm, masks, target, format=form)
        if not torch.equal(_logits(load(target).eval()), expected):
            wrong.append(f"{form}: other logits than those of the model that was masked by hand")
        wrong += [f"{form}: {what} was changed and verify says nothing" for what in _unnoticed(target, form)]
    return wrong


def _unnoticed(target: Path, form: str) -> list[str]:
    """Flips the lowest bit of one weight inside a masked layer, and of one elsewhere: `verify` tells them apart."""
    file = target / {"dense": "model.safetensors", "compact": "compact.safetensors"}[form]
    tensors, header = load_file(file), _metadata(file)
    floats = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point()}
    inside = [key for key in floats if key.endswith(".kept")] or [  # names on disk may differ from those in memory
        key for key, tensor in floats.items() if tensor.ndim > 1 and 0.45 < (tensor == 0).float().mean() < 0.6
    ]
    outside = [key for key in floats if key not in inside]
    for key in (inside[len(inside) // 2], *outside[len(outside) // 3 :][:1]):
        values = tensors[key].view(-1)
        place = int(values.abs().argmax())
        values[place : place + 1].view(torch.int32)[0] ^= 1
    save_file(tensors, file, header)
    found = verify(target)
    missed = ["a weight in a masked layer"] if sum(layer["changed_weights"] for layer in found.layers) != 1 else []
    return missed + ["a weight elsewhere"] * bool(outside and len(found.changed_elsewhere) < 1)


def _metadata(path: Path) -> dict:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


@torch.no_grad()
def _logits(model):
    return model(input_ids=random_windows(2, 24, seed=4), use_cache=False).logits


def _bits(model) -> dict:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(torch.nan_to_num(a[name]), torch.nan_to_num(b[name])) for name in a)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[-1 if "validator" in lines[0] else 0].split())
