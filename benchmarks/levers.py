"""What may make a mask hold better away from home: changes of the learner, one at a time, as `benchmarks/away.py` measures them.

What won is a setting of the library by now, or its default. What lost lives on here alone: as a metric, a loss or an update that the
learner is given, or a small change of its steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from proxsparse import Mask, MaskLearner, MaskSet
from proxsparse.learning.metric import configured_metric
from proxsparse.methods import METHODS
from proxsparse.methods.fisher import squared_gradients
from proxsparse.methods.sparsegpt import inverse_factor
from proxsparse.models.activations import InputObserver, SecondMoments
from proxsparse.models.forward import autocast
from proxsparse.progress import no_progress

ONE_SHOT_WINDOWS = 128


@dataclass(frozen=True)
class Variant:
    """changes: of the learner's settings. given: metric, loss or update. length: tokens in a calibration window."""

    changes: dict = field(default_factory=dict)
    learner: type[MaskLearner] = MaskLearner
    given: dict = field(default_factory=dict)
    length: int = 256


# Losses


def logits_loss(kind: str, temperature: float, learner, windows):
    """Distillation with softer predictions, or with the divergence the other way round."""
    with torch.no_grad(), learner.dense(), autocast(learner.device, learner.precision):
        teacher = learner.model(input_ids=windows, use_cache=False).logits[:, :-1].float() / temperature
    with autocast(learner.device, learner.precision):
        student = learner.model(input_ids=windows, use_cache=False).logits[:, :-1].float() / temperature
        wanted, given = teacher.log_softmax(-1), student.log_softmax(-1)
        if kind == "reverse":
            wanted, given = given, wanted
        return temperature**2 * nn.functional.kl_div(given, wanted, reduction="none", log_target=True).sum(-1).mean()


def hidden_loss(weight: float, learner, windows):
    """Distillation, and the mean squared error of the hidden states after each block, relative to what they are."""

    def run():
        found = learner.model(input_ids=windows, use_cache=False, output_hidden_states=True)
        return found.logits[:, :-1].float().log_softmax(-1), [state.float() for state in found.hidden_states[1:]]

    with torch.no_grad(), learner.dense(), autocast(learner.device, learner.precision):
        wanted, states = run()
    with autocast(learner.device, learner.precision):
        given, own = run()
        divergence = nn.functional.kl_div(given, wanted, reduction="none", log_target=True).sum(-1).mean()
        # The first token attracts massive activations that say nothing of the others.
        errors = [
            ((mine - its)[:, 1:].square().sum(-1) / its[:, 1:].square().sum(-1)).mean()
            for mine, its in zip(own, states, strict=True)
        ]
        return divergence + weight * torch.stack(errors).mean()


# Metrics


def root_metric(*about):
    """√activation."""
    return {name: scale.sqrt() for name, scale in configured_metric(*about).items()}


def mixed_metric(share, model, windows, layers, config, progress):
    """√(share·E[x²] + (1 − share)·E[g²]), each over its mean; g: the gradient of the loss of one window."""
    inputs = configured_metric(model, windows, layers, config, progress)
    squares = squared_gradients(model, windows[: config.metric_windows], layers.parameters())
    scales = {}
    for name, layer in layers.items():
        x, g = inputs[name].square(), layer.matrix_of(squares[layer.parameter])
        scale = (share * x / x.mean() + (1 - share) * g / g.mean()).sqrt()
        scales[name] = scale / scale.log().mean().exp()
    return scales


def inverse_metric(model, windows, layers, config, progress):
    """1/√[H⁻¹]_jj, what the layer's output loses by an input that the others make up for (optimal brain surgeon)."""
    moments = {name: SecondMoments(layer) for name, layer in layers.items()}
    with torch.no_grad(), InputObserver(layers, moments), autocast(windows.device, "fp32"):
        for some in windows[:ONE_SHOT_WINDOWS].split(8):
            model.base_model(input_ids=some.to(model.device), use_cache=False)
    scales = {}
    for name, found in moments.items():
        factor = inverse_factor(found.sum.double())
        scale = factor.square().sum(0).rsqrt().float()
        scales[name] = scale / scale.log().mean().exp()
    return scales


