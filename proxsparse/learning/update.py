"""What an update is: the gradient's half of a step, under one of two memory plans.

What a prunable weight takes, in bytes:

                        full                            lean
    soft weight         4   float32                     2   bf16, rounded stochastically
    gradient            4   all of them at once         0   of one parameter at a time: updated inside backward
    AdamW's moments     8   float32                     4   bf16, rounded stochastically
    original weight     2   of a bf16 model             2   of a bf16 model
    activations         of every block; with            of one block at a time: the others are computed again
                        `recompute` as in lean
    masked weight       2   bf16, where the loss is     0   made for one block at a time
                            taken there (float32: 4)

A masked weight has the dtype in which matrices are multiplied, see `Originals.under`.

So a bf16 model takes 20 bytes a prunable weight (18 with the loss at the soft weights), or 8. For Llama-2-7B (6.5 G
prunable weights) that is 130 GB, or 52 GB, which with 1.1 GB of checkpointed activations at context 4096 leaves room on
a card of 80 GB.

Several GPUs share every part of this out. They hold masked weights in both plans, because that is what they gather to compute a block, and
of the lean plan gradients as well, in bf16: 12 bytes a weight, on all of them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from proxsparse.config import LearnConfig
from proxsparse.layers import PrunableLayers
from proxsparse.layers.sharded import ShardedLayers
from proxsparse.learning.originals import LossWeight
from proxsparse.memory import available_bytes

# Of the table above, by plan, without the original weights; `masked` where the loss is taken there.
BYTES = {
    "full": {"soft": 4, "gradient": 4, "moments": 8, "masked": 2},
    "lean": {"soft": 2, "gradient": 0, "moments": 4, "masked": 0},
}
# Of a parameter that is not learned, beside its original, unless that is float32 already.
OTHERS = {"full": 4, "lean": 0}
# On several GPUs, in place of those of one. Besides, a GPU holds so many blocks whole, one that computes and one that is fetched ahead,
# with their gradients, in the dtype of the arithmetic, and everything outside the blocks in float32.
SHARED = {"full": {}, "lean": {"gradient": 2, "masked": 2}}
WHOLE_BLOCKS = 2
MASKS = 2 / 8  # a prunable weight: the masks at the start and of the last step, one bit each
ROOM = 0.8  # share of the free memory that weights and state may take; activations need the rest


class Taken(NamedTuple):
    """loss; norm of the whole gradient before clipping; seconds of the optimizer apart from backward."""

    loss: float
    gradient_norm: float
    seconds_optimizer: float


class Update(Protocol):
    """Turns the gradient of a loss into new soft weights, in place on the parameters.

    Attributes
    ----------
    memory
        The plan by which weights, gradients and moments are kept; a saved state goes on under the same one.
    optimizer
        Its `state` holds for every parameter that has had a gradient `step`, `exp_avg` and `exp_avg_sq`: they are saved.
    """

    memory: Literal["full", "lean"]
    optimizer: torch.optim.Optimizer

    def step(
        self, index: int, learning_rate: float, backward: Callable[[], float], loss_weight: LossWeight | None
    ) -> Taken:
        """Take the step with index `index` (0-based).

        `backward` runs forward and backward and returns the loss; it is called once, while the parameters hold the
        values of `loss_weight`, in its dtype (None: the soft weights). Where the loss or the gradient is not finite the weights stay
        finite, and what is returned tells. Afterwards no gradient is left and nothing is attached to the model, also
        after an exception.
        """


UpdateFactory = Callable[[nn.Module, dict[nn.Parameter, Tensor], LearnConfig], Update]
"""Makes an update from the model, {parameter: original values} and the configuration; gives the parameters their soft
weights in the dtype they are learned in."""


def choose_memory(
    config: LearnConfig, model: nn.Module, layers: PrunableLayers, device: torch.device
) -> Literal["full", "lean"]:
    """`full` or `lean`: what the configuration says, or for `auto` lean where a GPU has no room for full. Where several ranks share the
    model, all of them call it."""
    if config.memory != "auto":
        return config.memory
    if device.type != "cuda" or config.accumulation > 1 or config.precision == "fp32":
        return "full"
    prunable = sum(parameter.numel() for parameter in layers.parameters())
    needed = bytes_to_come("full", config.loss_at, layers) * prunable
    if not isinstance(layers, ShardedLayers):
        needed += OTHERS["full"] * (sum(parameter.numel() for parameter in model.parameters()) - prunable)
    too_much = torch.tensor(float(needed > ROOM * available_bytes(device)), device=device)
    return "lean" if layers.ranks.sum_(too_much) else "full"


def bytes_to_come(memory: str, loss_at: str, layers: PrunableLayers) -> int:
    """Bytes a prunable weight that a learner will take: of layers that several ranks share, masked weights are there already."""
    shared = isinstance(layers, ShardedLayers)
    there = bytes_by_kind(memory, loss_at, shared=True)["masked"] if shared else 0
    return learning_bytes(memory, loss_at, shared=shared) - there


def learning_bytes(memory: str, loss_at: str, arithmetic: int = 2, shared: bool = False) -> int:
    """Bytes that a prunable weight takes while it is learned, beside its original; see `bytes_by_kind`.

    >>> learning_bytes("full", "masked"), learning_bytes("full", "soft"), learning_bytes("lean", "masked")
    (18, 16, 6)
    >>> learning_bytes("full", "soft", shared=True), learning_bytes("lean", "soft", shared=True)
    (18, 10)
    """
    return sum(bytes_by_kind(memory, loss_at, arithmetic, shared).values())


def bytes_by_kind(memory: str, loss_at: str, arithmetic: int = 2, shared: bool = False) -> dict[str, int]:
    """BYTES of a plan, as the loss and the arithmetic have it. arithmetic: bytes of a number that is multiplied. shared: whether several
    GPUs share the weights, on all of which together a weight takes so many bytes."""
    found = BYTES[memory] | (SHARED[memory] if shared else {})
    masked = found["masked"] and (arithmetic if shared or loss_at == "masked" else 0)
    return found | {"masked": masked}
