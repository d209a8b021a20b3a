"""On which device each process of a run computes."""

from __future__ import annotations

import torch

from proxsparse.errors import ProxSparseError


def devices_of_processes(asked: str | None, count: int) -> list[str]:
    """The device of each of `count` processes on this machine: a GPU of its own; the CPU for all where there is none, or it was asked
    for. Raises ProxSparseError where there are fewer GPUs."""
    if asked == "cpu" or not torch.cuda.is_available():
        return ["cpu"] * count
    there = torch.cuda.device_count()
    if count > there:
        raise ProxSparseError(
            f"launch is {count} and this machine has {there} GPUs: resume with --launch {there}, or fewer."
        )
    return [f"cuda:{number}" for number in range(count)]
