"""Which weights are pruned: every linear map inside the decoder blocks, found by what it does and not by name.

Never embeddings, norms or the LM head (they lie outside the blocks, or are no linear maps), and never a router, which
chooses experts. Every parameter of two dimensions or more in a block is pruned, or listed with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from proxsparse.errors import ProxSparseError
from proxsparse.layers.layer import PrunableLayer, PrunableLayers
from proxsparse.layers.trace import Roles, Use, roles_of


@dataclass(frozen=True)
class _Weight:
    """A parameter of two dimensions or more in a block. path: where it is in the block, as users know it; key: where it is in
    the model. module: what holds it."""

    path: str
    key: str
    parameter: nn.Parameter
    module: nn.Module


@dataclass(frozen=True)
class _Layout:
    """How a parameter holds its matrices; see `PrunableLayer`."""

    transposed: bool = False
    stored: tuple[int, int, int] | None = None

    @property
    def experts(self) -> list[int | None]:
        """The index of each; None where there is one alone."""
        return [None] if self.stored is None or self.stored[0] == 1 else list(range(self.stored[0]))


def prunable_layers(model, m: int = 4) -> PrunableLayers:
    """The linear maps in the decoder blocks of a causal language model whose input dimension is a multiple of `m`.

    A parameter is one, or holds several, if a forward pass over a few tokens multiplies it as a matrix: `nn.Linear`, the transposed
    `Conv1D` of GPT-2, fused projections, heads that are stored apart, and experts that share a parameter (each expert is
    a layer of its own). What is left dense is told in `skipped`. The pass is made once for a model.

    Parameters
    ----------
    model : transformers model
        A causal language model.
    m : int
        Group size.

    Returns
    -------
    PrunableLayers

    Raises
    ------
    ProxSparseError
        When there is no layer, when weights are quantized, or for a model that a text alone does not run.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not parameter.is_floating_point():
            raise ProxSparseError(f"{name} is quantized ({parameter.dtype}): load the model with its original weights.")
    roles, found = roles_of(model), PrunableLayers()
    embeddings = {
        id(module.weight)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
        if module is not None
    }
    known = set()
    for prefix, index, block in decoder_blocks(model):
        weights = list(_weights(prefix, block))
        names = Counter(weight.path.rsplit(".", 1)[-1] for weight in weights)
        active = {_any_expert(weight.path) for weight in weights if roles.uses.get(weight.key)}
        for weight in weights:
            if id(weight.parameter) in known:  # a block that is used again
                continue
            known.add(id(weight.parameter))
            name = f"{prefix}.{weight.path}"
            reason = "it shares its weight with the embeddings" if id(weight.parameter) in embeddings else None
            layout = _declared_layout(weight)
            if reason is None:
                reason = _why_dense(weight, layout, roles, active)
            if reason is None and layout is None:
                layout = _seen_layout(weight.parameter, roles.uses[weight.key])
                reason = "it is multiplied in parts" if layout is None else None
            if reason is not None:
                found.skipped[name] = reason
                continue
            last = weight.path.rsplit(".", 1)[-1]
            projection = last if names[last] == 1 and layout.experts == [None] else weight.path
            for expert in layout.experts:
                full_name = name if expert is None else f"{name}.{expert}"
                layer = PrunableLayer(
                    full_name, index, projection, weight.parameter, expert, layout.transposed, layout.stored
                )
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


def decoder_blocks(model) -> Iterator[tuple[str, int, nn.Module]]:
    """(name, index, block): the entries of the lists of modules that a text runs through, counted over all lists.

    Most models have one such list. Some have several: attention apart from feed-forward maps, or stacks that are run in
    turns. Lists inside a block, and lists of single linear maps, are none.
    """
    products = {name for name, use in roles_of(model).uses.items() if use.products}
    outermost: list[str] = []
    index = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or name.startswith(tuple(f"{other}." for other in outermost)):
            continue
        outermost.append(name)
        if any(product.startswith(f"{name}.") for product in products) and any(
            list(entry.children()) for entry in module
        ):
            for place, block in enumerate(module):
                yield f"{name}.{place}", index, block
                index += 1
    if not index:
        raise ProxSparseError(
            f"{type(model).__name__} has no list of decoder blocks that a text runs through: choose a causal language model."
        )


def outside_of(blocks: Iterable[nn.Module], model: nn.Module) -> list[nn.Parameter]:
    """The parameters of `model` that lie in none of the blocks: embeddings, last norm and head."""
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in inside]


def _weights(prefix: str, block: nn.Module) -> Iterator[_Weight]:
    """A matrix named `weight` is known by its module, as users know it."""
    for path, module in block.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2:
                continue
            full = f"{path}.{name}" if path else name
            short = path if name == "weight" and parameter.ndim == 2 else full
            yield _Weight(short, f"{prefix}.{full}", parameter, module)


def _declared_layout(weight: _Weight) -> _Layout | None:
    """Of the two modules that are linear maps, by their documentation."""
    if weight.parameter is not getattr(weight.module, "weight", None):
        return None
    if isinstance(weight.module, nn.Linear):
        return _Layout()
    return _Layout(transposed=True) if isinstance(weight.module, Conv1D) else None


def _seen_layout(parameter: nn.Parameter, use: Use) -> _Layout | None:
    """By how it was multiplied; None where that was not always a whole matrix of one shape."""
    if len(use.products) != 1 or not parameter.is_contiguous():
        return None
    ((summed, made, transposed),) = use.products
    matrix = (summed, made) if transposed else (made, summed)
    if transposed is None or parameter.numel() % (summed * made):
        return None
    return _Layout(transposed, None if parameter.shape == matrix else (parameter.numel() // (summed * made), *matrix))


def _why_dense(weight: _Weight, layout: _Layout | None, roles: Roles, active: set[str]) -> str | None:
    """Why a parameter is not pruned, whatever its shape; None where it may be."""
    use = roles.uses.get(weight.key)
    if weight.key in roles.routers:
        return "router: its outputs are ranked to choose experts, and it is left dense"
    if weight.key in roles.selectors:
        return "no gradient reaches it: what it computes only chooses, such as the tokens that are attended to"
    if _any_expert(weight.path) not in active:
        return f"a text does not run it (tried with {roles.tokens} tokens)"
    if layout is not None:
        return None
    if not use:
        return "its layout was not seen: no token reached it"
    if use.computed:
        return "it is rearranged or computed with before it is multiplied"
    if not use.products:
        return _NO_MAP.get(min(use.operations), f"no matrix product: it enters {', '.join(sorted(use.operations))}")
    return None


_NO_MAP = {"convolution": "the kernel of a convolution", "embedding": "a table in which rows are looked up"}


def _any_expert(path: str) -> str:
    """The path with every index left open: whether the expert beside it is used tells what an idle one is for."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", path)
