"""Figures, drawn from tables; the app, the command line and the notebooks all draw with these."""

from proxsparse.figures.branches import Course, learning_curves
from proxsparse.figures.comparison import output_errors, overlap_by_layer, overlap_matrix, perplexities
from proxsparse.figures.group_paths import group_path
from proxsparse.figures.look import marked
from proxsparse.figures.probe import layer_costs, next_tokens
from proxsparse.figures.regularizer import (
    best_by_nonzeros,
    phase_diagram,
    proximal_path,
    proximal_point,
    regularizer_slice,
)
from proxsparse.figures.run import QUANTITIES, composition, flips, layer_heatmap, layer_values, learning_curve, strength
from proxsparse.figures.sweep import sweep, sweep_trials
from proxsparse.figures.tiles import COLORINGS, mask_tile
from proxsparse.figures.tradeoffs import against_perplexity
from proxsparse.figures.whole_masks import agreement, layer_map, layer_picture, pattern_shares

__all__ = [
    "COLORINGS",
    "QUANTITIES",
    "Course",
    "against_perplexity",
    "agreement",
    "best_by_nonzeros",
    "composition",
    "flips",
    "group_path",
    "layer_costs",
    "layer_heatmap",
    "layer_map",
    "layer_picture",
    "layer_values",
    "learning_curve",
    "learning_curves",
    "marked",
    "mask_tile",
    "next_tokens",
    "output_errors",
    "overlap_by_layer",
    "overlap_matrix",
    "pattern_shares",
    "perplexities",
    "phase_diagram",
    "proximal_path",
    "proximal_point",
    "regularizer_slice",
    "strength",
    "sweep",
    "sweep_trials",
]
