"""Memory: the most that a piece of work used, of the GPU or of this process, and what is left."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import sys
from pathlib import Path

import torch

_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMORY = Path("/proc/meminfo")
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h


def begin_peak(device: torch.device) -> None:
    """Let `peak_bytes` count from here, where the system can: on GPUs, and on Linux. What was freed before is given back
    first, or it would count as used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif _REFERENCES.exists():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        _REFERENCES.write_text("5")


def give_back_at_once(bytes: int = 1 << 20) -> None:
    """Let the C library give every piece of memory of at least so many bytes back as soon as it is freed, where it is glibc: by default it
    keeps pieces of up to 32 MB, and small ones between them that stay hold on to all of it."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, bytes)


def peak_bytes(device: torch.device) -> int:
    """The most memory in use, model included, since `begin_peak`, or since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes(device: torch.device) -> float:
    """What can still be allocated on the device; inf where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if _MEMORY.exists():
        line = next((line for line in _MEMORY.read_text().splitlines() if line.startswith("MemAvailable")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    return math.inf
