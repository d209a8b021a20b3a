"""The loss of every token, from its logits, some tokens at a time in forward and in backward.

Autograd would keep the logarithms of all probabilities in float32 and pass over them, and over gradients of their size, again and
again. Here only the logits are kept, in the dtype they come in, and float32 exists for as many tokens as stay in the cache. What is
computed is the same, bit for bit but for a mixture of both losses.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CACHED = 1 << 18  # logits a core, in float32 half of a second-level cache


def token_losses(logits: Tensor, targets: Tensor, teacher: Tensor | None = None, share: float = 0.0) -> Tensor:
    """Of every token, share · KL(teacher ‖ prediction) + (1 − share) · cross-entropy.

    Parameters
    ----------
    logits : Tensor
        Of the predictions, floating (tokens, vocabulary).
    targets : Tensor
        What follows, int64 (tokens,).
    teacher : Tensor, optional
        Logits of the same shape, that no gradient reaches; not needed where share is 0.
    share : float
        Of the divergence.

    Returns
    -------
    Tensor
        In nats, float32 (tokens,).

    Examples
    --------
    >>> token_losses(torch.zeros(1, 4), torch.tensor([2]))
    tensor([1.3863])
    """
    return _TokenLosses.apply(logits, targets, teacher, share)


class _TokenLosses(torch.autograd.Function):
    """The gradient by the predicted log-probabilities is −share · teacher's probabilities, and share − 1 at the target; on to the
    logits it goes through torch's own `log_softmax`."""

    @staticmethod
    def forward(ctx, logits, targets, teacher, share):
        ctx.save_for_backward(logits, targets, teacher)
        ctx.share = share
        losses = torch.empty(len(targets), device=logits.device)
        for rows in _pieces(logits):
            predicted = logits[rows].float().log_softmax(-1)
            losses[rows] = predicted.gather(-1, targets[rows, None]).squeeze(-1).mul_(share - 1)
            if share > 0:
                wanted = teacher[rows].float().log_softmax(-1)
                losses[rows] += predicted.sub_(wanted).mul_(wanted.exp_()).sum(-1).mul_(-share)
        return losses

    @staticmethod
    def backward(ctx, by_loss):
        logits, targets, teacher = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for rows in _pieces(logits):
            weight = by_loss[rows, None]
            with torch.enable_grad():
                piece = logits[rows].detach().float().requires_grad_()
                predicted = piece.log_softmax(-1)
            if ctx.share > 0:
                by_predicted = teacher[rows].float().log_softmax(-1).exp_().mul_(weight * -ctx.share)
            else:
                by_predicted = torch.zeros_like(predicted)
            by_predicted.scatter_add_(-1, targets[rows, None], weight * (ctx.share - 1))
            gradient[rows] = torch.autograd.grad(predicted, piece, by_predicted)[0]
        return gradient, None, None, None


def _pieces(logits: Tensor) -> Iterator[slice]:
    """So many rows at a time as stay in the cache; on a GPU, whose memory is fast, all of them."""
    tokens, vocabulary = logits.shape
    rows = max(1, torch.get_num_threads() * CACHED // vocabulary) if logits.device.type == "cpu" else max(1, tokens)
    for begin in range(0, tokens, rows):
        yield slice(begin, begin + rows)
