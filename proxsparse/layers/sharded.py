"""Each rank's part of the prunable layers of a model that several ranks share; see `proxsparse.layers.sharding`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from proxsparse.layers.layer import PrunableLayer, PrunableLayers
from proxsparse.layers.part import Part
from proxsparse.layers.ranks import Ranks

if TYPE_CHECKING:  # it takes a second to import, and most learners are alone
    from torch.distributed.tensor import DTensor

Holders = dict[str, tuple[nn.Module, str, nn.Module]]
"""{layer: (module that holds its parameter, the attribute, the decoder block)}"""


@dataclass(frozen=True, eq=False)
class RowShard(PrunableLayer):
    """The rows [first, first + out_features) of a layer, `whole`, that one rank holds; there may be none.

    `parameter` belongs to the rank alone: it takes what is learned. `whole` is the layer of the whole model, whose own
    parameter holds nothing any more: `whole.matrix_of` shows its matrix in a gathered parameter.
    """

    first: int = 0
    whole: PrunableLayer | None = None
    whole_out_features: int = 0


class ShardedLayers(PrunableLayers):
    """Each rank's rows of the prunable layers.

    model_parameters: {parameter of the shards: the model's, a DTensor of the same rows}.
    """

    def __init__(self, ranks: Ranks, holders: Holders):
        super().__init__(ranks)
        self.model_parameters: dict[nn.Parameter, DTensor] = {}
        self._holders = holders

    def gathered(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """{layer: tensor of its own rows, (rows, …)} → {layer: tensor of all rows}, on the CPU of rank 0; nothing on other ranks. All ranks
        call it; a layer at a time is whole on each."""
        found = {}
        for name, own in rows.items():
            layer = self[name]
            whole = own.new_zeros(layer.whole_out_features, *own.shape[1:])
            whole[layer.first : layer.first + len(own)] = own
            self.ranks.sum_(whole)
            if self.ranks.index == 0:
                found[name] = whole.cpu()
        return found

    def first_row(self, name: str) -> int:
        """See `PrunableLayers.first_row`."""
        return self[name].first

    def own_rows(self, name: str, whole: Tensor) -> Tensor:
        """Of a tensor of all rows of a layer, those that this rank holds."""
        layer = self[name]
        return whole[layer.first : layer.first + layer.out_features]

    def shape_of(self, own: nn.Parameter) -> torch.Size:
        """See `PrunableLayers.shape_of`."""
        return self.model_parameters[own].shape

    def part_of(self, own: nn.Parameter, whole: Tensor) -> Tensor:
        """See `PrunableLayers.part_of`."""
        begin = self._offsets(own)
        return whole[tuple(slice(first, first + size) for first, size in zip(begin, own.shape, strict=True))]

    def placed(self, own: nn.Parameter, part: Tensor) -> Part:
        """See `PrunableLayers.placed`."""
        return Part(part, self._offsets(own), tuple(self.shape_of(own)))

    def placed_rows(self, name: str, rows: Tensor) -> Part:
        """See `PrunableLayers.placed_rows`."""
        layer, rest = self[name], rows.shape[1:]
        return Part(rows, (layer.first, *(0 for _ in rest)), (layer.whole_out_features, *rest))

    def _offsets(self, own: nn.Parameter) -> tuple[int, ...]:
        """Where this rank's part of a parameter begins."""
        (cut,) = self.model_parameters[own].placements
        shape = self.shape_of(own)
        return tuple(self.ranks.first_of(size) if dim == cut.dim else 0 for dim, size in enumerate(shape))

    def take_own(self, layer: PrunableLayer, original: Tensor, device: torch.device) -> nn.Parameter:
        """This rank's part of a parameter whose block is sharded, in the dtype of its original values. layer: one that it holds."""
        module, attribute, _ = self._holders[layer.name]
        placed = getattr(module, attribute)
        own = nn.Parameter(original.new_empty(placed.to_local().shape, device=device))
        self.model_parameters[own] = placed
        own.data.copy_(self.part_of(own, original))
        return own

    def numel(self, name: str) -> int:
        """See `PrunableLayers.numel`."""
        return self[name].whole_out_features * self[name].in_features

    @contextmanager
    def located(self, names: dict[int, str]) -> Iterator[None]:
        """See `PrunableLayers.located`. Where a block lies is known while it is gathered: when it runs."""

        def gathered(block: nn.Module, _) -> None:
            for name, (module, attribute, own_block) in self._holders.items():
                if own_block is block:
                    names[self[name].whole.matrix_of(getattr(module, attribute).data).data_ptr()] = name

        def released(*_) -> None:
            names.clear()  # other tensors may come to lie there

        blocks = {id(block): block for *_, block in self._holders.values()}.values()
        hooks = [block.register_forward_pre_hook(gathered) for block in blocks]  # after FSDP's, which gathers
        hooks += [block.register_forward_hook(released) for block in blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
