"""The masks of a model, by layer name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import Module

from proxsparse.errors import ProxSparseError
from proxsparse.masks.mask import Mask

if TYPE_CHECKING:
    from proxsparse.layers import PrunableLayer

MASKS_FILE = "masks.safetensors"  # beside the weights of an exported model


class MaskSet(dict[str, Mask]):
    """The masks of a model by layer name."""

    def apply_(self, model: Module | Mapping[str, PrunableLayer]) -> None:
        """Multiply every layer of `model` that has a mask by it, in place.

        model: a transformers model, or the prunable layers of one. Raises ProxSparseError when a name or a shape
        differs; then nothing is written.
        """
        from proxsparse.layers import prunable_layers  # here: masks stand below layers, and need them only for a model

        layers = model if isinstance(model, Mapping) else prunable_layers(model, next(iter(self.values())).m)
        self.check_fits(layers)
        for name, mask in self.items():
            matrix = layers[name].matrix
            matrix.masked_fill_(~mask.dense(matrix.device), 0)  # not a product: 0 · inf is not 0, and -0 is not 0

    def check_fits(self, layers: Mapping[str, PrunableLayer]) -> None:
        """Raise ProxSparseError unless every mask has a layer of its name and shape among `layers`."""
        missing = [name for name in self if name not in layers]
        if missing:
            raise ProxSparseError(
                f"The model has no prunable layer {missing[0]!r}: these masks belong to another model."
            )
        for name, mask in self.items():
            if tuple(layers[name].matrix.shape) != mask.shape:
                raise ProxSparseError(
                    f"The mask of {name!r} has shape {mask.shape} and the layer {tuple(layers[name].matrix.shape)}: these "
                    "masks belong to another model."
                )

    def flips(self, other: MaskSet) -> dict[str, int]:
        """Layer by layer, how many weights are kept by one of the two sets and dropped by the other."""
        if self.keys() != other.keys():
            raise ProxSparseError("These mask sets name different layers: they belong to different models.")
        return {name: mask.flips(other[name]) for name, mask in self.items()}

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: one packed uint8 tensor a layer, shapes and pattern in the metadata."""
        tensors = {name: mask.packed.contiguous().cpu() for name, mask in self.items()}
        about = {name: [*mask.shape, mask.n, mask.m] for name, mask in self.items()}
        save_file(tensors, path, metadata={"format": "pt", "content": "packed N:M masks", "masks": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> MaskSet:
        """Read what `save` wrote. Raises ProxSparseError for a file that is not a mask file or breaks its own
        pattern."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("masks", "null"))
                if about is None:
                    raise ProxSparseError(f"{path} holds no packed masks: give a file that MaskSet.save wrote.")
                masks = cls()
                for name, (rows, columns, n, m) in about.items():
                    masks[name] = Mask(file.get_tensor(name), (rows, columns), n, m)
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise ProxSparseError(
                f"{path} cannot be read as packed masks ({error}): give a file that MaskSet.save wrote."
            ) from error
        for name, mask in masks.items():
            if tuple(mask.packed.shape) != (mask.shape[0], -(-mask.shape[1] // 8)) or not mask.is_valid():
                raise ProxSparseError(f"The mask of {name!r} in {path} is not {mask.n}:{mask.m}: the file is damaged.")
        return masks
