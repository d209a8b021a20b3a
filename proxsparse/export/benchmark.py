"""Dense against sparse on this machine's GPU: every distinct layer shape of a 2:4 model, then the whole model.

Without a GPU that has the kernels: what arithmetic says, and the sentence that nothing was measured.
"""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.benchmark import Timer

from proxsparse.errors import ProxSparseError
from proxsparse.export import acceleration
from proxsparse.export.acceleration import CAPABILITY, DTYPES, Accelerator, M, N, accelerate, groups_not_two_four, plan
from proxsparse.layers import prunable_layers
from proxsparse.models.language_model import LanguageModel, dtype_name, resolve_device
from proxsparse.models.load import load_model
from proxsparse.progress import Progress, no_progress

TIMED_SECONDS = 0.2  # of each product, after which the median is taken
REPEATS = 5  # of a prefill, and of a decode
NO_DIFFERENCE = 0.02  # a ratio nearer to 1 than this is noise
# Largest difference allowed, in units of the dtype's epsilon and of the largest dense output. Both kernels add up in
# float32 and round once: a layer may differ by a few roundings, and a model carries them through its layers.
LAYER_TOLERANCE, MODEL_TOLERANCE = 4, 8
INDEX_BITS = 2  # that a kept weight's place in its group takes


def bench_model(
    name: str,
    rows: Sequence[int] = (1, 16, 256, 4096),
    context: int = 512,
    new_tokens: int = 32,
    device: str | None = None,
    progress: Progress = no_progress,
) -> dict:
    """Measure the 2:4 model `name` (what `load_model` takes) dense and sparse.

    rows: how many tokens enter a layer at once. context: tokens of the prefill; new_tokens: single ones decoded after
    it. device: default cuda where there is one. Returns {"model", "dtype", "rounded_from", "device", "backend",
    "measured", "shapes", "layers", "end_to_end", "tolerance", "equal", "summary"}; times are medians in seconds, speedup is dense / sparse,
    error the largest difference relative to the largest dense output. Raises ProxSparseError for a model that is not
    2:4, and for numbers that make no sense.
    """
    for what, values in (("rows", rows), ("context", [context]), ("new-tokens", [new_tokens])):
        if not values or min(values) < 1:
            raise ProxSparseError(f"{what} is {min(values, default='empty')}: give 1 or more.")
    place = resolve_device(device)
    accelerator = Accelerator.of(place)
    unusable = accelerator.obstacle()
    lm = load_model(name, "cpu" if unusable else str(place))
    if context + new_tokens > lm.context:
        raise ProxSparseError(
            f"context is {context} and new-tokens {new_tokens}: the model reads at most {lm.context} tokens together."
        )
    require_two_four(lm.model, name)
    stored = lm.model.dtype
    cast_for_kernels(lm.model)
    dtype = lm.model.dtype
    shapes = shapes_on_paper(lm.model, Accelerator("cuda", CAPABILITY) if unusable else accelerator)
    result = {
        "model": name, "dtype": dtype_name(dtype), "rounded_from": None if stored == dtype else dtype_name(stored),
        "device": str(place), "backend": None, "measured": unusable is None, "shapes": shapes, "layers": [],
        "end_to_end": [],
        "tolerance": {part: units * torch.finfo(dtype).eps
                      for part, units in (("layer", LAYER_TOLERANCE), ("model", MODEL_TOLERANCE))},
        "equal": None,
    }  # fmt: skip
    if unusable is not None:
        why = "this machine has no CUDA GPU" if not torch.cuda.is_available() else unusable
        result["summary"] = (
            f"Nothing was measured: {why}, and the sparse kernels need one of compute capability 8.0 or above. The table "
            "is arithmetic and no timing."
        )
        return result
    try:
        result["layers"] = time_layers(lm.model, accelerator, rows, shapes, progress)
        if result["layers"]:
            result["end_to_end"] = time_model(lm, context, new_tokens, progress)
    except torch.cuda.OutOfMemoryError:
        raise ProxSparseError(
            f"{name} does not fit into the memory of {place} with {max(rows)} rows and context {context}: give fewer."
        ) from None
    result |= {"backend": accelerator.backend, "device": device_name(place)}
    return result | _verdict(result)


