"""What remembering the masks costs: share of a step, bytes a flip, milliseconds to read a layer at a step.

python benchmarks/history.py [--steps 12] [--batch 2] [--length 256] [--out RUN] [--json FILE]
python benchmarks/history.py --read assets/example-run      only the reading, of a run that is there

The embedded model, in a process that is set up as a run's worker is. Medians over the steps after the third, of seconds and
of processor seconds: those of a busy machine tell more. A flip is one weight that is kept and was dropped, or the other way
round; a group that changes its pattern counts two or more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from proximal import machine, print_table

from proxsparse import LearnConfig, LearnJob, MaskLearner, Run, load_model, load_windows
from proxsparse.files import write_json
from proxsparse.methods import magnitude
from proxsparse.runs.history.recorder import HistoryRecorder
from proxsparse.runs.history.watched import WatchedLearner
from proxsparse.runs.launch import KEEP_MEMORY
from proxsparse.runs.recorder import Recorder

WARM = 3
LOOKS = 20  # at layers spread over the model


class Clock:
    """Seconds and processor seconds spent while it is open, a pair each time."""

    def __init__(self):
        self.spent = []

    def __enter__(self):
        self.began = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.spent.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))

    def medians(self) -> tuple[float, float]:
        wall, processor = zip(*self.spent[WARM:], strict=True)
        return statistics.median(wall), statistics.median(processor)


def record(path: Path, steps: int, batch: int, length: int) -> dict:
    lm = load_model("embedded")
    text = load_windows("bundled", lm.tokenizer, length=length, context=512)
    job = LearnJob(learn=LearnConfig(steps=steps, batch=batch))
    run = Run.create(job, path)
    learner = MaskLearner(lm.model, text.calibration, job.learn)
    write_json(run.path / "layers.json", {"layers": learner.layers.describe(), "skipped": {}})
    recorder = Recorder(run)
    began = time.perf_counter()
    history = HistoryRecorder(recorder, WatchedLearner(learner, magnitude(lm.model).masks), job)
    first = time.perf_counter() - began
    step, after_gradient, after_prox, flips = Clock(), Clock(), Clock(), 0
    while not learner.done:
        with step:
            learner.gradient_step()
        gradient = step.spent.pop()
        with after_gradient:
            history.after_gradient()
        with step:
            flips += learner.prox_step().flips
        step.spent[-1] = tuple(a + b for a, b in zip(gradient, step.spent[-1], strict=True))
        with after_prox:
            history.after_prox()
    (wall, processor), tile, rest = step.medians(), after_gradient.medians(), after_prox.medians()
    sizes = history.frames.part_bytes()
    blocks = len(history.layout.blocks)
    changes, tiles = sizes[1 : 1 + blocks].sum(), sizes[1 + blocks :].sum()
    return {
        "step, s": round(wall, 3), "history, ms": round(1e3 * (tile[0] + rest[0]), 1),
        "share of a step": f"{(tile[0] + rest[0]) / wall:.2%}",
        "share of processor time": f"{(tile[1] + rest[1]) / processor:.2%}", "once, before the first step, s": round(first, 2),
        "flips": f"{flips:,}", "bytes a flip": round(changes / flips, 2), "flips, MB": round(changes / 1e6, 2),
        "tiles, MB": round(tiles / 1e6, 2), "summaries, MB": round(sizes[0] / 1e6, 2),
        "masks, MB": round((history.directory / "masks.safetensors").stat().st_size / 1e6, 2),
    }  # fmt: skip


def read(run: Run) -> dict:
    names = run.history().layers
    chosen = names[:: max(1, len(names) // LOOKS)]
    last = run.history().steps[-1]

    def milliseconds(look) -> str:
        spent = []
        for name in chosen:
            began = time.perf_counter()
            look(name)
            spent.append(1e3 * (time.perf_counter() - began))
        return f"{statistics.median(spent):.1f}, at most {max(spent):.1f}"

    return {
        "run": run.id, "steps": last, "open, ms": milliseconds(lambda _: run.history()),
        "mask, ms": milliseconds(lambda name: run.mask(name, last)), "flips, ms": milliseconds(run.flips),
        "tile, ms": milliseconds(run.tile), "patterns, ms": milliseconds(run.patterns),
        "magnitude mask, ms": milliseconds(lambda name: run.reference_mask(name, "magnitude")),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--out", type=Path, help="keep the run in this directory")
    parser.add_argument("--read", type=Path, metavar="RUN", help="record nothing: only read this run")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.steps <= WARM:
        parser.error(f"steps is {arguments.steps}: give more than the {WARM} that warm up")
    if not KEEP_MEMORY.items() <= os.environ.items():  # they are read when a process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    about = machine("cuda" if torch.cuda.is_available() else "cpu")
    print(", ".join(about.values()), flush=True)
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.read or arguments.out or Path(folder) / "run"
        if not arguments.read:
            tables.append([record(path, arguments.steps, arguments.batch, arguments.length)])
            print_table(tables[0])
            print()
        tables.append([read(Run(path))])
    print_table(tables[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(about | {"tables": tables}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
