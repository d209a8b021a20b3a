"""The gradient's half of a step, under two memory plans. What a prunable weight takes, in bytes:

                        full                            lean
    soft weight         4   float32                     2   bf16, rounded stochastically
    gradient            4   all of them at once         0   of one parameter at a time: updated inside backward
    AdamW's moments     8   float32                     4   bf16, rounded stochastically
    original weight     2   of a bf16 model             2   of a bf16 model
    activations         of every block                  of one block at a time: the others are computed again
    masked weight       4   float32, where the loss     0   made for one block at a time
                            is taken there

So a bf16 model takes 22 bytes a prunable weight (18 with the loss at the soft weights), or 8. For Llama-2-7B (6.5 G
prunable weights) that is 143 GB, or 52 GB, which with 1.1 GB of checkpointed activations at context 4096 leaves room on
a card of 80 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from proxsparse.config import LearnConfig
from proxsparse.layers import PrunableLayers, decoder_blocks
from proxsparse.learning.schedule import seed_at
from proxsparse.learning.stochastic_adamw import StochasticAdamW

ROOM = 0.8  # share of the free memory that weights and state may take; activations need the rest


def choose_memory(config: LearnConfig, model, layers: PrunableLayers, device: torch.device) -> str:
    """`full` or `lean`: what the configuration says, or for `auto` lean where a GPU has no room for full."""
    if config.memory != "auto":
        return config.memory
    if device.type != "cuda" or config.accumulation > 1 or config.precision == "fp32":
        return "full"
    prunable = sum(parameter.numel() for parameter in layers.parameters())
    everything = sum(parameter.numel() for parameter in model.parameters())
    soft_and_state = 16 if config.loss_at == "masked" else 12
    return "full" if soft_and_state * prunable + 4 * everything < ROOM * torch.cuda.mem_get_info(device)[0] else "lean"


class FullUpdate:
    """All gradients first, then their norm, then one fused AdamW step in float32."""

    def __init__(self, model, originals: dict[nn.Parameter, Tensor], config: LearnConfig, loss_weight=None):
        self.originals, self.config = originals, config
        model.float()
        for parameter, original in originals.items():
            if parameter.data_ptr() == original.data_ptr():  # it was float32 already
                parameter.data = original.clone()
        self.device = next(iter(originals)).device
        self.optimizer = torch.optim.AdamW(list(originals), weight_decay=0.0, fused=self.device.type in ("cpu", "cuda"))

    def begin(self, step: int, learning_rate: float) -> None:
        """Before backward."""
        self.optimizer.param_groups[0]["lr"] = learning_rate

    @torch.no_grad()
    def gradient_norm(self) -> float:
        """After backward: adds the frozen-weight penalty, clips; the norm before clipping."""
        if self.config.lambda2 > 0:
            for parameter, original in self.originals.items():
                penalty = frozen_weight_gradient(parameter, original, self.config.epsilon).mul_(self.config.lambda2)
                parameter.grad = penalty if parameter.grad is None else parameter.grad.add_(penalty)
        trained = [parameter for parameter in self.originals if parameter.grad is not None]  # an idle expert has none
        norm = nn.utils.get_total_norm([parameter.grad for parameter in trained])
        if self.config.clip > 0:
            nn.utils.clip_grads_with_norm_(trained, self.config.clip, norm)
        return norm.item()

    def apply(self) -> None:
        """Take the step."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def discard(self) -> None:
        """Do not take it."""
        self.optimizer.zero_grad()

    def close(self) -> None:
        """Let go of everything that was attached to the model."""


