"""The mask learner: one explicit step, made of two halves, over state you can save.

    gradient half   forward and backward of the language-model loss on a calibration batch, clip, AdamW
    prox half       the proximal operator of the regularizer on every prunable weight, and the report

(Liu et al. 2025, arXiv 2502.00258, section 3.2: proximal gradient descent; λ1 is not multiplied by the learning rate.)
What is learned are soft weights; the result is their projected mask, applied to the original weights. The paper takes the
loss at the soft weights; by default we take it where the result is, see `loss_at` and docs/quality.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from proxsparse.config import LearnConfig
from proxsparse.errors import DivergedError, ProxSparseError
from proxsparse.layers import PrunableLayers, prunable_layers
from proxsparse.layers.sharded import ShardedLayers
from proxsparse.learning import state as saved
from proxsparse.learning.clock import clock
from proxsparse.learning.full_update import FullUpdate
from proxsparse.learning.lean_update import LeanUpdate
from proxsparse.learning.loss import Loss, configured_loss
from proxsparse.learning.metric import Metric, configured_metric
from proxsparse.learning.originals import LossWeight, Originals
from proxsparse.learning.ramp import growth_factor
from proxsparse.learning.report import LayerRow, StepReport, total
from proxsparse.learning.room import check_room
from proxsparse.learning.schedule import learning_rate_at, passes_at, seed_at
from proxsparse.learning.sharded_lean_update import ShardedLeanUpdate
from proxsparse.learning.sharded_originals import ShardedOriginals
from proxsparse.learning.sharded_update import ShardedUpdate
from proxsparse.learning.state import State
from proxsparse.learning.update import Update, UpdateFactory, choose_memory
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.activations import ActivationScales
from proxsparse.models.forward import arithmetic, quick_attention
from proxsparse.progress import Progress, no_progress
from proxsparse.proximal.counts import Sums, read_sums
from proxsparse.proximal.operator import prox_and_count_

UPDATES: dict[str, UpdateFactory] = {"full": FullUpdate, "lean": LeanUpdate}
SHARDED_UPDATES = {"full": ShardedUpdate, "lean": ShardedLeanUpdate}
MOST_DRIFT = 1e3  # how far weights may move on average, in units of the RMS of all prunable weights


class MaskLearner:
    """Learns the N:M mask of a causal language model.

    While the learner lives the model holds the soft weights, and only its prunable weights are trained. `restore()` puts
    the original weights back; the iterator calls it after the last step, and a `with` block however it is left.

    Parameters
    ----------
    model
        A causal language model of transformers.
    windows
        The calibration text, int64 (count, length) tokens.
    config
        Default: `LearnConfig()`.
    layers
        What is pruned; default: `prunable_layers(model, config.m)`.
    state
        What `state_dict` returned: go on from there. The metric is then not measured, but the one that was saved.
    metric, loss, update
        Take the place of what the configuration says; see `proxsparse.learning.metric`, `loss` and `update`.

    Attributes
    ----------
    scales
        {layer: metric}, None where the weight alone counts.
    unseen
        The layers that no token reached while activations were measured.
    start
        The masks of the original weights.
    squared_norms
        {layer: ‖W0‖²}.
    originals
        The original weights; `originals[layer]` is a matrix (out, in).

    Raises
    ------
    ProxSparseError
        For a model without prunable layers, too little text, or a state of another run. The model is then as it came.
    DivergedError
        From a step, where the loss is not finite or weights run away.

    References
    ----------
    Liu et al. 2025, arXiv 2502.00258, section 3.

    Examples
    --------
    >>> with MaskLearner(model, windows, LearnConfig(steps=80)) as learner:     # doctest: +SKIP
    ...     for report in learner:
    ...         print(report.step, report.loss)
    >>> learner.masks().apply_(model)                                           # doctest: +SKIP
    """

    def __init__(
        self,
        model,
        windows: Tensor,
        config: LearnConfig | None = None,
        layers: PrunableLayers | None = None,
        progress: Progress = no_progress,
        *,
        state: State | None = None,
        metric: Metric = configured_metric,
        loss: Loss = configured_loss,
        update: UpdateFactory | None = None,
    ):
        self.model, self.windows, self.config = model, windows, config or LearnConfig()
        self.layers = layers if layers is not None else prunable_layers(model, self.config.m)
        if len(windows) < self.config.windows_per_step:
            raise ProxSparseError(
                f"The calibration text has {len(windows)} windows and one step takes {self.config.batch} × "
                f"{self.config.accumulation} (batch × accumulation): give more text, shorter windows, or less of either."
            )
        check_room(self.config, model, self.layers, windows.shape[1])
        self.metric, self.loss = metric, loss
        self.device = next(model.parameters()).device
        self.home = next(
            iter(self.layers.parameters())
        ).device  # of what is learned: the host's memory where it is offloaded
        self.step_index, self.phase, self._pending, self.restored = 0, "gradient", None, False
        self.growth_left, self.lambda1 = self.config.ramp, self.config.lambda1 / self.config.ramp

        self.sharded = isinstance(self.layers, ShardedLayers)
        self.originals = ShardedOriginals(model, self.layers) if self.sharded else Originals(model, self.layers)
        self.squared_norms = self._summed({name: self.originals[name].double().square().sum() for name in self.layers})
        weights = sum(self.layers.numel(name) for name in self.layers)
        self._typical = math.sqrt(sum(self.squared_norms.values()) / weights) or math.inf
        self.memory = choose_memory(self.config, model, self.layers, self.home)
        if state is None:
            self.use_scales(metric(model, windows, self.layers, self.config, progress))
            self.start = MaskSet({name: self._project(name) for name in self.layers})
            self._previous = MaskSet(self.start)
        else:
            state = saved.current(state)
            saved.check(state, self)
            if self.config.memory == "auto":
                self.memory = state[1]["memory"]
            self._read(state)
        try:
            self._take_model(
                update
                or (partial(SHARDED_UPDATES[self.memory], self.originals) if self.sharded else UPDATES[self.memory])
            )
            if state is not None:
                saved.check_memory(state, self.memory)
                saved.put_weights(state, self)
        except BaseException:
            self.originals.put_back()
            raise

    def _take_model(self, update: UpdateFactory) -> None:
        """Let the model hold soft weights, and train nothing else of it."""
        if not self.sharded:  # else only these ask for one already
            self.model.zero_grad()  # `originals` keeps what there was
            self.model.requires_grad_(False)
            for parameter in self.originals.values:
                parameter.requires_grad_(True)
        self.update: Update = update(self.model, self.originals.values, self.config)
        self.memory = self.update.memory
        self.precision = "bf16" if self.memory == "lean" else self.config.precision

    def use_scales(self, scales: Mapping[str, Tensor | None]) -> None:
        """Compare magnitudes in this metric from now on. Relative λ1 is in units of the RMS of the original weights in it."""
        self.scales = {name: None if scale is None else scale.to(self.home) for name, scale in scales.items()}
        self.unseen = scales.unseen if isinstance(scales, ActivationScales) else ()
        squares = self._summed({name: self._squared(name) for name in self.layers})
        # A layer of zeros has 1: any strength leaves it as it is.
        self._rms = {name: math.sqrt(square / self.layers.numel(name)) or 1.0 for name, square in squares.items()}

    def __enter__(self) -> MaskLearner:
        self._expect(self.phase)
        return self

    def __exit__(self, *_) -> None:
        self.restore()

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
        started = clock(self.device)
        learning_rate = learning_rate_at(self.step_index, self.config)
        passes = passes_at(self.step_index, len(self.windows), self.config)
        with quick_attention(self.model, self.device, self.windows.shape[1]):
            taken = self.update.step(
                self.step_index, learning_rate, partial(self._backward, passes), self._loss_weight()
            )
        if not (math.isfinite(taken.loss) and math.isfinite(taken.gradient_norm)):
            raise self._diverged(f"the loss is {taken.loss:g} and the gradient norm {taken.gradient_norm:g}")
        self._pending = {
            "loss": taken.loss, "gradient_norm": taken.gradient_norm, "learning_rate": learning_rate,
            "seconds_gradient": clock(self.device) - started - taken.seconds_optimizer,
            "seconds_optimizer": taken.seconds_optimizer,
        }  # fmt: skip
        self.phase = "prox"
        return taken.loss

    def prox_step(self) -> StepReport:
        """Second half: the proximal operator on every prunable weight. Counts, in the same pass, what it touches."""
        self._expect("prox")
        started, sums = clock(self.device), []
        for index, (name, layer) in enumerate(self.layers.items()):
            counts = prox_and_count_(
                layer.matrix, self.absolute_lambda1(name), self.config.n, self.config.m, self.scales[name],
                self._previous[name], self.start[name], self.originals[name],
                self._rounding_seed(index),
            )  # fmt: skip
            self._previous[name] = counts.mask
            sums.append(counts.sums)
        operated = clock(self.device)
        values = self.layers.ranks.sum_(torch.stack(sums)).tolist()  # the one moment at which a GPU is waited for
        rows = [self._row(name, read_sums(line)) for name, line in zip(self.layers, values, strict=True)]
        ended = clock(self.device)
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
        """The projected masks of the soft weights as they are now. Where several ranks learn, all of them call it, and rank 0 is given
        the masks of all rows; the others an empty set."""
        own = self.own_masks()
        packed = self.layers.gathered({name: mask.packed for name, mask in own.items()})
        return MaskSet({name: _of_rows(rows, own[name]) for name, rows in packed.items()})

    def own_masks(self) -> MaskSet:
        """The masks of the rows that this rank holds: of all, where it is alone."""
        if self.phase == "gradient" or self.restored:
            return MaskSet(self._previous)
        return MaskSet({name: self._project(name) for name in self.layers})

    def loss_masks(self) -> MaskSet:
        """The masks under which the loss of this step is taken, where it is taken at the masked weights."""
        return self.own_masks()

    @contextmanager
    def projected(self, masks: MaskSet | None = None):
        """While open, the model holds the original weights under `masks` (default: the projected masks)."""
        with self.under(self.own_masks() if masks is None else self._own_rows(masks)):
            yield self.model

    @contextmanager
    def under(self, own: MaskSet):
        """While open, the model holds the original weights under these masks, of the rows that this rank holds."""
        own.check_fits(self.layers)
        with self.originals.holding(lambda parameter: self.originals.under(parameter, own, parameter.dtype)):
            yield self.model

    @contextmanager
    def dense(self):
        """While open, the model holds the original weights, unmasked, to be read only."""
        with self.originals.holding(self.originals.read):
            yield self.model

    def restore(self) -> None:
        """Put the original weights back, in their own dtype, and end the learner; `masks()` still answers."""
        if self.restored:
            return
        try:
            self._previous = self.own_masks()
        finally:
            del self.update  # and with it the moments
            self.originals.put_back()
            self.restored = True

    # Saving

    def state_dict(self) -> tuple[dict[str, Tensor], dict]:
        """Everything that the next step depends on: tensors (for safetensors) and the rest (for JSON)."""
        self._expect("gradient")
        return saved.written(self)

    def load_state_dict(self, tensors: dict[str, Tensor], rest: dict) -> None:
        """Go on from a saved state, exactly; better give it to the constructor, which then measures no metric. Raises
        ProxSparseError when it belongs to another model, metric, pattern or memory plan, or has a newer format."""
        self._expect("gradient")
        state = saved.current((tensors, rest))
        saved.check_memory(state, self.memory)
        saved.check(state, self)
        self._read(state)
        saved.put_weights(state, self)

    def _read(self, state: State) -> None:
        """Everything of a state but the soft weights and their moments, and what follows from it."""
        rest = state[1]
        self.step_index, self.growth_left, self.lambda1 = int(rest["step"]), rest["growth_left"], rest["lambda1"]
        self.use_scales(saved.scales_of(state, self))
        self.unseen = tuple(rest["unseen"])
        self.start, self._previous = (saved.masks_of(state, kind, self) for kind in ("start", "previous"))

    # Pieces

    def _grow(self) -> None:
        """λ1 moves by equal factors towards the ramp's end, which it reaches at the last step."""
        factor = growth_factor(self.growth_left, self.config.steps - self.step_index)
        self._lambda1 *= factor
        self.growth_left /= factor

    def _squared(self, name: str) -> Tensor:
        """The sum of squares of the original weights of this rank, in the metric."""
        matrix, scale = self.originals[name].float(), self.scales[name]
        return (matrix if scale is None else matrix * scale).square().sum()

    def _summed(self, numbers: dict[str, Tensor]) -> dict[str, float]:
        """One number a layer, over all ranks."""
        summed = self.layers.ranks.sum_(torch.stack(list(numbers.values())).double())
        return dict(zip(numbers, summed.tolist(), strict=True))

    def _own_rows(self, masks: MaskSet) -> MaskSet:
        rows = {name: self.layers.own_rows(name, mask.packed).to(self.home) for name, mask in masks.items()}
        return MaskSet({name: _of_rows(rows[name], mask) for name, mask in masks.items()})

    def _project(self, name: str) -> Mask:
        return Mask.project(self.layers[name].matrix, self.config.n, self.config.m, self.scales[name])

    def _backward(self, passes: Iterator[Tensor]) -> float:
        """Forward and backward of all passes of a step, this rank's windows of each; the mean loss of all ranks."""
        total_loss = 0.0
        for drawn in passes:
            own, share = self.layers.ranks.share(drawn)
            loss = self.loss(self, self.windows[own].to(self.device)) * share / self.config.accumulation
            if not loss.requires_grad:
                raise ProxSparseError(
                    f"No gradient reaches the prunable weights of {type(self.model).__name__}, and no mask can be learned for it: "
                    "choose another model, or a method without a gradient, such as Wanda."
                )
            loss.backward()
            total_loss += loss.item()
        return self.layers.ranks.sum_(torch.tensor(total_loss, dtype=torch.float64, device=self.device)).item()

    def _loss_weight(self) -> LossWeight | None:
        """`masked`: the original weights under the projected masks. Their gradient is taken for that of the soft weights
        (straight through the projection: Bengio et al. 2013, arXiv 1308.3432), so that the loss is that of the result."""
        if self.config.loss_at == "soft":
            return None
        multiplied_in = arithmetic(self.device, self.precision)
        return partial(self.originals.under, masks=self.loss_masks(), arithmetic=multiplied_in)

    def _rounding_seed(self, layer: int) -> int | None:
        """Depends on the position alone, so that a resumed run rounds alike; None where weights are float32."""
        if self.memory == "full":
            return None
        seed = seed_at(self.step_index, self.config) * len(self.layers) + layer
        return self.layers.ranks.own_seed(seed) % 2**31

    def _row(self, name: str, sums: Sums) -> LayerRow:
        n, m = self.config.n, self.config.m
        moved = math.sqrt(sums.squared_drift / self.layers.numel(name))
        if not (sums.finite and math.isfinite(sums.regularizer) and moved <= MOST_DRIFT * self._typical):
            raise self._diverged(f"the weights of {name} have moved by {moved:g} on average")
        return LayerRow.of(sums, self.layers.numel(name) // m, self.squared_norms[name], n, m)

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


def _of_rows(packed: Tensor, mask: Mask) -> Mask:
    """A mask as `mask` is, of these rows."""
    return Mask(packed, (len(packed), mask.shape[1]), mask.n, mask.m)
