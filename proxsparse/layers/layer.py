"""One prunable linear map, and those of a model by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from proxsparse.layers.part import Part
from proxsparse.layers.ranks import ALONE, Ranks
from proxsparse.layers.stored import in_memory


@dataclass(frozen=True, eq=False)
class PrunableLayer:
    """One linear map. Its matrix is a view of what the model holds: writing to the view changes the model.

    block: index of the decoder block. projection: what it is called in every block, such as `q_proj`. parameter: what
    an optimizer owns; several experts may share one. expert: index in a parameter that holds all experts. transposed:
    stored as (in, out). stored: the stored values as (experts, rows, columns), where they have another shape: heads may
    be stored apart, or all experts as one matrix.
    """

    name: str
    block: int
    projection: str
    parameter: nn.Parameter
    expert: int | None = None
    transposed: bool = False
    stored: tuple[int, int, int] | None = None

    def matrix_of(self, values: Tensor) -> Tensor:
        """The (out_features, in_features) view of a tensor that is laid out as `parameter` is."""
        if self.stored is not None:
            values = values.view(self.stored)[self.expert or 0]
        return values.t() if self.transposed else values

    @property
    def matrix(self) -> Tensor:
        """(out_features, in_features), detached, no copy; groups run along dimension 1."""
        return self.matrix_of(self.parameter.data)

    @property
    def out_features(self) -> int:
        return self.matrix.shape[0]

    @property
    def in_features(self) -> int:
        return self.matrix.shape[1]

    @property
    def numel(self) -> int:
        return self.matrix.numel()


class PrunableLayers(dict[str, PrunableLayer]):
    """The prunable layers of a model by name, in its order. skipped: {name: reason} of everything else in the
    decoder blocks that has two dimensions or more, and is left dense. ranks: who holds rows of them; see `sharded`."""

    def __init__(self, ranks: Ranks = ALONE):
        super().__init__()
        self.skipped: dict[str, str] = {}
        self.ranks = ranks

    def by_parameter(self) -> dict[nn.Parameter, list[PrunableLayer]]:
        """The layers that each parameter holds: one, or several experts."""
        found: dict[nn.Parameter, list[PrunableLayer]] = {}
        for layer in self.values():
            found.setdefault(layer.parameter, []).append(layer)
        return found

    def numel(self, name: str) -> int:
        """How many weights a layer has, on all ranks together."""
        return self[name].numel

    def shape_of(self, own: nn.Parameter) -> torch.Size:
        """The shape of a parameter, of which this rank may hold a part, in the model."""
        return own.shape

    def part_of(self, own: nn.Parameter, whole: Tensor) -> Tensor:
        """Of a tensor that is laid out as the whole parameter is, or of anything with slices of that shape, what this rank holds."""
        return whole[:]

    def placed(self, own: nn.Parameter, part: Tensor) -> Tensor | Part:
        """What this rank holds of a tensor that is laid out as the parameter is, with where it lies in the whole."""
        return part

    def placed_rows(self, name: str, rows: Tensor) -> Tensor | Part:
        """The rows that this rank holds of a tensor of all rows of a layer, with where they lie in the whole."""
        return rows

    def gathered(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """{layer: tensor of the rows that this rank holds} → {layer: tensor of all rows}; on rank 0 alone where there are several."""
        return rows

    def first_row(self, name: str) -> int:
        """Of a layer, the first row that this rank holds."""
        return 0

    def own_rows(self, name: str, whole: Tensor) -> Tensor:
        """Of a tensor of all rows of a layer, or of anything with slices of that shape, those that this rank holds."""
        return whole[:]

    @contextmanager
    def located(self, names: dict[int, str]) -> Iterator[None]:
        """While open, and while a block runs, `names` has for the address of each of its matrices the layer's name."""
        names.update({layer.matrix.data_ptr(): name for name, layer in self.items()})
        yield

    def in_turn(self) -> Iterator[PrunableLayer]:
        """The layers in order, each with its weights in memory for as long as it is looked at; see `in_memory`."""
        for parameter, layers in self.by_parameter().items():
            with in_memory([parameter]):
                yield from layers

    def parameters(self) -> list[nn.Parameter]:
        """What an optimizer trains: each parameter once."""
        return list(self.by_parameter())

    @contextmanager
    def on_copies(self) -> Iterator[None]:
        """While open, the layers hold copies of their weights, which may be overwritten; then the originals are back."""
        originals = {parameter: parameter.data for parameter in self.parameters()}
        try:
            for parameter, original in originals.items():
                parameter.data = original.clone()
            yield
        finally:
            for parameter, original in originals.items():
                parameter.data = original

    def describe(self) -> list[dict]:
        """One row a layer, as JSON: name, block, projection, rows (out), columns (in)."""
        return [
            {
                "name": layer.name, "block": layer.block, "projection": layer.projection,
                "rows": layer.out_features, "columns": layer.in_features,
            }
            for layer in self.values()
        ]  # fmt: skip


@contextmanager
def only_these_learn(model, parameters: list[nn.Parameter]) -> Iterator[None]:
    """While open, only `parameters` ask for a gradient, and none holds one; afterwards all is as it was."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True).grad = None
        yield
    finally:
        for parameter, required, gradient in before:
            parameter.requires_grad_(required).grad = gradient
