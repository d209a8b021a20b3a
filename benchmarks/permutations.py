"""The order of a model's channels, changed so that the groups of four keep more: the dense function stays what it is.

Three kinds of channels of a Llama-like model may stand in any order. The intermediate neurons of a block: rows of gate and up, columns of
down. The dimensions of a head: rows of v and columns of o, one order for the query heads that share a v head. The residual stream, one
order for the whole model: columns of q, k, v, gate and up, rows of o and down, embeddings and norms. Each changes which weights share a
group.

The order is found as in RIA's channel permutation (Zhang et al. 2024): columns by their score, dealt out to the groups in turn, then, place
by place, the columns that stand there are dealt out anew by the assignment that keeps the most (`pip install scipy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from proxsparse.models.activations import InputNorms, InputObserver
from proxsparse.models.forward import autocast

SWEEPS = 2
ROWS = 64  # of scores that are laid against each other at once
KINDS = ("neurons", "heads", "residual")


def kept_score(scores: Tensor) -> float:
    """What the two largest of every four neighbours of a row keep, summed. scores: (rows, columns)."""
    return scores.view(len(scores), -1, 4).topk(2, dim=-1).values.sum().item()


def best_order(scores: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """An order of the columns in which groups of four keep more. scores: (rows, columns) → int64 (columns,)."""
    groups = scores.shape[1] // 4
    dealt = scores.sum(0).argsort(descending=True).view(4, groups)
    dealt[1::2] = dealt[1::2].flip(1)  # there and back, so that no group has the largest of all four
    members = dealt.t().contiguous()
    for _ in range(sweeps):
        for place in range(4):
            others = scores[:, members[:, [each for each in range(4) if each != place]]]  # (rows, groups, 3)
            first, second = others.topk(2, dim=-1).values.unbind(
                -1
            )  # with a fourth, d, the two largest are first + max(second, d)
            moved = scores[:, members[:, place]]  # (rows, groups)
            gains = first.sum(0).unsqueeze(1).expand(-1, groups).clone()  # (group, column that may come)
            for mine, theirs in zip(second.split(ROWS), moved.split(ROWS), strict=True):
                gains += torch.maximum(mine.unsqueeze(2), theirs.unsqueeze(1)).sum(0)
            _, chosen = linear_sum_assignment(gains.double().numpy(), maximize=True)
            members[:, place] = members[chosen, place]
    return members.flatten()


@torch.no_grad()
def scores_of(model, layers, windows: Tensor) -> dict[str, Tensor]:
    """{layer: |weight| · ‖input‖ of the dense model, (rows, columns)}, each layer's over its mean."""
    norms = {name: InputNorms(layer) for name, layer in layers.items()}
    with InputObserver(layers, norms), autocast(windows.device, "auto"):
        for some in windows.split(4):
            model.base_model(input_ids=some.to(model.device), use_cache=False)
    found = {name: layer.matrix.abs() * norms[name].norms() for name, layer in layers.items()}
    return {name: scores / scores.mean() for name, scores in found.items()}


@torch.no_grad()
def orders(model, layers, windows: Tensor, kinds=KINDS) -> list[tuple[Tensor, Tensor, int]]:
    """What is to be reordered: (tensor of the model, its new order, along which dimension)."""
    scores, config, found = scores_of(model, layers, windows), model.config, []
    own = config.num_key_value_heads
    shared = config.num_attention_heads // own
    blocks = list(dict.fromkeys(name.rsplit(".", 2)[0] for name in layers))
    for block in blocks:
        of = {name: layers[f"{block}.{name}"].matrix for name in ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj")}
        if "neurons" in kinds:
            order = best_order(scores[f"{block}.mlp.down_proj"])
            found += [(matrix, order, int(name == "mlp.down_proj")) for name, matrix in of.items()]
        if "heads" in kinds:
            by_head = scores[f"{block}.self_attn.o_proj"].view(-1, own, shared, config.hidden_size // (own * shared))
            size = by_head.shape[-1]
            each = [best_order(by_head[:, head].reshape(-1, size)) for head in range(own)]
            of_v = torch.cat([head * size + order for head, order in enumerate(each)])
            of_o = torch.cat([query * size + each[query // shared] for query in range(own * shared)])
            found += [
                (layers[f"{block}.self_attn.v_proj"].matrix, of_v, 0),
                (layers[f"{block}.self_attn.o_proj"].matrix, of_o, 1),
            ]
    if "residual" in kinds:
        reading = [name for name in layers if not name.endswith(("down_proj", "o_proj"))]
        order = best_order(torch.cat([scores[name] for name in reading]))
        found += [(layer.matrix, order, int(name in reading)) for name, layer in layers.items()]
        found += [(model.base_model.embed_tokens.weight, order, 1)]
        found += [(parameter, order, 0) for name, parameter in model.named_parameters() if "norm" in name]
    return found


@contextmanager
def permuted(model, layers, windows: Tensor, kinds=KINDS) -> Iterator[None]:
    """The Llama-like model, whose LM head is its embedding, with its channels in a better order while open."""
    done = orders(model, layers, windows, kinds)
    _reorder(done)
    try:
        yield
    finally:
        _reorder([(tensor, order.argsort(), dim) for tensor, order, dim in reversed(done)])


@torch.no_grad()
def _reorder(changes: list[tuple[Tensor, Tensor, int]]) -> None:
    for tensor, order, dim in changes:
        tensor.copy_(tensor.index_select(dim, order))