# Steps


class LateSwitch(MaskLearner):
    """The loss at the soft weights for the first half of the steps, as in the paper, and then at the masked ones."""

    def gradient_step(self):
        soft = 2 * self.step_index < self.config.steps
        self.config = dataclasses.replace(self.config, loss_at="soft" if soft else "masked")
        return super().gradient_step()


class Remeasured(MaskLearner):
    """Activations measured on the masked model, a quarter of the way."""

    def gradient_step(self):
        if self.step_index == self.config.steps // 4:
            with self.projected():
                scales = self.metric(self.model, self.windows, self.layers, self.config, no_progress)
            self.use_scales(scales)
        return super().gradient_step()


def starting_from(method: str, margin: float = 0.0) -> type[MaskLearner]:
    """A learner whose first mask is that of a method: of each group, what it keeps is raised to a threshold, and what it drops
    lowered to it, which lies halfway (in logarithms) between the least that it keeps and the most that it drops."""

    class Started(MaskLearner):
        def __init__(self, model, windows, *about, **given):
            layers = about[1]
            wanted = METHODS[method](model, windows[:ONE_SHOT_WINDOWS], layers=layers).masks
            super().__init__(model, windows, *about, **given)
            with torch.no_grad():
                for name, layer in self.layers.items():
                    layer.matrix.copy_(ranked(layer.matrix, self.scales[name], wanted[name].dense(self.device), margin))

        def loss_masks(self):
            if self.step_index:
                return super().loss_masks()
            scales = self.scales
            return MaskSet(
                {name: Mask.project(layer.matrix, scale=scales[name]) for name, layer in self.layers.items()}
            )

    return Started


def ranked(weights, scale, kept, margin):
    """Weights that compete as `kept` says."""
    sizes = (weights.abs() * scale).view(len(weights), -1, 4)
    kept = kept.view_as(sizes)
    least, most = sizes.masked_fill(~kept, torch.inf).amin(-1), sizes.masked_fill(kept, 0).amax(-1)
    between = (least * most).sqrt().unsqueeze(-1).clamp_min(1e-12)
    wrong = (least <= most).unsqueeze(-1)
    moved = torch.where(
        kept, sizes.maximum(between * (1 + 1e-3 + margin)), sizes.minimum(between * (1 - 1e-3 - margin))
    )
    found = torch.where(wrong, moved, sizes).view_as(weights) / scale
    return torch.where(weights < 0, -found, found)


class Polished(MaskLearner):
    """After the last step, swaps inside groups by first and second order of the loss at the masked model, the best 0.2% a round, while the
    loss on windows that judge them falls."""

    rounds, windows_a_round, share = 6, 32, 0.002

    def own_masks(self):
        if not self.done or self.restored:
            return super().own_masks()
        if not hasattr(self, "polished"):
            self.polished = self.refined(super().own_masks())
        return self.polished

    def mean_loss(self, masks, windows):
        with torch.no_grad(), self.projected(masks):
            return sum(self.loss(self, some.to(self.device)).item() * len(some) for some in windows.split(8)) / len(
                windows
            )

    def refined(self, masks):
        count, judged = self.windows_a_round, self.windows[-48:]
        best = self.mean_loss(masks, judged)
        for turn in range(self.rounds):
            begin = turn * count % (len(self.windows) - 48 - count)
            gains = {}
            sums = {p: torch.zeros_like(p) for p in self.layers.parameters()}
            squares = {p: torch.zeros_like(p) for p in self.layers.parameters()}
            with self.projected(masks):
                for some in self.windows[begin : begin + count].split(2):
                    self.loss(self, some.to(self.device)).backward()
                    for p in sums:
                        sums[p] += p.grad
                        squares[p] += p.grad.square()
                        p.grad = None
            passes = count / 2
            for name, layer in self.layers.items():
                original = self.originals[name].float()
                g, f = (layer.matrix_of(of[layer.parameter]) / passes for of in (sums, squares))
                kept = masks[name].dense(self.device).view(len(original), -1, 4)
                drop = (-g * original + f * original.square()).view_as(kept).masked_fill(~kept, torch.inf)
                take = (g * original + f * original.square()).view_as(kept).masked_fill(kept, torch.inf)
                gains[name] = (*drop.min(-1), *take.min(-1))
            change = torch.cat([(d + t).flatten() for d, _, t, _ in gains.values()])
            threshold = min(change.kthvalue(max(1, int(self.share * len(change)))).values.item(), 0.0)
            tried = MaskSet()
            for name, (d, which, t, other) in gains.items():
                kept = masks[name].dense(self.device).view(len(d), -1, 4).clone()
                swapped = (d + t <= threshold).unsqueeze(-1)
                kept.scatter_(-1, which.unsqueeze(-1), kept.gather(-1, which.unsqueeze(-1)) & ~swapped)
                kept.scatter_(-1, other.unsqueeze(-1), kept.gather(-1, other.unsqueeze(-1)) | swapped)
                tried[name] = Mask.project(kept.view(len(d), -1).float())
            loss = self.mean_loss(tried, judged)
            if loss >= best:
                break
            masks, best = tried, loss
        return masks