def require_two_four(model, name: str) -> None:
    """Raise ProxSparseError unless at least one layer of `model` is 2:4."""
    first = None
    for layer in prunable_layers(model, M).values():
        bad = groups_not_two_four(layer.matrix)
        if not bad:
            return
        first = first or f"{bad:,} of {layer.numel // M:,} groups of {layer.name} keep more than {N} weights"
    raise ProxSparseError(
        f"{name} is not 2:4 ({first}, and no other layer is 2:4 either): give a directory that `proxsparse "
        "export RUN --to DIR` wrote for a run with 2:4, 1:2 or 1:4 masks."
    )


def cast_for_kernels(model) -> None:
    """Round the parameters to bfloat16, in place, unless they have a dtype that the kernels take."""
    if model.dtype not in DTYPES:
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)


def shapes_on_paper(model, accelerator: Accelerator) -> list[dict]:
    """One dict a distinct layer shape: bytes of one such layer dense and sparse (kept values and 2 bits for the place of
    each), multiply-adds of one token, how many layers there are, and why no kernel of `accelerator` takes them ("" where one does)."""
    found: dict[tuple, dict] = {}
    for layer, reason in plan(model, accelerator):
        matrix = layer.matrix
        shape = (layer.out_features, layer.in_features, reason)
        if shape not in found:
            kept = matrix.numel() * N // M
            dense, sparse = matrix.nbytes, kept * matrix.element_size() + kept * INDEX_BITS // 8
            found[shape] = {
                "rows": shape[0], "columns": shape[1], "example": layer.name, "layers": 0, "dense_bytes": dense,
                "sparse_bytes": sparse, "ratio": sparse / dense, "dense_multiply_adds": matrix.numel(),
                "sparse_multiply_adds": kept, "reason": reason or "",
            }  # fmt: skip
        found[shape]["layers"] += 1
    return list(found.values())


@torch.no_grad()
def time_layers(
    model,
    accelerator: Accelerator,
    rows: Sequence[int],
    shapes: list[dict],
    progress: Progress = no_progress,
) -> list[dict]:
    """One dict a distinct shape that the kernels take and a number of rows; the first layer of each shape stands for
    all. shapes: as `shapes_on_paper` gives them; where torch refuses one, its reason is put there."""
    weights: dict[tuple[int, int], Tensor] = {}
    for layer, reason in plan(model, accelerator):
        if reason is None:
            weights.setdefault((layer.out_features, layer.in_features), layer.matrix)
    found = []
    for index, ((out_features, in_features), weight) in enumerate(weights.items()):
        progress(index, len(weights), f"timing {out_features} × {in_features}")
        try:
            sparse = acceleration.compress(weight, accelerator)
        except acceleration.REFUSALS as error:
            for shape in shapes:
                if (shape["rows"], shape["columns"], shape["reason"]) == (out_features, in_features, ""):
                    shape["reason"] = acceleration.refusal(error)
            continue
        generator = torch.Generator(weight.device).manual_seed(0)
        for count in rows:
            inputs = torch.randn(count, in_features, device=weight.device, dtype=weight.dtype, generator=generator)
            found.append(
                {"rows": out_features, "columns": in_features, "tokens": count}
                | _compared(median_seconds(inputs, weight), median_seconds(inputs, sparse))
                | {"error": largest_difference(linear(inputs, sparse), linear(inputs, weight))}
            )
    return found


def median_seconds(inputs: Tensor, weight: Tensor) -> float:
    """Of one product as Python calls it, the time to launch it included."""
    timer = Timer("linear(inputs, weight)", globals={"linear": linear, "inputs": inputs, "weight": weight})
    return timer.blocked_autorange(min_run_time=TIMED_SECONDS).median


