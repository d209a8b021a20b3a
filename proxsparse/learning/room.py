"""Whether the machine has room for what is to be learned: known before the first step, in a sentence that names the way out."""

from __future__ import annotations

import torch
from torch import nn

from proxsparse.config import LearnConfig
from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayers
from proxsparse.layers.ranks import Ranks
from proxsparse.layers.sharded import ShardedLayers
from proxsparse.learning.update import bytes_to_come, choose_memory
from proxsparse.memory import available_bytes

INPUT_BYTES = 2  # of an activation under bf16 autocast


def check_room(config: LearnConfig, model: nn.Module, layers: PrunableLayers, length: int) -> None:
    """Raise ProxSparseError where learning would certainly need more memory than is free.

    What is counted is a lower bound: soft weights, gradients and moments, and what one forward pass keeps for the backward
    pass, of which only the inputs of the linear maps are counted.

    Parameters
    ----------
    length : int
        Tokens in a calibration window.
    """
    if config.offload and not isinstance(layers, ShardedLayers):
        raise ProxSparseError(
            "offload is for several processes that share a model: leave it out, or start several (--launch)."
        )
    device, home = next(model.parameters()).device, next(iter(layers.parameters())).device
    plan, free = choose_memory(config, model, layers, home), _free_bytes(home, layers.ranks)
    weights = sum(parameter.numel() for parameter in layers.parameters())
    learned = bytes_to_come(plan, config.loss_at, layers) * weights
    if learned > free:
        lean = ", or memory lean" if plan == "full" and config.accumulation == 1 else ""
        lean += ", more processes, or offload" if layers.ranks.count > 1 and not config.offload else ""
        raise ProxSparseError(
            f"Learning {weights:,} weights takes {learned / 1e9:.1f} GB beside the model and {free / 1e9:.1f} GB are free: choose "
            f"a smaller model{lean}."
        )
    left = free - learned if device == home else _free_bytes(device, layers.ranks)
    kept, ranks = least_pass_bytes(layers, plan == "lean" or config.recompute, length), layers.ranks.count
    batch = -(-config.batch // ranks)
    if batch * kept > left:
        most = int(left // kept) * ranks
        way_out = f"set batch to {most} or less" if most else "choose shorter windows or a smaller model"
        if plan == "full" and not config.recompute:
            way_out += ", or recompute"
        raise ProxSparseError(
            f"A pass over {batch} windows of {length} tokens keeps at least {batch * kept / 1e9:.1f} GB for its "
            f"backward half and {left / 1e9:.1f} GB are free: {way_out}."
        )


def _free_bytes(device: torch.device, ranks: Ranks) -> float:
    """What each rank may take of a device."""
    return available_bytes(device) / (ranks.on_this_machine if device.type == "cpu" else 1)


def least_pass_bytes(layers: PrunableLayers, recompute: bool, tokens: int) -> int:
    """What a pass keeps for its backward half at least: the inputs of the linear maps; where blocks are computed again, of one block."""
    return INPUT_BYTES * tokens * _inputs_of_a_token(layers, recompute)


def _inputs_of_a_token(layers: PrunableLayers, recompute: bool) -> int:
    """How many numbers enter the linear maps for each token, at least: of several experts only one's, of maps of one width in
    a block only one's, since they may share their input."""
    widths: dict[int, set[int]] = {}
    for layer in layers.values():
        widths.setdefault(layer.block, set()).add(layer.in_features)
    blocks = [sum(block) for block in widths.values()]
    return max(blocks, default=0) if recompute else sum(blocks)
