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
from proxsparse.files import check_version, local_path
from proxsparse.masks.mask import Mask

if TYPE_CHECKING:
    from proxsparse.layers import PrunableLayer

VERSION = 1  # of the file format


class MaskSet(dict[str, Mask]):
    """The masks of a model by layer name; all of one pattern n:m.

    Examples
    --------
    >>> masks = MaskSet({"q_proj": Mask.project(torch.tensor([[1.0, -3.0, 2.0, 0.5]]))})
    >>> masks.pattern
    '2:4'
    """

    @property
    def n(self) -> int:
        """How many weights a group keeps at most. Raises ProxSparseError as `m` does."""
        return self._n_and_m()[0]

    @property
    def m(self) -> int:
        """How many weights a group has. Raises ProxSparseError for an empty set, and where patterns differ."""
        return self._n_and_m()[1]

    @property
    def pattern(self) -> str:
        """As it is written: 2:4. Raises ProxSparseError as `m` does."""
        return "{}:{}".format(*self._n_and_m())

    def _n_and_m(self) -> tuple[int, int]:
        found = {(mask.n, mask.m): name for name, mask in self.items()}
        if not found:
            raise ProxSparseError("There are no masks, and so no pattern: learn or load them first.")
        if len(found) > 1:
            examples = ", ".join(f"{n}:{m} in {name}" for (n, m), name in sorted(found.items()))
            raise ProxSparseError(f"These masks have several patterns ({examples}): give masks of one pattern.")
        return next(iter(found))

    def apply_(self, model: Module | Mapping[str, PrunableLayer]) -> None:
        """Set to zero, in place, what the masks drop.

        Parameters
        ----------
        model : transformers model or PrunableLayers
            Layers without a mask stay as they are.

        Raises
        ------
        ProxSparseError
            When a name or a shape differs; then nothing is written.
        """
        from proxsparse.layers import prunable_layers  # here: masks stand below layers, and need them only for a model

        layers = model if isinstance(model, Mapping) else prunable_layers(model, self.m)
        self.check_fits(layers)
        for name, mask in self.items():
            mask.applied_to(layers[name].matrix, out=layers[name].matrix)

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
        metadata = {"format": "pt", "content": "packed N:M masks", "version": str(VERSION), "masks": json.dumps(about)}
        save_file(tensors, local_path(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> MaskSet:
        """Read what `save` wrote. Raises ProxSparseError for a file that is not a mask file or breaks its own
        pattern, and for one that a newer version wrote."""
        try:
            with safe_open(local_path(path), "pt") as file:
                metadata = file.metadata() or {}
                # Files of before there was a version are read as those of version 1, which changed nothing else.
                check_version(int(metadata.get("version", VERSION)), VERSION, f"The mask file {path}")
                about = json.loads(metadata.get("masks", "null"))
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
