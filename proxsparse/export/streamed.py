"""Writing a model whose weights stay in their files: one file of the export at a time is in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from proxsparse.layers.stored import in_memory
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.compact import layers_by_parameter
from proxsparse.models.language_model import quiet_transformers
from proxsparse.models.streamed import parts_of

LEAST_SHARD_BYTES = 1 << 28  # of a file; smaller ones would spare no memory worth it


def save_streamed(model, masks: MaskSet, directory: Path) -> None:
    """As `save_pretrained` of the model under `masks`, in files that are at most as large as its largest block.

    `save_pretrained` asks for the weights of a model that was offloaded to disk one by one, where accelerate's hook would have them.
    """
    largest = max(sum(parameter.nbytes for parameter in parameters) for _, parameters in parts_of(model))
    model._hf_hook = SimpleNamespace(weights_map=_Masked(model, masks))
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attempting to save a model with offloaded modules")
            model.save_pretrained(directory, max_shard_size=max(largest, LEAST_SHARD_BYTES))
    finally:
        del model._hf_hook


class _Masked(Mapping):
    """{name: values of a parameter, zero where a mask drops them}, each read when it is asked for."""

    def __init__(self, model, masks: MaskSet):
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        self.masks, self.layers = masks, layers_by_parameter(model, masks)

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        parameter = self.parameters[name]
        with in_memory([parameter]):
            values = parameter.detach().cpu().clone()
        for layer in self.layers.get(id(parameter), ()):
            if layer.name in self.masks:
                matrix = layer.matrix_of(values)
                self.masks[layer.name].applied_to(matrix, out=matrix)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)
