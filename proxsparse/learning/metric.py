"""The metric that a learner is given: the scale in which the magnitudes of a layer compete."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from proxsparse.config import LearnConfig
from proxsparse.layers import PrunableLayers
from proxsparse.models.activations import activation_scales
from proxsparse.progress import Progress

Metric = Callable[[nn.Module, Tensor, PrunableLayers, LearnConfig, Progress], Mapping[str, Tensor | None]]
"""(model, windows, layers, config, progress) → {layer: positive scale, (in,) or (out, in); None: the weight alone}."""


def configured_metric(
    model: nn.Module, windows: Tensor, layers: PrunableLayers, config: LearnConfig, progress: Progress
) -> Mapping[str, Tensor | None]:
    """What `config.metric` says: the weight alone, or the activations on the first `config.metric_windows` windows."""
    if config.metric == "weight":
        return dict.fromkeys(layers)
    return activation_scales(model, layers, windows[: config.metric_windows], config.precision, progress)
