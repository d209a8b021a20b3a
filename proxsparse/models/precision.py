"""In which arithmetic a model runs forward and backward; weights keep their own dtype."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from proxsparse.errors import ProxSparseError


def autocast(device: torch.device, precision: str = "auto"):
    """A context for forward passes on `device`: bf16 autocast, or nothing for fp32.

    precision: `fp32`, `bf16`, or `auto`, which takes bf16 where the device multiplies it in hardware: CUDA of compute
    capability 8.0 and above, CPUs with AVX512-BF16 or AMX.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ProxSparseError(f"precision is {precision!r}: choose one of auto, fp32, bf16.")
    if precision == "bf16" or (precision == "auto" and multiplies_bf16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def multiplies_bf16(device: torch.device) -> bool:
    """Whether `device` has bf16 matrix products in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