QUICK = {"distill": 0.0, "batch": 2}  # as the preset was before this study
KL = {"distill": 1.0, "batch": 2}
NO_R = {"lambda1": 0.0, "ramp": 1.0}


def with_loss(loss: Callable, *about) -> Variant:
    return Variant(KL, given={"loss": partial(loss, *about)})


VARIANTS = {
    "default": Variant(),
    "default, all KL": Variant({"distill": 1.0}),
    "default, half KL": Variant({"distill": 0.5}),
    "default, all KL, no regularizer": Variant({"distill": 1.0} | NO_R),
    "default, all KL, lambda to 0.5": Variant({"distill": 1.0, "lambda1": 0.5}),
    "default, no regularizer": Variant(NO_R),
    "default, lambda to 0.05": Variant({"lambda1": 0.05}),
    "default, lambda to 0.5": Variant({"lambda1": 0.5}),
    "default, 400 steps": Variant({"steps": 400}),
    "default, 400 steps of 8": Variant({"steps": 400, "batch": 8}),
    "default, metric 0.5": Variant(given={"metric": partial(mixed_metric, 0.5)}),
    "default, metric 0.8": Variant(given={"metric": partial(mixed_metric, 0.8)}),
    "default, metric 0.95": Variant(given={"metric": partial(mixed_metric, 0.95)}),
    "default, inverse metric": Variant(given={"metric": inverse_metric}),
    "default, remeasured": Variant({}, Remeasured),
    "default, late switch": Variant({}, LateSwitch),
    "default, polished": Variant({}, Polished),
    "Quick": Variant(QUICK),
    "no regularizer": Variant(QUICK | NO_R),
    "KL": Variant(KL),
    "KL, no regularizer": Variant(KL | NO_R),
    "KL, temperature 2": with_loss(logits_loss, "forward", 2.0),
    "KL reversed": with_loss(logits_loss, "reverse", 1.0),
    "KL and hidden states 1": with_loss(hidden_loss, 1.0),
    "KL and hidden states 5": with_loss(hidden_loss, 5.0),
    "KL, rate 5e-4": Variant(KL | {"learning_rate": 5e-4}),
    "KL, rate 2e-3": Variant(KL | {"learning_rate": 2e-3}),
    "KL, 4 windows": Variant(KL | {"batch": 4}),
    "KL, 40 steps of 4": Variant(KL | {"batch": 4, "steps": 40}),
    "KL, 40 steps of 4, rate 2e-3": Variant(KL | {"batch": 4, "steps": 40, "learning_rate": 2e-3}),
    "KL, 1 x 512": Variant(KL | {"batch": 1}, length=512),
    "KL, 4 x 128": Variant(KL | {"batch": 4}, length=128),
    "KL, 8 x 64": Variant(KL | {"batch": 8}, length=64),
    "KL, 400 steps": Variant(KL | {"steps": 400}),
    "KL, from ria": Variant(KL, starting_from("ria")),
    "KL, from sparsegpt": Variant(KL, starting_from("sparsegpt")),
    "KL, from swaps": Variant(KL, starting_from("swaps")),
    "KL, from swaps, margin": Variant(KL, starting_from("swaps", margin=0.1)),
}
