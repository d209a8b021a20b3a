"""In which order a model's channels stand, where they were reordered: on disk, applied, undone, and what it changes in the outputs.

The neurons between two linear maps may stand in any order, as long as both maps follow it: the function stays the same, but other weights
share a group (Pool & Yu 2021, Channel Permutations for N:M Sparsity, NeurIPS).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.files import ORDER_FILE, check_version, local_path
from proxsparse.layers.find import decoder_blocks

VERSION = 1
ROUNDING = 1e-3  # more than another order of summation changes an output in float32; a channel in the wrong place changes all of it


class ChannelOrder(dict[str, tuple[int, Tensor]]):
    """{parameter: (dimension, order)}: entry i of the reordered one is entry order[i] of the original. order: int64 (channels,)."""

    @torch.no_grad()
    def apply_(self, model) -> None:
        """Reorder the parameters of `model`. Raises ProxSparseError where it has others."""
        parameters = dict(model.named_parameters())
        for name, (dim, order) in self.items():
            if name not in parameters or parameters[name].ndim <= dim or parameters[name].shape[dim] != len(order):
                raise ProxSparseError(
                    f"The model has no {name!r} of {len(order):,} channels, whose order was changed: give the model that was reordered."
                )
        for name, (dim, order) in self.items():
            parameters[name].copy_(parameters[name].index_select(dim, order.to(parameters[name].device)))

    def inverse(self) -> ChannelOrder:
        """What undoes it."""
        return ChannelOrder({name: (dim, order.argsort()) for name, (dim, order) in self.items()})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: an int32 tensor a parameter, the dimensions in the metadata."""
        tensors = {name: order.to(torch.int32).cpu().contiguous() for name, (_, order) in self.items()}
        dims = json.dumps({name: dim for name, (dim, _) in self.items()})
        metadata = {"format": "pt", "content": "order of channels", "version": str(VERSION), "dimensions": dims}
        save_file(tensors, local_path(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> ChannelOrder:
        """Read what `save` wrote. Raises ProxSparseError for another file, a newer version, and what is no order."""
        found = cls()
        try:
            with safe_open(local_path(path), "pt") as file:
                metadata = file.metadata() or {}
                check_version(int(metadata.get("version", VERSION)), VERSION, f"The order of channels {path}")
                for name, dim in json.loads(metadata.get("dimensions", "null")).items():
                    found[name] = (int(dim), file.get_tensor(name).to(torch.int64))
        except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
            raise ProxSparseError(
                f"{path} cannot be read as an order of channels ({error}): give a directory that `reorder` or `export` wrote."
            ) from error
        for name, (dim, order) in found.items():
            if dim < 0 or order.ndim != 1 or not torch.equal(order.sort().values, torch.arange(len(order))):
                raise ProxSparseError(
                    f"The order of {name!r} in {path} does not name every channel once: the file is damaged."
                )
        return found


def order_of(directory: str | Path) -> ChannelOrder | None:
    """That of the model in a directory; None where its channels were not reordered."""
    path = local_path(directory) / ORDER_FILE
    return ChannelOrder.load(path) if path.is_file() else None


@torch.no_grad()
def change_of_outputs(model, order: ChannelOrder) -> float:
    """Apply `order` to `model`, and say by how much the outputs of its attention and feed-forward parts change.

    All children of every decoder block are looked at, on 64 tokens drawn with a fixed seed, since a fault in one block can drown in what
    the others add. Returned is the largest ‖changed − original‖ ∕ ‖original‖ in float32, where rounding alone gives about 1e-6.
    """
    with _in_float32(model):
        before = _outputs(model)
        order.apply_(model)
        after = _outputs(model)
    return max(float((after[name] - value).norm() / value.norm().clamp_min(1e-30)) for name, value in before.items())


def within_rounding(change: float) -> bool:
    """Whether a change of the outputs is what another order of summation makes."""
    return change <= ROUNDING  # false for NaN, too


@contextmanager
def _in_float32(model) -> Iterator[None]:
    """The weights of `model` in float32 while open: in bf16, rounding alone can change an output by 3%."""
    dtypes = [(parameter, parameter.dtype) for parameter in model.parameters()]
    for parameter, _ in dtypes:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in dtypes:
            parameter.data = parameter.data.to(dtype)


def _outputs(model) -> dict[str, Tensor]:
    """{child of a decoder block: its output, float32}, and the logits under the empty name."""
    found: dict[str, Tensor] = {}

    def keep(name):
        def hook(_module, _inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor) and first.is_floating_point():
                found[name] = first.float()

        return hook

    hooks = [
        child.register_forward_hook(keep(f"{block}.{name}"))
        for block, _, module in decoder_blocks(model)
        for name, child in module.named_children()
    ]
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(vocabulary, (1, 64), generator=torch.Generator().manual_seed(0))
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or tokens.shape[1]
    try:
        found[""] = model(input_ids=tokens[:, :limit].to(model.device), use_cache=False).logits.float()
    finally:
        for hook in hooks:
            hook.remove()
    return found
