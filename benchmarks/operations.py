"""Where a training step of the embedded model goes, by kind of torch operation: the default settings, one step under torch's profiler.

python benchmarks/operations.py [--batch 3] [--length 256] [--json FILE]

What an operation is for is told by the shapes that enter it: the vocabulary occurs in the LM head and the loss alone, and two equal
lengths in the attention alone. The profiler itself takes time, so that the shares are to be read, not the seconds.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from proximal import machine, print_table
from torch.profiler import ProfilerActivity, profile

from proxsparse import LearnConfig, MaskLearner, load_model

PRODUCTS = ("aten::mm", "aten::addmm")
BATCHED = ("aten::bmm", "aten::baddbmm")
WARM = 2


def kind(operation: str, shapes: list[list[int]], vocabulary: int, length: int) -> str:
    sizes = [size for shape in shapes for size in shape]
    if vocabulary in sizes:
        return "LM head" if operation in PRODUCTS else "loss"
    if operation in BATCHED or any(shape[-2:] == [length, length] for shape in shapes if len(shape) > 2):
        return "attention"
    if operation in PRODUCTS:
        return "linear maps"
    return "optimizer" if "adam" in operation else "everything else"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    lm = load_model("embedded")
    windows = lm.windows("mixed", arguments.length).calibration
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with MaskLearner(lm.model, windows, LearnConfig(batch=arguments.batch, metric_windows=2)) as learner:
        for _ in range(WARM):
            learner.step()
        with profile(activities=activities, record_shapes=True) as profiled:
            report = learner.step()
    vocabulary = lm.model.get_input_embeddings().weight.shape[0]
    spent: Counter[str] = Counter()
    for event in profiled.key_averages(group_by_input_shape=True):
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        spent[kind(event.key, event.input_shapes, vocabulary, arguments.length)] += own
    about = machine("cuda" if cuda else "cpu") | {"tokens a step": str(arguments.batch * arguments.length)}
    shares = {name: round(time / spent.total(), 3) for name, time in spent.most_common()}
    operator = round(report.seconds_prox / report.seconds, 3)
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    print_table([{"kind": name, "share": f"{share:.1%}"} for name, share in shares.items()])
    print(f"The proximal operator, which is no operation of torch, takes {operator:.1%} of the step.")
    if arguments.json:
        found = about | {"shares": shares, "proximal operator, of the step": operator}
        arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
