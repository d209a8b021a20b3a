"""Figures, drawn from tables; the app, the command line and the notebooks all draw with these."""

from proxsparse.figures.comparison import output_errors, overlap_by_layer, overlap_matrix, perplexities, sweep
from proxsparse.figures.regularizer import (
    best_by_nonzeros,
    phase_diagram,
    proximal_path,
    proximal_point,
    regularizer_slice,
)
from proxsparse.figures.run import QUANTITIES, composition, flips, layer_heatmap, layer_values, learning_curve, strength

__all__ = [
    "QUANTITIES", "best_by_nonzeros", "composition", "flips", "layer_heatmap", "layer_values", "learning_curve",
    "output_errors", "overlap_by_layer", "overlap_matrix", "perplexities", "phase_diagram", "proximal_path", "proximal_point",
    "regularizer_slice", "strength", "sweep",
]  # fmt: skip
