"""Which channels of a model may stand in another order, and which order keeps the most.

Of a block as Llama has it: the neurons between gate and up on one side and down on the other, and the dimensions of a head between v
and o; query heads that share a v head share its order. (One order of the residual stream for the whole model gained nothing:
docs/quality.md.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayers, prunable_layers
from proxsparse.layers.find import decoder_blocks
from proxsparse.models.activations import InputNorms, InputObserver, check_windows
from proxsparse.models.channel_order import ChannelOrder
from proxsparse.models.forward import autocast
from proxsparse.progress import Progress, no_progress
from proxsparse.reordering.assignment import best_order, kept

BATCH = 4  # windows in one forward pass


@dataclass(frozen=True)
class Reordering:
    """What was found. layers: how many read reordered channels, so that their groups change. kept: what n of m of |w|·‖x‖ keep of the
    whole in these layers: (as they were, reordered)."""

    order: ChannelOrder
    layers: int
    kept: tuple[float, float]


@torch.no_grad()
def find_order(model, windows: Tensor, n: int = 2, m: int = 4, progress: Progress = no_progress) -> Reordering:
    """The order of the channels of `model` in which Wanda's scores of its n:m groups keep the most. The model stays as it is.

    Parameters
    ----------
    model : transformers model
        Whose blocks have gate_proj, up_proj and down_proj, or v_proj and o_proj, as those of Llama, Mistral, Qwen and Gemma.
    windows : Tensor
        Calibration text, int64 (count, length) tokens.
    n, m : int
        The pattern.
    progress : Progress
        Called before each block.

    Raises
    ------
    ProxSparseError
        Where no block has such channels, for a text without a window, or without SciPy.

    References
    ----------
    Wanda's scores: Sun et al. 2023, arXiv 2306.11695, equation 1.
    """
    check_windows(windows)
    blocks = [(name, _Channels(model, name, block)) for name, _, block in decoder_blocks(model)]
    layers = prunable_layers(model, m)
    scores = _scores(model, layers, [map for _, block in blocks for map in block.readers() if map in layers], windows)
    found, read, before, after, whole = ChannelOrder(), 0, 0.0, 0.0, 0.0
    for index, (name, block) in enumerate(blocks):
        progress(index, len(blocks), f"reordering the channels of {name}")
        for reader, reordered in block.orders(scores, n, m):
            matrix = scores[reader]
            _, order = reordered[f"{reader}.weight"]
            before += kept(matrix, n, m)
            after += kept(matrix[:, order], n, m)
            whole += matrix.sum(dtype=torch.float64).item()
            found |= reordered
            read += 1
    if not read:
        raise ProxSparseError(
            f"{type(model).__name__} has no channels that may change places: its blocks need gate_proj, up_proj and down_proj, or "
            f"v_proj and o_proj with heads of a multiple of {m}, as Llama's have."
        )
    return Reordering(found, read, (before / whole, after / whole))


class _Channels:
    """Those of one block that lie between linear maps which are known."""

    def __init__(self, model, name: str, block: nn.Module):
        self.config, self.modules = model.config.get_text_config(decoder=True), dict(block.named_modules())
        self.name = name

    def _linear(self, *paths: str) -> list[nn.Linear] | None:
        """These modules, where all of them are linear maps."""
        found = [self.modules.get(path) for path in paths]
        return found if all(type(module) is nn.Linear for module in found) else None  # type: ignore[return-value]

    def readers(self) -> list[str]:
        """The names of the maps whose groups change: those that read the channels."""
        paths = (("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), ("self_attn.v_proj", "self_attn.o_proj"))
        return [f"{self.name}.{path[-1]}" for path in paths if self._linear(*path)]

    def orders(self, scores: dict[str, Tensor], n: int, m: int):
        """Yields (reader, the order of all parameters that follow it)."""
        down, o = f"{self.name}.mlp.down_proj", f"{self.name}.self_attn.o_proj"
        if down in scores:
            order = best_order(scores[down], n, m)
            yield down, self._following(order, "mlp.gate_proj", "mlp.up_proj") | {f"{down}.weight": (1, order)}
        if o in scores:
            of_v, of_o = self._of_heads(scores[o], n, m)
            if of_v is not None:
                yield o, self._following(of_v, "self_attn.v_proj") | {f"{o}.weight": (1, of_o)}

    def _following(self, order: Tensor, *writers: str) -> dict[str, tuple[int, Tensor]]:
        """The rows of the maps that write the channels, and their biases."""
        return {
            f"{self.name}.{path}.{part}": (0, order)
            for path in writers
            for part, _ in self.modules[path].named_parameters()
        }

    def _of_heads(self, scores: Tensor, n: int, m: int) -> tuple[Tensor | None, Tensor | None]:
        """(of v's rows, of o's columns): an order within every v head, for all query heads that read it."""
        own = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        rows, columns = self.modules["self_attn.v_proj"].out_features, scores.shape[1]
        size = rows // own
        if rows % own or columns % rows or size % m:
            return None, None
        shared = columns // rows
        by_head = scores.view(-1, own, shared, size)
        each = [best_order(by_head[:, head].reshape(-1, size), n, m) for head in range(own)]
        of_v = torch.cat([head * size + order for head, order in enumerate(each)])
        of_o = torch.cat([query * size + each[query // shared] for query in range(own * shared)])
        return of_v, of_o


def _scores(model, layers: PrunableLayers, names: list[str], windows: Tensor) -> dict[str, Tensor]:
    """{layer: |w|·‖x‖ of the dense model, (rows, columns)}."""
    norms = {name: InputNorms(layers[name]) for name in names}
    with InputObserver({name: layers[name] for name in names}, norms), autocast(model.device, "auto"):
        for some in windows.split(BATCH):
            model.base_model(input_ids=some.to(model.device), use_cache=False)
    return {name: layers[name].matrix.float().abs() * norms[name].norms() for name in names}
