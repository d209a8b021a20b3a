"""A model whose blocks lie on several ranks, in whole rows: FSDP2 shards, and each rank's part of the prunable layers.

`torch.distributed.fsdp.fully_shard` leaves each rank a slice of every parameter of a block and gathers a whole block while
it runs. Slices are taken along the output dimension, so that no group is cut: a projection, the proximal operator and a
count concern the rank's own rows alone. Embeddings, final norm and LM head, which do not learn, are whole on every rank.

Of a model whose weights lie in files, no rank ever holds more than its part and one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from proxsparse.errors import ProxSparseError
from proxsparse.layers.find import decoder_blocks, outside_of
from proxsparse.layers.layer import PrunableLayer, PrunableLayers
from proxsparse.layers.part import Part
from proxsparse.layers.ranks import Ranks
from proxsparse.layers.stored import read_for_good

if TYPE_CHECKING:  # these take a second to import, and most learners are alone
    from torch.distributed.tensor import DTensor, Shard


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

    def __init__(self, ranks: Ranks):
        super().__init__(ranks)
        self.model_parameters: dict[nn.Parameter, DTensor] = {}
        self._holders: dict[str, tuple[nn.Module, str, nn.Module]] = {}  # {layer: (module, its attribute, its block)}

    def gathered(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """{layer: tensor of its own rows, (rows, …)} → {layer: tensor of all rows}, on every rank. All ranks call it."""
        found = {}
        for name, own in rows.items():
            layer = self[name]
            found[name] = own.new_zeros(layer.whole_out_features, *own.shape[1:])
            found[name][layer.first : layer.first + len(own)] = own
            self.ranks.sum_(found[name])
        return found

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
        return tuple(_first(size, self.ranks) if dim == cut.dim else 0 for dim, size in enumerate(shape))

    def _take_own(self, layer: PrunableLayer, original: Tensor, device: torch.device) -> nn.Parameter:
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


def shard_model(
    model: nn.Module, layers: PrunableLayers, arithmetic: torch.dtype, device: torch.device | str = "cpu"
) -> ShardedLayers:
    """Shard the decoder blocks of a model over all ranks, in place, and return this rank's rows of its layers.

    All ranks call it, with the same model. Block after block is read, where its weights lie in files, cut, and let go. Only the prunable
    weights ask for a gradient afterwards.

    Parameters
    ----------
    model : transformers model
        The same on every rank; its weights are in memory, or in files (`load_model(..., stream=True)`), and nothing of it is streamed
        afterwards.
    layers : PrunableLayers
        Of `model`; they hold no weights afterwards.
    arithmetic : torch.dtype
        In what matrices are multiplied: the weights of linear maps get it, so that as few bytes as possible are gathered. Everything else
        becomes float32, as a learner on one device has it. So do all prunable weights of a block that holds them in other modules, such
        as all experts in one parameter: FSDP2 wants one dtype for what learns in a block.
    device : torch.device or str
        Of this rank.

    Returns
    -------
    ShardedLayers

    Raises
    ------
    ProxSparseError
        Where a parameter cannot be cut into whole rows: a transposed one whose output dimension is no multiple of the
        number of ranks, or one that stores its matrices in another shape.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    ranks = Ranks.started()
    mesh = init_device_mesh(torch.device(device).type, (ranks.count,))
    by_parameter = layers.by_parameter()
    blocks = list(
        {id(block): block for *_, block in decoder_blocks(model)}.values()
    )  # one may be run in several places
    found = ShardedLayers(ranks)
    found.skipped, found._holders = layers.skipped, _holders(layers, blocks)
    shapes = {name: layer.matrix.shape for name, layer in layers.items()}
    own = dict[nn.Parameter, nn.Parameter]()
    dimensions = {parameter: _dimension(held, ranks) for parameter, held in by_parameter.items()}
    model.requires_grad_(False)

    def placement(parameter: nn.Parameter) -> Shard:
        return Shard(dimensions.get(parameter, 0))

    def cut(block: nn.Module) -> None:
        read_for_good(block)
        originals = {parameter: parameter.data for parameter in block.parameters() if parameter in by_parameter}
        _cast(block.to(device), by_parameter, arithmetic)
        fully_shard(block, mesh=mesh, shard_placement_fn=placement)
        for parameter, original in originals.items():
            own[parameter] = found._take_own(by_parameter[parameter][0], original, torch.device(device))
            parameter.data = parameter.data.new_empty(
                0
            )  # `layers` name it: else every rank would go on holding it whole

    for block in blocks:  # of which one at a time is whole, read from files or on the device
        cut(block)
    for name, layer in layers.items():
        found[name] = _shard(layer, shapes[name], own[layer.parameter], ranks)
    read_for_good(model)  # what lies outside of the blocks
    outside = set(outside_of(blocks, model))
    for parameter in outside:
        parameter.data = parameter.data.to(device, torch.float32)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    # The root, which prefetches the next block, is what both the model and whoever needs hidden states alone run through.
    fully_shard(model.base_model, mesh=mesh, ignored_params=outside)
    for module in model.modules():
        if hasattr(module, "set_gradient_divide_factor"):  # each rank's loss is weighted already: gradients are summed
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return found


