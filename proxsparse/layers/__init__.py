"""Which weights are pruned, and why the others are not."""

from proxsparse.layers.find import decoder_blocks, outside_of, prunable_layers
from proxsparse.layers.layer import PrunableLayer, PrunableLayers, only_these_learn
from proxsparse.layers.sharded import ShardedLayers
from proxsparse.layers.sharding import shard_model

__all__ = [
    "PrunableLayer",
    "PrunableLayers",
    "ShardedLayers",
    "decoder_blocks",
    "only_these_learn",
    "outside_of",
    "prunable_layers",
    "shard_model",
]
