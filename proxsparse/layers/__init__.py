"""Which weights are pruned, and why the others are not."""

from proxsparse.layers.find import decoder_blocks, prunable_layers
from proxsparse.layers.layer import PrunableLayer, PrunableLayers, only_these_learn

__all__ = ["PrunableLayer", "PrunableLayers", "decoder_blocks", "only_these_learn", "prunable_layers"]
