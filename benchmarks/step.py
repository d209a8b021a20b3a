"""Where a training step of the embedded model goes, under one change at a time, in one run.

python benchmarks/step.py [--steps 12] [--batch 2] [--length 256] [--variants NAME …] [--json FILE]

Each variant is a process of its own, started as a run's worker is. Medians over the steps after the third. On a GPU
`--variants full --steps 400 --batch 8` is 400 steps of 2048 tokens; the total is printed beside the median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from proximal import machine, print_table

from proxsparse import LearnConfig, MaskLearner, load_model, load_windows
from proxsparse.memory import peak_bytes
from proxsparse.models import forward
from proxsparse.runs.launch import KEEP_MEMORY

WARM = 3


@dataclass(frozen=True)
class Variant:
    """What differs from a run's worker with default settings."""

    settings: dict = field(default_factory=dict)
    keep_memory: bool = True
    compiled: bool = False
    fused_attention: bool = False


VARIANTS = {
    "full": Variant(),
    "full, memory given back": Variant(keep_memory=False),
    "fp32 arithmetic": Variant({"precision": "fp32"}),
    "lean": Variant({"memory": "lean"}),
    "blocks compiled": Variant(compiled=True),
    "fused attention": Variant(fused_attention=True),
}


def measure(variant: Variant, steps: int, batch: int, length: int) -> dict:
    lm = load_model("embedded")
    if variant.fused_attention:
        forward.SHORT = 0
    text = load_windows("bundled", lm.tokenizer, length=length, context=512)
    settings = {"steps": steps, "batch": batch, "metric_windows": 2} | variant.settings
    learner = MaskLearner(lm.model, text.calibration, LearnConfig(**settings))
    if variant.compiled:
        for block in lm.model.model.layers:
            block.compile()
    started, reports = time.perf_counter(), []
    while not learner.done:
        reports.append(learner.step())
    total = time.perf_counter() - started
    warm = reports[WARM:]

    def median(name: str) -> float:
        return statistics.median(getattr(report, name) for report in warm)

    seconds = median("seconds")
    return {
        "step, s": round(seconds, 3), "forward + backward, s": round(median("seconds_gradient"), 3),
        "optimizer": f"{median('seconds_optimizer') / seconds:.1%}", "prox": f"{median('seconds_prox') / seconds:.1%}",
        "report": f"{median('seconds_report') / seconds:.1%}", "first step, s": round(reports[0].seconds, 1),
        f"all {steps} steps, s": round(total, 1), "peak memory, GB": round(peak_bytes(learner.device) / 1e9, 2),
        "loss": round(reports[-1].loss, 3),
    }  # fmt: skip


def in_a_process(name: str, arguments: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--one", name]
    for flag in ("steps", "batch", "length"):
        command += [f"--{flag}", str(getattr(arguments, flag))]
    environment = os.environ | (KEEP_MEMORY if VARIANTS[name].keep_memory else {})
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return {"variant": name, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--one", choices=list(VARIANTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps <= WARM:
        parser.error(f"steps is {arguments.steps}: give more than the {WARM} that warm up")
    if arguments.one:
        print(json.dumps(measure(VARIANTS[arguments.one], arguments.steps, arguments.batch, arguments.length)))
        return
    about = machine("cuda" if torch.cuda.is_available() else "cpu")
    about["tokens a step"] = str(arguments.batch * arguments.length)
    print(", ".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    rows = [in_a_process(name, arguments) for name in arguments.variants]
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
