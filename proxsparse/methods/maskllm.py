"""MaskLLM: which pattern each group keeps is a categorical variable, learned through Gumbel-softmax samples.

Fang et al. 2024, *MaskLLM: Learnable Semi-Structured Sparsity for Large Language Models* (arXiv 2409.17481), section 3.
Of a group's C(M,N) patterns one is to be chosen. While it learns, the model runs with W0 ⊙ Σ_k y_k·pattern_k, where
y = softmax((κ·logits + Gumbel noise)/τ) is a soft choice (eq. 4 to 6); in the end the pattern of the largest logit is kept.
As in the official code, κ rises and τ falls linearly over the steps, the logits start from a one-shot mask (the prior), and
the norm of the weights that are kept is rewarded, less and less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from proxsparse.config import LearnConfig, check_patterns
from proxsparse.errors import DivergedError, ProxSparseError
from proxsparse.layers import PrunableLayer, PrunableLayers, only_these_learn, prunable_layers
from proxsparse.learning.schedule import passes_at, seed_at
from proxsparse.masks.groups import patterns_of
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods.result import Pruned
from proxsparse.methods.sparsegpt import sparsegpt
from proxsparse.models.forward import autocast, next_token_losses, quick_attention
from proxsparse.progress import Progress, no_progress

PRIOR_WINDOWS = 128
INITIAL_SPREAD = 0.01  # standard deviation of the logits before the prior
BETAS, EPSILON, WEIGHT_DECAY, CLIP = (0.9, 0.95), 1e-5, 0.1, 1.0  # of the official script
FINAL_LEARNING_RATE = 0.1  # of the peak; cosine in between, no warm-up


@dataclass(frozen=True)
class MaskLLMOptions:
    """The official script's values for Llama-2-7B.

    learning_rate: of AdamW on the logits. The script's value, for 2000 steps of a million tokens, is the best of five that
    we tried on 80 short steps as well (docs/quality.md).
    """

    learning_rate: float = 5e-4
    scale: tuple[float, float] = (1e2, 5e2)  # κ, first and last
    temperature: tuple[float, float] = (4.0, 0.05)  # τ, first and last
    prior_strength: float = 3.0
    weight_regularization: float = 1e-5


def maskllm(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    budget: LearnConfig | None = None,
    prior: MaskSet | None = None,
    options: MaskLLMOptions | None = None,
) -> Pruned:
    """Learn a mask with MaskLLM on the steps, windows and tokens that `MaskLearner` would take with `budget`.

    Needs 16 bytes a pattern in every group, for 2:4 24 a weight, beside soft masks and gradients as large as the weights.

    Parameters
    ----------
    model : transformers model
        A causal language model; left as it came.
    windows : Tensor
        Calibration text, int64 (count, length) tokens.
    n, m : int
        The pattern: n of every m weights along the input dimension are kept.
    layers : PrunableLayers, optional
        What is pruned; default: `prunable_layers(model, m)`.
    progress : Progress
        Called before each piece of work; what it raises ends the method.
    budget : LearnConfig, optional
        Its steps, windows and tokens; default: `LearnConfig()`.
    prior : MaskSet, optional
        The masks to start from; default: SparseGPT's, as in the paper, on the first PRIOR_WINDOWS windows.
    options : MaskLLMOptions, optional
        Rates, temperatures and the weight of the prior.

    Returns
    -------
    Pruned
        Masks for the original weights.

    Raises
    ------
    ProxSparseError
        For too many patterns, too little text, or a loss that is not finite (DivergedError).

    References
    ----------
    Fang et al. 2024, arXiv 2409.17481, section 3.
    """
    budget, options = budget or LearnConfig(), options or MaskLLMOptions()
    layers = layers if layers is not None else prunable_layers(model, m)
    check_patterns(n, m, "maskllm")
    if len(windows) < budget.windows_per_step:
        raise ProxSparseError(
            f"The calibration text has {len(windows)} windows and one step takes {budget.windows_per_step}: give more text, shorter "
            "windows, or a smaller batch."
        )
    if prior is None:
        prior = sparsegpt(model, windows[:PRIOR_WINDOWS], n, m, layers=layers, progress=progress, update=False).masks
    device = next(model.parameters()).device
    choices = [
        _Choice(layer, prior[name], n, m, options, seed_at(index, budget))
        for index, (name, layer) in enumerate(layers.items())
    ]
    optimizer = torch.optim.AdamW(
        [choice.logits for choice in choices], betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY, fused=True
    )
    with layers.on_copies(), only_these_learn(model, layers.parameters()):
        for step in range(budget.steps):
            progress(step, budget.steps, "learning with MaskLLM, step")
            at = step / budget.steps
            generator = torch.Generator(device).manual_seed(seed_at(step, budget))
            for choice in choices:
                choice.sample(_between(options.scale, at), _between(options.temperature, at), generator)
            loss = _backward(model, windows, step, budget, device)
            for choice in choices:
                choice.take_gradient(options.weight_regularization * (1 - at))
            for parameter in layers.parameters():
                parameter.grad = None
            norm = torch.nn.utils.clip_grad_norm_([choice.logits for choice in choices], CLIP).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DivergedError(f"At step {step + 1} MaskLLM's loss is {loss:g}: lower its learning rate.")
            cosine = (1 + math.cos(math.pi * at)) / 2
            optimizer.param_groups[0]["lr"] = options.learning_rate * (
                FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine
            )
            optimizer.step()
            optimizer.zero_grad()  # as large as the choices, which come next
    return Pruned(MaskSet({name: choice.mask() for name, choice in zip(layers, choices, strict=True)}))


class _Choice:
    """The categorical variables of one layer: logits (patterns, groups) and the soft choice that is being tried.

    Patterns come first because a softmax over six neighbours in memory is ten times slower on a CPU.
    """

    def __init__(self, layer: PrunableLayer, prior: Mask, n: int, m: int, options: MaskLLMOptions, seed: int):
        self.layer, self.n, self.m = layer, n, m
        self.original = layer.matrix.clone()
        device = self.original.device
        self.patterns = patterns_of(n, m).to(device, torch.float32)
        generator = torch.Generator(device).manual_seed(seed)
        logits = torch.randn(len(self.patterns), self.original.numel() // m, device=device, generator=generator).mul_(
            INITIAL_SPREAD
        )
        # How much of the prior each pattern shares, centred so that nothing is preferred on average (section 3.3, eq. 8).
        shared = self.patterns @ prior.dense(device).reshape(-1, m).float().t()
        logits.add_(shared - n / 2, alpha=options.prior_strength * INITIAL_SPREAD)
        self.logits = logits.requires_grad_(True)

    @torch.no_grad()
    def sample(self, scale: float, temperature: float, generator: torch.Generator) -> None:
        """Draw a soft choice and put the weights that it leaves into the model."""
        self.scale, self.temperature = scale, temperature
        noise = gumbel_noise(self.logits, generator)
        self.choice = torch.softmax(noise.add_(self.logits, alpha=scale).div_(temperature), dim=0)
        self.soft_mask = (self.patterns.t() @ self.choice).t().reshape(self.original.shape)
        self.layer.matrix.copy_(self.original * self.soft_mask)

    @torch.no_grad()
    def take_gradient(self, regularization: float) -> None:
        """The chain rule from the weights in the model back to the logits."""
        gradient = (
            self.layer.matrix_of(self.layer.parameter.grad).float() if self.layer.parameter.grad is not None else 0
        )
        original = self.original.float()
        of_mask = gradient * original - 2 * regularization * original.square() * self.soft_mask
        of_choice = self.patterns @ of_mask.reshape(-1, self.m).t()
        of_choice -= (self.choice * of_choice).sum(0)
        self.logits.grad = of_choice.mul_(self.choice).mul_(self.scale / self.temperature)
        del self.choice, self.soft_mask

    def mask(self) -> Mask:
        """The most likely pattern of every group."""
        kept = self.patterns[self.logits.argmax(0)].bool().view(self.original.shape)
        return Mask.project(kept.float(), self.n, self.m)


def gumbel_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel(0, 1) in the shape of `like`: −log(−log u) of a uniform u, which torch draws faster than an exponential."""
    uniform = torch.empty_like(like).uniform_(generator=generator)
    return uniform.clamp_min_(torch.finfo(uniform.dtype).tiny).log_().neg_().log_().neg_()


def _between(ends: tuple[float, float], at: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * at


def _backward(model, windows: Tensor, step: int, budget: LearnConfig, device: torch.device) -> float:
    loss = 0.0
    with quick_attention(model, device, windows.shape[1]):
        for batch in passes_at(step, len(windows), budget):
            with autocast(device, budget.precision):
                part = next_token_losses(model, windows[batch].to(device)).mean() / budget.accumulation
            part.backward()
            loss += part.item()
    return loss
