"""The language-model loss, token by token."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MOST_LOGITS = 1 << 27  # computed at once: half a gigabyte in float32, and about two more in backward
_tried: WeakKeyDictionary = WeakKeyDictionary()


def next_token_losses(model, windows: Tensor) -> Tensor:
    """Cross-entropy in nats of every token given those before it in its window; float32 (count, length − 1).

    Where the logits of all tokens would be large, they are computed some tokens at a time, and again in backward.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if windows.numel() * vocabulary <= MOST_LOGITS or not head_is_all(model):
        losses = _cross_entropy(model(input_ids=windows, use_cache=False).logits[:, :-1].flatten(0, 1), windows[:, 1:])
    else:
        hidden = model.base_model(input_ids=windows, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        tokens = max(1, MOST_LOGITS // vocabulary)
        pieces = zip(hidden.split(tokens), windows[:, 1:].flatten().split(tokens), strict=True)
        head = model.get_output_embeddings()
        losses = torch.cat([checkpoint(_head_losses, head, *piece, use_reentrant=False) for piece in pieces])
    return losses.view(windows.shape[0], -1)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), targets.flatten(), reduction="none")


def _head_losses(head, hidden: Tensor, targets: Tensor) -> Tensor:
    return _cross_entropy(head(hidden), targets)


@torch.no_grad()
def head_is_all(model) -> bool:
    """Whether the model's logits are its LM head of its last hidden state, without scaling or capping: tried out on
    two tokens, once a model."""
    if model not in _tried:
        tokens = torch.arange(2, device=next(model.parameters()).device).unsqueeze(0)
        whole = model(input_ids=tokens, use_cache=False).logits
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        _tried[model] = torch.equal(whole, model.get_output_embeddings()(hidden))
    return _tried[model]
