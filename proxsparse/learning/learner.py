"""The mask learner: one explicit step, made of two halves, over state you can save.

    gradient half   forward and backward of the language-model loss on a calibration batch, clip, AdamW
    prox half       the proximal operator of the regularizer on every prunable weight, and the report

(Liu et al. 2025, arXiv 2502.00258, section 3.2: proximal gradient descent; λ1 is not multiplied by the learning rate.)
What is learned are soft weights; the result is their projected mask, applied to the original weights. The paper takes the
loss at the soft weights; by default we take it where the result is, see `loss_at` and docs/quality.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from proxsparse.config import LearnConfig
from proxsparse.errors import DivergedError, ProxSparseError
from proxsparse.layers import PrunableLayers, prunable_layers
from proxsparse.learning.originals import Originals, holding
from proxsparse.learning.report import LayerRow, StepReport, total
from proxsparse.learning.schedule import learning_rate_at, seed_at, windows_at
from proxsparse.learning.updates import UPDATES, choose_memory
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.activations import activation_scales
from proxsparse.models.forward import autocast, next_token_losses, quick_attention
from proxsparse.progress import Progress, no_progress
from proxsparse.proximal.counts import Sums, read_sums
from proxsparse.proximal.operator import prox_and_count_

MOST_DRIFT = 1e3  # how far weights may move on average, in units of the RMS of all prunable weights


class MaskLearner:
    """Learns the N:M mask of a causal language model.

    model: transformers model; while the learner lives it holds the soft weights, and only its prunable weights are
    trained. `restore()` (which the iterator calls at its end) puts the original weights back.
    windows: int64 (count, length), the calibration text.

    >>> learner = MaskLearner(model, windows, LearnConfig(steps=80))     # doctest: +SKIP
    >>> for report in learner:                                           # doctest: +SKIP
    ...     print(report.step, report.loss)
    >>> learner.masks().apply_(model)                                    # doctest: +SKIP

    Raises ProxSparseError for a model without prunable layers or too little text, DivergedError for a loss that is not finite
    and for weights that run away.
    """

    def __init__(
        self,
        model,
        windows: Tensor,
        config: LearnConfig | None = None,
        layers: PrunableLayers | None = None,
        progress: Progress = no_progress,
    ):
        self.model, self.windows, self.config = model, windows, config or LearnConfig()
        self.layers = layers if layers is not None else prunable_layers(model, self.config.m)
        if len(windows) < self.config.batch:
            raise ProxSparseError(
                f"The calibration text has {len(windows)} windows and one batch takes {self.config.batch}: give more text, "
                "shorter windows or a smaller batch."
            )
        self.device = next(model.parameters()).device
        self.step_index, self.phase, self._pending = 0, "gradient", None

        # What is measured on the model as it came: the metric, the strength's unit, the mask to start from.
        self.scales = self._measure_scales(progress)
        self._rms = {name: self._root_mean_square(name) for name in self.layers}
        self._squared_norms = {name: layer.matrix.double().square().sum().item() for name, layer in self.layers.items()}
        weights = sum(layer.numel for layer in self.layers.values())
        self._typical = math.sqrt(sum(self._squared_norms.values()) / weights) or math.inf
        self._start = MaskSet({name: self._project(name) for name in self.layers})
        self._previous = MaskSet(self._start)
        self.growth_left = self.config.ramp
        self.lambda1 = self.config.lambda1 / self.config.ramp

        self.originals = Originals(model, self.layers)
        self.memory = choose_memory(self.config, model, self.layers, self.device)
        self.precision = "bf16" if self.memory == "lean" else self.config.precision
        model.zero_grad()  # `originals` keeps what there was
        model.requires_grad_(False)
        for parameter in self.originals.values:
            parameter.requires_grad_(True)
        masked = self._masked_original if self.config.loss_at == "masked" else None
        self._update = UPDATES[self.memory](model, self.originals.values, self.config, masked)
        self.restored = False

    # Where the learner stands

    @property
    def done(self) -> bool:
        """Whether all steps of the configuration are taken."""
        return self.step_index >= self.config.steps

    @property
    def lambda1(self) -> float:
        """Strength of the regularizer at the step that comes; may be changed at any time, and goes on growing from there by
        what is left of the ramp. Relative or absolute as the configuration says."""
        return self._lambda1

    @lambda1.setter
    def lambda1(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ProxSparseError(f"lambda1 is {value!r}: give a number that is 0 or more.")
        self._lambda1 = float(value)

    def absolute_lambda1(self, name: str) -> float:
        """λ1 as the proximal operator of one layer takes it: R of N:M has the unit weight^(N+1) and the square that it
        is weighed against weight², so λ has 1/weight^(N−1), and relative λ1 is divided by that power of the RMS."""
        return self._lambda1 / self._rms[name] ** (self.config.n - 1) if self.config.relative else self._lambda1

    # Stepping

    def __iter__(self) -> Iterator[StepReport]:
        """Take the remaining steps, one report each, then put the original weights back."""
        while not self.done:
            yield self.step()
        self.restore()

    def step(self) -> StepReport:
        """Complete the current step: both halves, or the second where the first is done."""
        if self.phase == "gradient":
            self.gradient_step()
        return self.prox_step()

    def gradient_step(self) -> float:
        """First half: loss, gradient, clipping, AdamW. Returns the loss. The mask may change; no group is pulled
        yet."""
        self._expect("gradient")
        started = self._clock()
        learning_rate = learning_rate_at(self.step_index, self.config)
        self._update.begin(self.step_index, learning_rate)
        batches = windows_at(self.step_index, len(self.windows), self.config).split(self.config.batch)
        with self._loss_weights(), quick_attention(self.model, self.device, self.windows.shape[1]):
            loss = sum(self._backward(self.windows[batch], len(batches)) for batch in batches)
        gradient_norm = self._update.gradient_norm()
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self._update.discard()
            raise self._diverged(f"the loss is {loss:g} and the gradient norm {gradient_norm:g}")
        differentiated = self._clock()
        self._update.apply()
        updated = self._clock()
        self._pending = {
            "loss": loss, "gradient_norm": gradient_norm, "learning_rate": learning_rate,
            "seconds_gradient": differentiated - started, "seconds_optimizer": updated - differentiated,
        }  # fmt: skip
        self.phase = "prox"
        return loss

    def prox_step(self) -> StepReport:
        """Second half: the proximal operator on every prunable weight. Counts, in the same pass, what it touches."""
        self._expect("prox")
        started, sums = self._clock(), []
        for index, (name, layer) in enumerate(self.layers.items()):
            counts = prox_and_count_(
                layer.matrix, self.absolute_lambda1(name), self.config.n, self.config.m, self.scales[name],
                self._previous[name], self._start[name], self.originals[name],
                self._rounding_seed(index),
            )  # fmt: skip
            self._previous[name] = counts.mask
            sums.append(counts.sums)
        operated = self._clock()
        values = torch.stack(sums).tolist()  # the one moment at which a GPU is waited for
        rows = [self._row(name, read_sums(line)) for name, line in zip(self.layers, values, strict=True)]
        ended = self._clock()
        strength = self._lambda1
        self.step_index += 1
        self.phase = "gradient"
        self._grow()
        pending, self._pending = self._pending, None
        seconds = pending["seconds_gradient"] + pending["seconds_optimizer"] + ended - started
        tokens = self.config.windows_per_step * self.windows.shape[1]
        return total(
            rows, step=self.step_index, lambda1=strength, seconds=seconds, tokens_per_second=tokens / seconds,
            seconds_prox=operated - started, seconds_report=ended - operated, **pending,
        )  # fmt: skip

    # What comes out

    def masks(self) -> MaskSet:
        """The projected masks of the soft weights as they are now."""
        if self.phase == "gradient" or self.restored:
            return MaskSet(self._previous)
        return MaskSet({name: self._project(name) for name in self.layers})

    @contextmanager
    def projected(self, masks: MaskSet | None = None):
        """While open, the model holds the original weights under `masks` (default: the projected masks)."""
        masks = self.masks() if masks is None else masks
        with self.dense():
            masks.apply_(self.layers)
            yield self.model

    @contextmanager
    def dense(self):
        """While open, the model holds the original weights, unmasked."""
        with holding(self.originals.values, self.originals.copy):
            yield self.model

    def restore(self) -> None:
        """Put the original weights back, in their own dtype, and end the learner; `masks()` still answers."""
        if self.restored:
            return
        self._previous = self.masks()
        self._update.close()
        self._update = None
        self.originals.put_back()
        self.restored = True

    # Saving

    def state_dict(self) -> tuple[dict[str, Tensor], dict]:
        """Everything that the next step depends on: tensors (for safetensors) and the rest (for JSON)."""
        self._expect("gradient")
        tensors, updates = {}, {}
        for name, parameter in self.originals.parameters.items():
            tensors[f"soft.{name}"] = parameter.data
            moments = self._update.optimizer.state.get(parameter)
            if moments:  # none before the first update
                tensors[f"exp_avg.{name}"], tensors[f"exp_avg_sq.{name}"] = moments["exp_avg"], moments["exp_avg_sq"]
                updates[name] = int(moments["step"].item())
        for name in self.layers:
            tensors[f"start.{name}"] = self._start[name].packed
            tensors[f"previous.{name}"] = self._previous[name].packed
            if self.scales[name] is not None:
                tensors[f"scale.{name}"] = self.scales[name]
        rest = {
            "step": self.step_index,
            "lambda1": self._lambda1,
            "growth_left": self.growth_left,
            "memory": self.memory,
        }
        return tensors, rest | {"updates": updates}

    def load_state_dict(self, tensors: dict[str, Tensor], rest: dict) -> None:
        """Go on from a saved state, exactly. Raises ProxSparseError when it belongs to another model or metric."""
        self._expect("gradient")
        written = rest.get("memory", "full")  # checkpoints of before there was a choice do not say
        if written != self.memory:
            raise ProxSparseError(
                f"The checkpoint was written with memory {written} and this run has memory {self.memory}: set memory "
                f"to {written}."
            )
        expected = {f"soft.{name}": parameter.shape for name, parameter in self.originals.parameters.items()}
        expected |= {f"scale.{name}": scale.shape for name, scale in self.scales.items() if scale is not None}
        for name, shape in expected.items():
            if name not in tensors or tensors[name].shape != shape:
                raise ProxSparseError(f"The checkpoint does not fit this run: {name} is missing or has another shape.")
        self.step_index = int(rest["step"])
        self.lambda1, self.growth_left = rest["lambda1"], rest.get("growth_left", 1.0)
        for name, parameter in self.originals.parameters.items():
            parameter.data.copy_(tensors[f"soft.{name}"])
            if name in rest["updates"]:
                self._update.optimizer.state[parameter] = {
                    "step": torch.tensor(float(rest["updates"][name]), device=self.device),
                    "exp_avg": tensors[f"exp_avg.{name}"].to(self.device, copy=True),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(self.device, copy=True),
                }
        for name, layer in self.layers.items():
            shape = (layer.out_features, layer.in_features)
            for masks, key in ((self._start, "start"), (self._previous, "previous")):
                packed = tensors[f"{key}.{name}"].to(self.device, copy=True)
                masks[name] = Mask(packed, shape, self.config.n, self.config.m)
            if self.scales[name] is not None:
                self.scales[name] = tensors[f"scale.{name}"].to(self.device, copy=True)

    # Pieces

    def _grow(self) -> None:
        """λ1 moves by equal factors towards the ramp's end, which it reaches at the last step."""
        steps_left = self.config.steps - self.step_index
        if steps_left > 0 and self.growth_left > 1:
            factor = self.growth_left ** (1 / steps_left)
            self._lambda1 *= factor
            self.growth_left /= factor

    def _measure_scales(self, progress: Progress) -> dict[str, Tensor | None]:
        if self.config.metric == "weight":
            return dict.fromkeys(self.layers)
        windows = self.windows[: self.config.metric_windows]
        return activation_scales(self.model, self.layers, windows, self.config.precision, progress)

    def _root_mean_square(self, name: str) -> float:
        matrix, scale = self.layers[name].matrix.float(), self.scales[name]
        rms = (matrix if scale is None else matrix * scale).square().mean().sqrt().item()
        return rms if rms > 0 else 1.0  # a layer of zeros: any strength leaves it as it is

    def _project(self, name: str) -> Mask:
        return Mask.project(self.layers[name].matrix, self.config.n, self.config.m, self.scales[name])

    def _backward(self, windows: Tensor, passes: int) -> float:
        with autocast(self.device, self.precision):
            loss = next_token_losses(self.model, windows.to(self.device)).mean() / passes
        loss.backward()
        return loss.item()

    @contextmanager
    def _loss_weights(self):
        """While open, the model computes with the weights at which the loss is taken.

        `masked`: the original weights under the projected mask. Their gradient is taken for that of the soft weights
        (straight through the projection: Bengio et al. 2013, arXiv 1308.3432), so that the loss speaks of the result.
        The lean plan puts them into one block at a time, see `proxsparse.learning.updates`.
        """
        if self.config.loss_at == "soft" or self.memory == "lean":
            yield
            return
        with self.projected():
            yield

    def _masked_original(self, parameter) -> Tensor:
        """The original values of a parameter under the projected mask; in its shape and dtype."""
        return self.originals.under(parameter, self._previous)

    def _rounding_seed(self, layer: int) -> int | None:
        """Depends on the position alone, so that a resumed run rounds alike; None where weights are float32."""
        if self.memory == "full":
            return None
        return (seed_at(self.step_index, self.config) * len(self.layers) + layer) % 2**31

    def _row(self, name: str, sums: Sums) -> LayerRow:
        n, m = self.config.n, self.config.m
        moved = math.sqrt(sums.squared_drift / self.layers[name].numel)
        if not (sums.finite and math.isfinite(sums.regularizer) and moved <= MOST_DRIFT * self._typical):
            raise self._diverged(f"the weights of {name} have moved by {moved:g} on average")
        return LayerRow(
            groups=self.layers[name].numel // m,
            regularizer=sums.regularizer,
            nonzeros=dict(zip(range(m, n - 2, -1), sums.nonzeros, strict=True)),
            flips=sums.flips,
            flips_from_start=sums.flips_from_start,
            squared_drift=sums.squared_drift,
            squared_norm=self._squared_norms[name],
        )

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"At step {self.step_index + 1} {what}: lower the learning rate ({self.config.learning_rate:g}) or λ1 "
            f"({self._lambda1:g})."
        )

    def _expect(self, phase: str) -> None:
        if self.restored:
            raise ProxSparseError("This learner has ended and the original weights are back: make a new one.")
        if self.phase != phase:
            wanted = "prox_step()" if self.phase == "prox" else "gradient_step()"
            raise ProxSparseError(f"The {self.phase} half of step {self.step_index + 1} comes first: call {wanted}.")

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
