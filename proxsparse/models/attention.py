"""How attention is computed while the learner differentiates."""

from __future__ import annotations

from contextlib import contextmanager

import torch

SHORT = 512  # tokens; beyond, the scores of all pairs of tokens are large


@contextmanager
def quick_attention(model, device: torch.device, length: int):
    """While open, a model on a CPU multiplies the attention of short windows out, instead of torch's fused kernel.

    A step of 4 × 128, 2 × 256 or 1 × 512 tokens of the embedded model then takes about 0.8 of the time: see
    benchmarks/step.py. On GPUs, for longer windows and other implementations nothing changes.
    """
    before = model.config._attn_implementation
    if device.type != "cpu" or length > SHORT or before != "sdpa":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