def time_model(lm: LanguageModel, context: int, new_tokens: int, progress: Progress = no_progress) -> list[dict]:
    """Prefill of `context` tokens and decoding of one token, batch 1, dense and then accelerated: `lm.model` stays so.

    Both decode the same random tokens, so that their logits can be compared.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = lm.model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (1, context + new_tokens), generator=generator).to(lm.model.device)
    progress(0, 2, "timing the dense model")
    dense = _prefill_and_decode(lm.model, ids, context)
    report = accelerate(lm.model)
    progress(1, 2, "timing the sparse model")
    sparse = _prefill_and_decode(lm.model, ids, context)
    return [
        {"part": part, "tokens": tokens, "accelerated": len(report.accelerated), "layers": len(report.layers)}
        | _compared(dense[part][0], sparse[part][0])
        | {"error": largest_difference(sparse[part][1], dense[part][1])}
        for part, tokens in (("prefill", context), ("decode", 1))
    ]


@torch.no_grad()
def _prefill_and_decode(model, ids: Tensor, context: int) -> dict[str, tuple[float, Tensor]]:
    """{"prefill" and "decode": (median seconds of the pass and of one token, logits of the last pass)}."""
    takes = inspect.signature(model.forward).parameters
    cache_name = "cache" if "cache" in takes else "past_key_values"  # what earlier transformers call it
    prefills, decodes = [], []
    for _ in range(REPEATS + 1):
        started = _now(ids.device)
        output = model(ids[:, :context], use_cache=True)
        prefills.append(_now(ids.device) - started)
        first, cache = output.logits, output.past_key_values
        started = _now(ids.device)
        for position in range(context, ids.shape[1]):
            output = model(ids[:, position : position + 1], use_cache=True, **{cache_name: cache})
        decodes.append((_now(ids.device) - started) / (ids.shape[1] - context))
    return {  # the first of each warms up
        "prefill": (statistics.median(prefills[1:]), first),
        "decode": (statistics.median(decodes[1:]), output.logits),
    }


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """max |found − expected| / max |expected|."""
    difference = (found.float() - expected.float()).abs().max()
    return (difference / expected.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny)).item()


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"


def _compared(dense: float, sparse: float) -> dict:
    ratio = dense / sparse
    verdict = "no difference" if abs(ratio - 1) < NO_DIFFERENCE else "faster" if ratio > 1 else "slower"
    return {"dense_seconds": dense, "sparse_seconds": sparse, "speedup": ratio, "verdict": verdict}


def _verdict(result: dict) -> dict:
    """{"equal": whether every error is within its tolerance, "summary": what was found, in plain sentences}."""
    layers, whole, tolerance = result["layers"], result["end_to_end"], result["tolerance"]
    if not layers:
        reasons = "; ".join(sorted({shape["reason"] for shape in result["shapes"] if shape["reason"]}))
        return {"measured": False, "summary": f"Nothing was measured: no layer can be accelerated ({reasons})."}
    wrong = [entry for entry in layers if not entry["error"] <= tolerance["layer"]]
    wrong += [entry for entry in whole if not entry["error"] <= tolerance["model"]]
    slower = [entry for entry in layers if entry["verdict"] == "slower"]
    sentences = [
        f"Sparse is slower in {len(slower)} of {len(layers)} lines" if slower else "Sparse is slower in no line"
    ]
    if slower:
        lines = ", ".join(f"{entry['rows']} × {entry['columns']} with {_rows(entry['tokens'])}" for entry in slower[:6])
        sentences[0] += f" ({lines}{', …' if len(slower) > 6 else ''})"
    sentences += [
        f"{entry['part']} is {entry['speedup']:.2f} times as fast as dense"
        + (", which is slower" if entry["verdict"] == "slower" else "")
        for entry in whole
    ]
    largest = max(entry["error"] for entry in layers)
    if wrong:
        agreement = f"{len(wrong)} outputs differ from the dense ones by more than the tolerance: do not use this"
    else:
        agreement = f"every output equals the dense one within the tolerance (largest error of a layer {largest:.2g})"
    return {"equal": not wrong, "summary": "; ".join([*sentences, agreement]) + "."}