class LeanUpdate:
    """Each parameter is updated inside backward, and its gradient dropped.

    The norm of all gradients is not known then: each one is clipped to clip/√(number of parameters), so that all of
    them together are never above clip.
    """

    def __init__(
        self,
        model,
        originals: dict[nn.Parameter, Tensor],
        config: LearnConfig,
        loss_weight: Callable[[nn.Parameter], Tensor] | None = None,
    ):
        self.originals, self.config = originals, config
        for parameter, original in originals.items():
            parameter.data = original.to(torch.bfloat16, copy=True)
        self.device = next(iter(originals)).device
        self.optimizer = StochasticAdamW(list(originals))
        self.generator = torch.Generator(self.device)
        self.squares: list[Tensor] = []
        self._hooks = [parameter.register_post_accumulate_grad_hook(self._update) for parameter in originals]
        self._blocks = [block for _, _, block in decoder_blocks(model)]
        for block in self._blocks:
            forward = block.forward if loss_weight is None else _LossWeights(block, originals, loss_weight)
            block.forward = partial(checkpoint, forward, use_reentrant=False)

    def begin(self, step: int, learning_rate: float) -> None:
        """Before backward. Rounding depends on seed and step alone, so that a resumed run rounds alike."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.generator.manual_seed(seed_at(step, self.config))
        self.squares = []

    @torch.no_grad()
    def _update(self, parameter: nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad.float(), None
        if self.config.lambda2 > 0:
            penalty = frozen_weight_gradient(parameter.float(), self.originals[parameter], self.config.epsilon)
            gradient.add_(penalty, alpha=self.config.lambda2)
        square = gradient.square().sum()
        self.squares.append(square)
        gradient.nan_to_num_(0, 0, 0)  # the learner sees the norm and ends, with weights that are still good
        if self.config.clip > 0:
            limit = self.config.clip / len(self.originals) ** 0.5
            gradient.mul_((limit / square.sqrt().clamp(min=1e-12)).clamp(max=1).nan_to_num(0))
        self.optimizer.update(parameter, gradient, self.generator)

    def gradient_norm(self) -> float:
        """After backward: the norm of all gradients, before clipping."""
        return torch.stack(self.squares).sum().sqrt().item()

    def apply(self) -> None:
        """Taken already."""

    def discard(self) -> None:
        """It was taken: the last checkpoint is where to go on from."""

    def close(self) -> None:
        """Let go of everything that was attached to the model."""
        for hook in self._hooks:
            hook.remove()
        for block in self._blocks:
            del block.forward  # the class's own shows again


class _LossWeights:
    """Runs a block with other values of its prunable parameters, made when it runs: they exist for one block at a time.
    Their gradients are given to the parameters."""

    def __init__(self, block: nn.Module, trained: Container[nn.Parameter], loss_weight: Callable):
        self.block, self.loss_weight = _Inner(block, block.forward), loss_weight
        self.names = [(name, parameter) for name, parameter in self.block.named_parameters() if parameter in trained]

    def __call__(self, *arguments, **named):
        values = {
            name: _StraightThrough.apply(parameter, self.loss_weight(parameter)) for name, parameter in self.names
        }
        return torch.func.functional_call(self.block, values, arguments, named)


class _Inner(nn.Module):
    """A block by its own forward, whatever is put in its place."""

    def __init__(self, block: nn.Module, forward: Callable):
        super().__init__()
        self.block, self.run = block, forward

    def forward(self, *arguments, **named):
        return self.run(*arguments, **named)


class _StraightThrough(torch.autograd.Function):
    """The value of the second tensor, with the gradient of the first."""

    @staticmethod
    def forward(context, parameter: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(context, gradient: Tensor):
        return gradient, None


UPDATES = {"full": FullUpdate, "lean": LeanUpdate}


def frozen_weight_gradient(weight: Tensor, original: Tensor, epsilon: float) -> Tensor:
    """Gradient of ‖W/(W0 + ε·sign W0) ⊙ (W − W0)‖_F² (Liu et al. 2025, section 3.3; sign(0) = 1); shape of `weight`."""
    original = original.to(weight.dtype)
    denominator = original + epsilon * torch.where(original < 0, -1.0, 1.0)
    ratio, difference = weight / denominator, weight - original
    return 2 * ratio * difference * (difference / denominator + ratio)
