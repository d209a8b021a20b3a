"""The weights that a model came with, while it holds others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from proxsparse.layers import PrunableLayers
from proxsparse.masks.mask_set import MaskSet

LossWeight = Callable[[nn.Parameter], Tensor]  # the value at which the loss is taken, in the parameter's shape


@contextmanager
def holding(parameters: Iterable[nn.Parameter], value: LossWeight) -> Iterator[None]:
    """While open, each parameter holds what `value` gives for it; gradients still arrive at the parameter."""
    before = {parameter: parameter.data for parameter in parameters}
    try:
        for parameter in before:
            parameter.data = value(parameter)
        yield
    finally:
        for parameter, data in before.items():
            parameter.data = data


class Originals:
    """A model as it came: the prunable weights by layer, and everything that `put_back` brings back.

    Attributes
    ----------
    parameters
        {name in the model: parameter} of the prunable parameters.
    values
        {parameter: its original values}, in the dtype they came in.
    """

    def __init__(self, model: nn.Module, layers: PrunableLayers):
        self.layers, self._layers_of = layers, layers.by_parameter()
        self.parameters = {
            name: parameter for name, parameter in model.named_parameters() if parameter in self._layers_of
        }
        self.values = {parameter: parameter.data for parameter in self._layers_of}
        self._linear = {module.weight for module in model.modules() if isinstance(module, nn.Linear | Conv1D)}
        # What `model.float()` casts is kept as it is, not cast back: that would be exact for weights of 16 bits only.
        self._parameters = [
            (parameter, parameter.data, parameter.requires_grad, parameter.grad) for parameter in model.parameters()
        ]
        self._buffers = [
            (module, name, buffer) for module in model.modules() for name, buffer in module.named_buffers(recurse=False)
        ]

    def __getitem__(self, name: str) -> Tensor:
        """The original weights of one layer, (out, in), a view in the dtype they came in."""
        layer = self.layers[name]
        return layer.matrix_of(self.values[layer.parameter])

    def read(self, parameter: nn.Parameter) -> Tensor:
        """The original values in the dtype that the parameter has now, to be read only: where they have it, they are no copy."""
        return self.values[parameter].to(parameter.dtype)

    def copy(self, parameter: nn.Parameter) -> Tensor:
        """A copy of the original values, in the dtype that the parameter has now."""
        return self.values[parameter].to(parameter.dtype, copy=True)

    def under(self, parameter: nn.Parameter, masks: MaskSet, arithmetic: torch.dtype) -> Tensor:
        """A copy of the original values that is zero where the mask of a layer drops; layers without a mask stay dense.

        The weight of a linear map has the dtype of `arithmetic`, in which matrices are multiplied: then autocast has nothing
        to cast, in any pass, and computes the same. Others keep the dtype that the parameter has now, because autocast may
        leave them alone: kernels that multiply all experts at once take what they are given, and some maps ask for float32.
        """
        original = self.values[parameter].to(arithmetic if parameter in self._linear else parameter.dtype)
        masked = torch.empty_like(original)
        for layer in self._layers_of[parameter]:
            matrix, out = layer.matrix_of(original), layer.matrix_of(masked)
            if layer.name in masks:
                masks[layer.name].applied_to(matrix, out)
            else:
                out.copy_(matrix)
        return masked

    @contextmanager
    def holding(self, value: LossWeight) -> Iterator[None]:
        """While open, the model holds what `value` gives for each prunable parameter."""
        with holding(self.values, value):
            yield

    def put_back(self) -> None:
        """Bring the model back as it came: weights, buffers, what asks for a gradient, and the gradients it held."""
        for parameter, data, requires_grad, gradient in self._parameters:
            parameter.data = data
            parameter.requires_grad_(requires_grad).grad = gradient
        for module, name, buffer in self._buffers:
            setattr(module, name, buffer)
