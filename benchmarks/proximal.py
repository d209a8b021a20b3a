"""The proximal operator beside the reference algorithm, in one run: seconds, ratio, temporary memory, bandwidth.

python benchmarks/proximal.py [--json FILE] [--device cpu|cuda]

On a CPU: all prunable weights of the embedded model, float32. On a GPU: random bf16 matrices, and the share of the
measured copy bandwidth that one pass reaches. Medians; the reference runs once on a CPU, because it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reference import alternating_prox
from torch import Tensor

from proxsparse import load_model, prunable_layers
from proxsparse.masks.mask import Mask
from proxsparse.proximal.operator import prox_and_count_

STRENGTHS = (0.005, 0.02, 0.5)  # λ · RMS of the weights
GPU_SHAPES = ((4096, 4096), (28672, 8192))
REPEATS = 7


def root_mean_square(weight: Tensor) -> float:
    return weight.float().square().mean().sqrt().item()


def median_seconds(prepare: Callable, work: Callable, repeats: int, device: str) -> float:
    """Of `work(prepare())`; what is prepared is not timed."""
    seconds = []
    for _ in range(repeats):
        prepared = prepare()
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            work(prepared)
            end.record()
            torch.cuda.synchronize()
            seconds.append(begin.elapsed_time(end) / 1e3)
        else:
            started = time.perf_counter()
            work(prepared)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def peak_growth(work: Callable) -> int:
    """By how many bytes the memory of this process exceeds, during `work`, what it was before (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark is the present use from here on
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(entry: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) * 1024


def on_cpu() -> list[dict]:
    layers = prunable_layers(load_model("embedded", "cpu").model)
    originals = [layer.matrix for layer in layers.values()]
    weights = [original.float() for original in originals]
    masks = [Mask.project(weight) for weight in weights]
    sizes = [root_mean_square(weight) for weight in weights]
    total = sum(weight.numel() for weight in weights)
    soft = [weight.clone() for weight in weights]

    def fresh() -> list[Tensor]:
        for target, weight in zip(soft, weights, strict=True):
            target.copy_(weight)
        return soft

    def operator(strength: float, counting: bool) -> Callable:
        def work(matrices: list[Tensor]) -> None:
            for v, mask, original, size in zip(matrices, masks, originals, sizes, strict=True):
                about = (mask, mask, original) if counting else ()
                prox_and_count_(v, strength / size, 2, 4, None, *about)

        return work

    operator(STRENGTHS[-1], True)(fresh())  # compiles, or reads what was compiled before
    rows = []
    for strength in STRENGTHS:
        alone = median_seconds(fresh, operator(strength, False), REPEATS, "cpu")
        counted = median_seconds(fresh, operator(strength, True), REPEATS, "cpu")
        fresh()
        extra = peak_growth(lambda strength=strength: operator(strength, True)(soft))
        reference = median_seconds(
            fresh,
            lambda matrices, strength=strength: [
                alternating_prox(v, strength / size) for v, size in zip(matrices, sizes, strict=True)
            ],
            1,
            "cpu",
        )
        rows.append({
            "weights": f"embedded model, {total / 1e6:.0f} M, fp32", "λ·rms": strength, "reference, s": round(reference, 2),
            "ours, s": round(alone, 3), "with counts, s": round(counted, 3), "ratio": round(reference / alone),
            "temporaries, share of weights": round(extra / (4 * total), 4),
        })  # fmt: skip
    return rows


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a large copy on the GPU."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target, lambda to: to.copy_(source), 20, "cuda")
    return 2 * source.numel() / seconds


def on_gpu() -> list[dict]:
    bandwidth, rows = copy_bandwidth(), []
    for shape in GPU_SHAPES:
        weight = torch.randn(shape, device="cuda").mul_(0.02).bfloat16()
        mask, size, soft = Mask.project(weight), root_mean_square(weight), torch.empty_like(weight)
        for strength in STRENGTHS:
            lam = strength / size

            def fresh(weight=weight, soft=soft) -> Tensor:
                return soft.copy_(weight)

            def alone(v: Tensor, lam=lam) -> None:
                prox_and_count_(v, lam)

            def counting(v: Tensor, lam=lam, mask=mask, weight=weight) -> None:
                prox_and_count_(v, lam, 2, 4, None, mask, mask, weight)

            for work in (alone, counting):  # compile, and fill the allocator
                work(fresh())
            seconds = median_seconds(fresh, alone, 50, "cuda")
            counted = median_seconds(fresh, counting, 50, "cuda")
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            kept = prox_and_count_(fresh(), lam)
            extra = torch.cuda.max_memory_allocated() - before - kept.mask.packed.numel()
            reference = median_seconds(fresh, lambda v, lam=lam: alternating_prox(v, lam), 3, "cuda")
            moved, moved_counting = weight.numel() * (4 + 1 / 8), weight.numel() * (6 + 3 / 8)
            rows.append({
                "weights": f"{shape[0]}×{shape[1]}, bf16", "λ·rms": strength, "reference, ms": round(reference * 1e3, 2),
                "ours, ms": round(seconds * 1e3, 4), "with counts, ms": round(counted * 1e3, 4),
                "ratio": round(reference / seconds), "share of copy bandwidth": round(moved / seconds / bandwidth, 3),
                "with counts": round(moved_counting / counted / bandwidth, 3),
                "temporaries, share of weights": round(extra / (2 * weight.numel()), 4),
            })  # fmt: skip
    return rows


def machine(device: str) -> dict:
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    return {"device": name, "torch": torch.__version__}


def print_table(rows: list[dict]) -> None:
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    about = machine(arguments.device)
    print(", ".join(about.values()))
    rows = on_gpu() if arguments.device == "cuda" else on_cpu()
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
