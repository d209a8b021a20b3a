"""Figures, drawn from tables; the app, the command line and the notebooks all draw with these."""

from proxsparse.figures.comparison import output_errors, overlap_by_layer, overlap_matrix, perplexities, sweep
from proxsparse.figures.masks import (
    COLORINGS,
    agreement,
    group_path,
    layer_map,
    layer_picture,
    marked,
    mask_tile,
    pattern_shares,
)
from proxsparse.figures.run import QUANTITIES, composition, flips, layer_heatmap, layer_values, learning_curve, strength

__all__ = [
    "COLORINGS",
    "QUANTITIES",
    "agreement",
    "composition",
    "flips",
    "group_path",
    "layer_heatmap",
    "layer_map",
    "layer_picture",
    "layer_values",
    "learning_curve",
    "marked",
    "mask_tile",
    "output_errors",
    "overlap_by_layer",
    "overlap_matrix",
    "pattern_shares",
    "perplexities",
    "strength",
    "sweep",
]  # fmt: skip
