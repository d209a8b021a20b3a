"""A model whose blocks lie on several ranks, in whole rows: FSDP2 shards.

`torch.distributed.fsdp.fully_shard` leaves each rank a slice of every parameter of a block and gathers a whole block while
it runs. Slices are taken along the output dimension, so that no group is cut: a projection, the proximal operator and a
count concern the rank's own rows alone. Embeddings, final norm and LM head, which do not learn, are whole on every rank.

Of a model whose weights lie in files, no rank ever holds more than its part and one block.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from proxsparse.errors import ProxSparseError
from proxsparse.layers.find import decoder_blocks, outside_of
from proxsparse.layers.layer import PrunableLayer, PrunableLayers
from proxsparse.layers.ranks import Ranks
from proxsparse.layers.sharded import Holders, RowShard, ShardedLayers
from proxsparse.layers.stored import read_for_good


def shard_model(
    model: nn.Module,
    layers: PrunableLayers,
    arithmetic: torch.dtype,
    device: torch.device | str = "cpu",
    offload: bool = False,
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
    offload : bool
        Keep this rank's rows, shards and gradients in the host's memory, and on the device only blocks while they compute.

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
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
    from torch.distributed.tensor import Shard

    ranks = Ranks.started()
    mesh = init_device_mesh(torch.device(device).type, (ranks.count,))
    by_parameter = layers.by_parameter()
    # One block may be run in several places.
    blocks = list({id(block): block for *_, block in decoder_blocks(model)}.values())
    found = ShardedLayers(ranks, _holders(layers, blocks))
    found.skipped = layers.skipped
    shapes = {name: layer.matrix.shape for name, layer in layers.items()}
    own = dict[nn.Parameter, nn.Parameter]()
    dimensions = {parameter: _dimension(held, ranks) for parameter, held in by_parameter.items()}
    model.requires_grad_(False)
    home = torch.device("cpu" if offload else device)
    # Not pinned: a gradient in pinned memory is still being copied when whoever waits for it is told.
    policy = CPUOffloadPolicy(pin_memory=False) if offload else OffloadPolicy()

    def placement(parameter: nn.Parameter) -> Shard:
        return Shard(dimensions.get(parameter, 0))

    def cut(block: nn.Module) -> None:
        read_for_good(block)
        originals = {parameter: parameter.data for parameter in block.parameters() if parameter in by_parameter}
        _cast(block.to(device), by_parameter, arithmetic)
        fully_shard(block, mesh=mesh, shard_placement_fn=placement, offload_policy=policy)
        for parameter, original in originals.items():
            own[parameter] = found.take_own(by_parameter[parameter][0], original, home)
            # `layers` name it: else every rank would go on holding it whole.
            parameter.data = parameter.data.new_empty(0)

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
    fully_shard(model.base_model, mesh=mesh, ignored_params=outside, offload_policy=policy)
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


def _holders(layers: PrunableLayers, blocks: list[nn.Module]) -> Holders:
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


def _shard(layer: PrunableLayer, shape: torch.Size, own: nn.Parameter, ranks: Ranks) -> RowShard:
    rows, columns = shape
    about = {"whole": layer, "whole_out_features": rows}
    if layer.stored is None:
        first = ranks.first_of(rows)
        return RowShard(
            layer.name, layer.block, layer.projection, own, None, layer.transposed, None, first=first, **about
        )
    place = (layer.expert or 0) - ranks.first_of(layer.stored[0])
    if 0 <= place < own.shape[0]:
        return RowShard(
            layer.name, layer.block, layer.projection, own, place, layer.transposed, tuple(own.shape), first=0, **about
        )
    nothing = nn.Parameter(own.new_empty(0, columns), requires_grad=False)
    return RowShard(layer.name, layer.block, layer.projection, nothing, first=0, **about)
