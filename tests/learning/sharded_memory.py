"""What one rank holds while a model of several blocks, whose weights lie in files, is shared out; in bytes, as JSON.

python tests/learning/sharded_memory.py DIRECTORY INDEX COUNT
"""

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import fsdp

from proxsparse import load_model, prunable_layers
from proxsparse.layers import decoder_blocks, shard_model


def bytes_held() -> int:
    """Of all tensors that anything in Python refers to; what shares its memory counts once."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor) and not each.is_meta]
    local = [each.to_local() if hasattr(each, "to_local") else each for each in tensors]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in local}.values())


def main(directory: str, index: str, count: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/store-of-{count}", rank=int(index), world_size=int(count)
    )
    model = load_model(str(Path(directory, "model")), "cpu", stream=True).model
    layers, shard, moments = prunable_layers(model), fsdp.fully_shard, []
    blocks = [sum(each.nbytes for each in block.parameters()) for _, _, block in decoder_blocks(model)]
    found = {"whole": sum(each.nbytes for each in model.parameters()), "blocks": blocks, "loaded": bytes_held()}

    def watched(module, **options):
        moments.append(bytes_held())  # a block, or at the end the model, is whole
        shard(module, **options)

    fsdp.fully_shard = watched
    shards = shard_model(model, layers, torch.float32)
    found |= {"moments": moments, "held": bytes_held(), "rows": sum(each.matrix.nbytes for each in shards.values())}
    Path(directory, f"{index}-of-{count}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
