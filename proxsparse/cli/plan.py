"""`plan`: what learning takes on given GPUs, as a table, before anything is loaded."""

from __future__ import annotations

import argparse
import dataclasses
import json

from proxsparse.cli.settings import add_settings
from proxsparse.config import LearnConfig, LearnJob, absolute
from proxsparse.settings import given_settings

COUNTED = (
    "batch",
    "accumulation",
    "distill",
    "recompute",
    "offload",
    "steps",
    "precision",
    "n",
    "m",
)  # settings of the learner that a plan depends on
COLUMNS = {
    "originals": "originals", "soft": "soft", "gradients": "gradients", "moments": "moments", "masked": "masked", "masks": "masks",
    "other": "other", "activations": "activations", "logits": "logits", "whole": "whole blocks",
}  # fmt: skip

HOST = "machine's memory"
GPUS_IN_LEARN = "--gpus N is `--launch N` of `proxsparse learn`"

NOTES = (
    "B/weight, masks: a prunable weight takes so many bytes, with two masks of one bit a weight",
    "activations: what a pass keeps, counted by running it on shapes alone: full, of all blocks; lean, or with --recompute, inputs of all "
    "blocks and one block",
    "total: gradients come while activations and logits go, and the most of these at once counts, not their sum",
    "whole blocks: two blocks with their gradients, embedding and head, gathered from all GPUs",
    "not counted: CUDA itself, workspaces of kernels, fragmentation; `barely`: above 90% of the memory",
)


def add_plan(add, add_json) -> None:
    verb = add(
        "plan", plan, "say whether a model can be learned on given GPUs, from its configuration alone",
        "proxsparse plan org/model --gpus 8 --gpu-memory 80 --length 4096 --batch 1",
    )  # fmt: skip
    verb.add_argument(
        "model", metavar="MODEL", help="embedded, a Hub id, a directory, or a config.json; no weights are read"
    )
    verb.add_argument("--gpus", type=int, default=1, metavar="N", help="how many GPUs there are (default 1)")
    verb.add_argument("--gpu-memory", type=float, required=True, metavar="GB", help="of each GPU, in GB (10⁹ bytes)")
    verb.add_argument(
        "--memory", choices=("full", "lean"), help="the memory plan, as for `learn` (default: a row for each)"
    )
    verb.add_argument("--loss-at", choices=("masked", "soft"), help="as for `learn` (default: a row for each)")
    verb.add_argument(
        "--tflops", type=float, metavar="FLOAT",
        help="10¹² floating-point operations a second that a GPU sustains: a step is then told in seconds, by arithmetic",
    )  # fmt: skip
    add_settings(verb, LearnJob, "the job", without=_all_but(LearnJob, ("length",)))
    add_settings(verb, LearnConfig, "the learner", without=_all_but(LearnConfig, COUNTED))
    add_json(verb)


def _all_but(config: type, named: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(config) if field.name not in named)


def plan(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    job = LearnJob(
        learn=LearnConfig(**given_settings(LearnConfig, {name: given[name] for name in COUNTED if name in given})),
        **given_settings(LearnJob, {"length": given["length"]} if "length" in given else {}),
    )
    from proxsparse.planning.plan import plan_learning

    choices = {"memory_plans": arguments.memory, "losses": arguments.loss_at}
    found = plan_learning(
        absolute(arguments.model), arguments.gpus, arguments.gpu_memory, job.learn, job.length,
        **{name: (choice,) for name, choice in choices.items() if choice}, tflops=arguments.tflops,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps(found))
    else:
        _show(found)
    return 0


def _show(found: dict) -> None:
    rows = found["rows"]
    _model(found["model"])
    print(
        f"\nGB (10⁹ bytes) on each GPU, of {found['memory_gb']:g}: {found['batch']} × {found['length']} tokens in a pass of "
        f"all of them, multiplied in {found['arithmetic']}"
    )
    _table(rows)
    print("\n".join(NOTES))
    if any(row["host"] for row in rows):
        print(f"{HOST}: for each GPU; a machine with 8 GPUs takes eight times as much")
    if any(row["least"] for row in rows):
        print(
            "activations here: only the inputs of the linear maps, a lower bound; this family does not run on shapes alone"
        )
    print()
    for row in rows:
        if row["fits"] == "no":
            ways = " or ".join(row["instead"]) or "nothing that was tried, up to 256 GPUs: choose a smaller model"
            print(f"does not fit: {row['memory']}, loss at {row['loss_at']}, GPUs {row['gpus']}; what would: {ways}")
    _in_learn(rows)
    _speed(found["step"])
    _kernels(found["kernels"])


def _in_learn(rows: list[dict]) -> None:
    """What `learn` calls the one proposed flag that has another name there."""
    if any("--gpus" in way.split() for row in rows for way in row["instead"]):
        print(GPUS_IN_LEARN)


def _model(model: dict) -> None:
    print(
        f"{model['name']}: {model['kind']} in {model['dtype']}, {_many(model['parameters'])} parameters, of them "
        f"{_many(model['prunable'])} prunable in {model['layers']:,} layers"
    )
    print(f"dense: {_many(model['outside_blocks'])} outside the decoder blocks; in them norms and biases")
    for reason, count in model["dense_in_blocks"].items():
        print(f"dense: {count:,} in the blocks ({reason})")


def _table(rows: list[dict]) -> None:
    shown = [name for name in COLUMNS if any(row["parts"][name] for row in rows)]
    host = [HOST] if any(row["host"] for row in rows) else []
    head = ["plan", "loss at", "GPUs", "B/weight", *(COLUMNS[name] for name in shown), "total", "fits", *host]
    lines = [
        [row["memory"], row["loss_at"], str(row["gpus"]), f"{row['bytes_a_weight']:g}",
         *(_gigabytes(row["parts"][name]) for name in shown), _gigabytes(row["total"]), row["fits"],
         *(_gigabytes(row["host"]) for _ in host)]
        for row in rows
    ]  # fmt: skip
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    for line in [head, *lines]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _speed(steps: list[dict]) -> None:
    for step in steps:
        line = f"a step, {step['memory']}: {step['flops'] / 1e12:,.1f} · 10¹² floating-point operations on each GPU"
        if step["seconds"] is not None:
            hours = step["seconds"] * step["steps"] / 3600
            line += f", {step['seconds']:,.2f} s at {step['tflops']:g} TFLOP/s; {step['steps']:,} steps: {hours:,.2f} h"
        print(line)
    print("this is arithmetic, nothing was measured" + ("" if steps[0]["tflops"] else "; --tflops N makes it seconds"))


def _kernels(kernels: dict) -> None:
    line = f"torch's 2:4 kernels (CUDA, compute capability 8.0 or above) could run {kernels['layers']:,} of {kernels['of']:,} layers"
    if kernels["bound"]:
        share, speedup = kernels["bound"]["share"], kernels["bound"]["speedup"]
        line += f", {share:.0%} of the multiply-adds: at most {speedup:.2f} times as fast, in theory"
    print(line)
    for reason, count in kernels["reasons"].items():
        print(f"  {count:,} not: {reason}")


def _many(count: int) -> str:
    return f"{count / 1e9:,.2f} G" if count >= 1e9 else f"{count / 1e6:,.1f} M"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f}" if size >= 1e9 else f"{size / 1e9:.2f}"
