"""Which weights are pruned: every linear map inside the decoder blocks, found by structure and not by name.

Never embeddings, norms or the LM head (they lie outside the blocks, or are no linear maps), and never a router, which
chooses experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from proxsparse.errors import ProxSparseError


@dataclass(frozen=True, eq=False)
class PrunableLayer:
    """One linear map. Its matrix is a view of what the model holds: writing to the view changes the model.

    block: index of the decoder block. projection: what it is called in every block, such as `q_proj`. parameter: what
    an optimizer owns; several experts may share one. expert: index in a parameter that holds all experts. transposed:
    stored as (in, out).
    """

    name: str
    block: int
    projection: str
    parameter: nn.Parameter
    expert: int | None = None
    transposed: bool = False

    def matrix_of(self, stored: Tensor) -> Tensor:
        """The (out_features, in_features) view of a tensor that is laid out as `parameter` is."""
        stored = stored if self.expert is None else stored[self.expert]
        return stored.t() if self.transposed else stored

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
    """The prunable layers of a model by name, in its order. skipped: {name: reason} of the linear maps left dense."""

    def __init__(self):
        super().__init__()
        self.skipped: dict[str, str] = {}

    def by_parameter(self) -> dict[nn.Parameter, list[PrunableLayer]]:
        """The layers that each parameter holds: one, or several experts."""
        found: dict[nn.Parameter, list[PrunableLayer]] = {}
        for layer in self.values():
            found.setdefault(layer.parameter, []).append(layer)
        return found

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


def prunable_layers(model, m: int = 4) -> PrunableLayers:
    """The linear maps in the decoder blocks of a causal language model whose input dimension is a multiple of `m`.

    Finds `nn.Linear`, the transposed `Conv1D` of GPT-2, fused projections, and experts that share a three-dimensional
    parameter (each expert is a layer of its own).

    Parameters
    ----------
    model : transformers model
        A causal language model.
    m : int
        The size of a group.

    Returns
    -------
    PrunableLayers
        By name, in the model's order; its `skipped` says what was left dense, and why.

    Raises
    ------
    ProxSparseError
        When there is none, or when weights are quantized.
    """
    found = PrunableLayers()
    embeddings = {
        id(module.weight)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
        if module is not None
    }
    for prefix, block_index, block in decoder_blocks(model):
        routers = _routers(block)
        maps = list(_linear_maps(block))
        ends = Counter(path.rsplit(".", 1)[-1] for path, _, _ in maps)
        for path, parameter, transposed in maps:
            name = f"{prefix}.{path}"
            if not parameter.is_floating_point():
                raise ProxSparseError(
                    f"{name} is quantized ({parameter.dtype}): load the model with its original weights."
                )
            if id(parameter) in embeddings:
                found.skipped[name] = "it shares its weight with the embeddings"
                continue
            if path in routers:
                found.skipped[name] = "router: it chooses experts and is left dense"
                continue
            if transposed is None:
                found.skipped[name] = "the layout of this three-dimensional parameter is not declared"
                continue
            last = path.rsplit(".", 1)[-1]
            projection = last if ends[last] == 1 and parameter.ndim == 2 else path
            for expert in range(len(parameter)) if parameter.ndim == 3 else [None]:
                full_name = name if expert is None else f"{name}.{expert}"
                layer = PrunableLayer(full_name, block_index, projection, parameter, expert, transposed)
                if layer.in_features % m:
                    found.skipped[full_name] = f"input dimension {layer.in_features} is not a multiple of {m}"
                else:
                    found[full_name] = layer
    if not found:
        reasons = "; ".join(sorted(set(found.skipped.values()))) or "no linear map lies in a decoder block"
        raise ProxSparseError(
            f"{type(model).__name__} has no prunable layer ({reasons}): choose another model or pattern."
        )
    return found


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


def decoder_blocks(model) -> Iterator[tuple[str, int, nn.Module]]:
    """(name, index, block): the largest list of modules that is as long as the configuration says the decoder is
    deep."""
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not lists:
        raise ProxSparseError(
            f"{type(model).__name__} has no list of {depth} decoder blocks: choose a causal language model."
        )
    name, blocks = max(lists, key=lambda entry: sum(parameter.numel() for parameter in entry[1].parameters()))
    for index, block in enumerate(blocks):
        yield f"{name}.{index}", index, block


def _linear_maps(block: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool | None]]:
    """(path in the block, parameter, whether it is stored transposed, None where unknown)."""
    for path, module in block.named_modules():
        if isinstance(module, nn.Linear):
            yield path, module.weight, False
        elif isinstance(module, Conv1D):
            yield path, module.weight, True
        else:
            for name, parameter in module.named_parameters(recurse=False):
                full = f"{path}.{name}" if path else name
                if parameter.ndim == 3 and "bias" not in name:
                    yield full, parameter, getattr(module, "is_transposed", None)
                elif parameter.ndim == 2 and name == "weight" and path in _routers(block):
                    yield path, parameter, False


def _routers(block: nn.Module) -> set[str]:
    """Paths of the modules that choose experts: they stand beside a module of experts and have one output an expert."""
    found = set()
    for path, module in block.named_modules():
        counts = [_expert_count(child) for child in module.children()]
        experts = max(counts, default=0)
        if not experts:
            continue
        for name, child in module.named_children():
            weight = getattr(child, "weight", None)
            if isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.shape[0] in (1, experts):
                found.add(f"{path}.{name}" if path else name)
    return found


def _expert_count(module: nn.Module) -> int:
    if isinstance(module, nn.ModuleList):
        return len(module)
    return max((len(parameter) for parameter in module.parameters(recurse=False) if parameter.ndim == 3), default=0)
