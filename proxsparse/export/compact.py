"""Writing an N:M checkpoint without its zeros; `proxsparse.models.compact` tells the format and reads it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from proxsparse.files import COMPACT_FILE, MASKS_FILE, write_json
from proxsparse.layers import PrunableLayer
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.compact import (
    FORMAT,
    VERSION,
    digest_of,
    layers_by_parameter,
    slots_of,
    stored_key,
)
from proxsparse.models.language_model import dtype_name
from proxsparse.progress import Progress, no_progress

SHARD_BYTES = 5_000_000_000  # as `save_pretrained` cuts; so much is held beside the model while a file is written


def keep_values(weight: Tensor, mask: Mask) -> Tensor:
    """(out, in) → (out, in·n/m): the kept weights of every group in their order, zeros after them where fewer than n
    are kept."""
    kept = mask.dense(weight.device)
    values = weight.masked_select(kept)
    slots = slots_of(kept, mask)
    if slots is not None:
        values = weight.new_zeros(slots.shape).masked_scatter_(slots, values)
    return values.view(mask.shape[0], -1)


@dataclass(frozen=True)
class _Entry:
    """One tensor to be written. make: the tensor, made when its file is."""

    key: str
    bytes: int
    make: Callable[[], Tensor]


def write_compact(model, masks: MaskSet, directory: Path, progress: Progress = no_progress) -> None:
    """Write weights, masks and configuration of `model`, with its original weights, under `masks` into `directory`.

    The model is only read. At most one file's tensors are held beside it.
    """
    directory = Path(directory)
    masks.save(directory / MASKS_FILE)
    digest = digest_of(directory / MASKS_FILE)
    entries, tied = _entries(model, masks)
    shards = _shards(entries)
    files = {}
    for index, shard in enumerate(shards):
        progress(index, len(shards), "writing the weights")
        name = "compact.safetensors" if len(shards) == 1 else f"compact-{index + 1:05}-of-{len(shards):05}.safetensors"
        save_file(
            {entry.key: entry.make() for entry in shard}, directory / name, {"format": "pt", "masks_sha256": digest}
        )
        files |= {entry.key: name for entry in shard}
    about = {
        "format": FORMAT, "version": VERSION, "pattern": masks.pattern, "masks_sha256": digest,
        "files": files, "tied": tied,
    }  # fmt: skip
    write_json(directory / COMPACT_FILE, about)
    config = copy.deepcopy(model.config)
    config.dtype, config.architectures = dtype_name(model.dtype), [type(model).__name__]
    config.save_pretrained(directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)


def stored_tensors(model) -> Iterator[tuple[str, Tensor, str | None]]:
    """(key, tensor, key of an earlier entry that shares its memory) of all that a checkpoint of `model` holds."""
    first = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        place = id(tensor) if tensor.is_meta else (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        same = first.setdefault(place, key) if tensor.numel() else key
        yield key, tensor.detach(), None if same == key else same


def _entries(model, masks: MaskSet) -> tuple[list[_Entry], dict[str, str]]:
    """What is to be written, in the model's order, and {key: key it shares its weights with}."""
    layers = layers_by_parameter(model, masks)
    parameters = model.state_dict(keep_vars=True)
    entries, tied = [], {}
    for key, tensor, same in stored_tensors(model):
        if same is not None:
            tied[key] = same
        elif id(parameters[key]) in layers:
            entries += [_layer_entry(layer, masks) for layer in layers[id(parameters[key])]]
        else:
            entries.append(_Entry(key, tensor.nbytes, lambda tensor=tensor: _alone(tensor)))
    return entries, tied


def _layer_entry(layer: PrunableLayer, masks: MaskSet) -> _Entry:
    matrix = layer.matrix
    if layer.name not in masks:
        return _Entry(stored_key(layer.name, masks), matrix.nbytes, lambda: _alone(matrix))
    mask = masks[layer.name]
    return _Entry(
        stored_key(layer.name, masks), matrix.nbytes * mask.n // mask.m, lambda: keep_values(matrix, mask).cpu()
    )


def _shards(entries: list[_Entry]) -> list[list[_Entry]]:
    """Consecutive entries of at most SHARD_BYTES together, or one alone that is larger."""
    shards, room = [], 0
    for entry in entries:
        if entry.bytes > room or not shards:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(entry)
        room -= entry.bytes
    return shards


def _alone(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, and in a storage that holds nothing else: what safetensors writes."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
