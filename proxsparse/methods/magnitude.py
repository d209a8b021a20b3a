"""Magnitude pruning: keep the largest weights of every group (Han et al. 2015, arXiv 1506.02626, on N:M groups)."""

from __future__ import annotations

from collections.abc import Mapping

from proxsparse.masks import Mask, MaskSet


def magnitude(layers: Mapping, n: int = 2, m: int = 4) -> MaskSet:
    """The n largest |w| of every group of m, layer by layer; needs no text.

    layers: {name: layer with `.matrix` (out, in)}, as `prunable_layers` gives them.
    """
    return MaskSet({name: Mask.project(layer.matrix, n, m) for name, layer in layers.items()})
