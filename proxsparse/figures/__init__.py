"""Figures, drawn from tables; the app, the command line and the notebooks all draw with these."""

from proxsparse.figures.comparison import output_errors, overlap_by_layer, overlap_matrix, perplexities, sweep
from proxsparse.figures.probe import layer_costs, next_tokens
from proxsparse.figures.run import QUANTITIES, composition, flips, layer_heatmap, layer_values, learning_curve, strength

__all__ = [
    "QUANTITIES", "composition", "flips", "layer_costs", "layer_heatmap", "layer_values", "learning_curve", "next_tokens",
    "output_errors", "overlap_by_layer", "overlap_matrix", "perplexities", "strength", "sweep",
]  # fmt: skip
