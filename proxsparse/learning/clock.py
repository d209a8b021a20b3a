"""The time, once a GPU has done what it was given."""

from __future__ import annotations

import time

import torch


def clock(device: torch.device) -> float:
    """Seconds of a monotonic clock, after all work on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