def _dimension(held: list[PrunableLayer], ranks: Ranks) -> int:
    """Along which dimension a parameter is cut: experts apart, else output features."""
    first = held[0]
    shape = tuple(first.parameter.shape)
    if first.stored is not None and shape != first.stored:
        raise ProxSparseError(
            f"{first.name} is stored as {shape}, in which rows of several matrices follow each other: it cannot be learned on "
            "several ranks yet; use one."
        )
    if first.stored is None and first.transposed:
        if shape[1] % ranks.count:
            raise ProxSparseError(
                f"{first.name} has {shape[1]} outputs, stored as columns, and {ranks.count} ranks cannot share them evenly: use a number "
                f"of ranks that divides {shape[1]}."
            )
        return 1
    return 0


def _holders(layers: PrunableLayers, blocks) -> dict[str, tuple[nn.Module, str, nn.Module]]:
    places = {
        parameter: (module, name, block)
        for block in blocks
        for module in block.modules()
        for name, parameter in module.named_parameters(recurse=False)
    }
    return {name: places[layer.parameter] for name, layer in layers.items()}


def _cast(block: nn.Module, trained: dict[nn.Parameter, list[PrunableLayer]], arithmetic: torch.dtype) -> None:
    """Give the parameters of a block the dtype that they are going to have, and let those that learn ask for a gradient."""
    block.float()
    maps = {module.weight for module in block.modules() if isinstance(module, nn.Linear | Conv1D)}
    learning = [parameter for parameter in block.parameters() if parameter in trained]
    dtype = arithmetic if all(parameter in maps for parameter in learning) else torch.float32
    for parameter in learning:
        parameter.data = parameter.data.to(dtype).contiguous()
        parameter.requires_grad_(True)


def _first(size: int, ranks: Ranks) -> int:
    """Where a rank's part of a dimension begins, as torch.chunk cuts it: the last parts may be shorter, or empty."""
    return min(ranks.index * -(-size // ranks.count), size)


def _shard(layer: PrunableLayer, shape: torch.Size, own: nn.Parameter, ranks: Ranks) -> RowShard:
    rows, columns = shape
    about = {"whole": layer, "whole_out_features": rows}
    if layer.stored is None:
        first = _first(rows, ranks)
        return RowShard(
            layer.name, layer.block, layer.projection, own, None, layer.transposed, None, first=first, **about
        )
    place = (layer.expert or 0) - _first(layer.stored[0], ranks)
    if 0 <= place < own.shape[0]:
        return RowShard(
            layer.name, layer.block, layer.projection, own, place, layer.transposed, tuple(own.shape), first=0, **about
        )
    nothing = nn.Parameter(own.new_empty(0, columns), requires_grad=False)
    return RowShard(layer.name, layer.block, layer.projection, nothing, first=0, **about)
