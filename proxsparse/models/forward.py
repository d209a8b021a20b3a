"""How a forward pass is computed: its arithmetic, its attention, and the language-model loss token by token.

Weights keep their own dtype throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from proxsparse.errors import ProxSparseError
from proxsparse.layers.stored import device_of
from proxsparse.models.token_losses import token_losses

SHORT = 512  # tokens; beyond, the scores of all pairs of tokens are large
MOST_LOGITS = 1 << 27  # computed at once: on a GPU half a gigabyte in float32, and about two more in backward
_tried: WeakKeyDictionary = WeakKeyDictionary()


def autocast(device: torch.device, precision: str = "auto"):
    """A context for forward passes on `device`: bf16 autocast, or nothing for fp32. Raises ProxSparseError where a model does not
    run in bf16. precision: see `arithmetic`."""
    return _bf16(device) if arithmetic(device, precision) == torch.bfloat16 else nullcontext()


def arithmetic(device: torch.device, precision: str = "auto") -> torch.dtype:
    """In what `autocast` multiplies matrices.

    precision: `fp32`, `bf16`, or `auto`, which takes bf16 where the device multiplies it in hardware: CUDA of compute
    capability 8.0 and above, CPUs with AVX512-BF16 or AMX.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ProxSparseError(f"precision is {precision!r}: choose one of auto, fp32, bf16.")
    bf16 = precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
    return torch.bfloat16 if bf16 else torch.float32


@contextmanager
def _bf16(device: torch.device):
    """bf16 autocast, which some families are not written for: they put float32 and bf16 into one tensor."""
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    except RuntimeError as error:
        if "dtype" in str(error) or "scalar type" in str(error):
            first_line = str(error).splitlines()[0]
            raise ProxSparseError(
                f"This model does not run in bf16 autocast ({first_line}): choose precision fp32."
            ) from error
        raise


def multiplies_bf16(device: torch.device) -> bool:
    """Whether `device` has bf16 matrix products in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


@contextmanager
def quick_attention(model, device: torch.device, length: int):
    """While open, a model on a CPU multiplies the attention of short windows out, instead of torch's fused kernel.

    A step of 4 × 128, 2 × 256 or 1 × 512 tokens of the embedded model then takes about 0.8 of the time: see
    benchmarks/step.py. On GPUs, for longer windows and other implementations nothing changes.
    """
    before = model.config._attn_implementation
    if device.type != "cpu" or length > SHORT or before != "sdpa":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def next_token_losses(model, windows: Tensor) -> Tensor:
    """Cross-entropy in nats of every token given those before it in its window; float32 (count, length − 1).

    Where the logits of all tokens would be large, they are computed some tokens at a time, and again in backward.
    """
    head = model.get_output_embeddings()
    vocabulary = (head or model.get_input_embeddings()).weight.shape[0]
    if windows.numel() * vocabulary <= MOST_LOGITS or not head_is_all(model):
        logits = model(input_ids=windows, use_cache=False).logits.flatten(0, 1)
        # With the last token of each window, after which nothing is left to predict: without it the logits had to be copied.
        losses = token_losses(logits, windows.roll(-1, 1).flatten()).view(windows.shape)[:, :-1].contiguous()
    else:
        hidden = model.base_model(input_ids=windows, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        losses = _in_pieces(partial(_head_losses, head), vocabulary, hidden, windows[:, 1:].flatten())
    return losses.view(windows.shape[0], -1)


def next_token_states(model, windows: Tensor) -> Tensor:
    """What every next token is predicted from: the last hidden states, where the LM head alone makes logits of them, else the
    logits themselves; (count, length − 1, width). See `next_token_divergences`."""
    if head_is_all(model):
        return model.base_model(input_ids=windows, use_cache=False).last_hidden_state[:, :-1]
    return model(input_ids=windows, use_cache=False).logits[:, :-1]


def next_token_divergences(model, states: Tensor, teacher: Tensor, targets: Tensor, share: float = 1.0) -> Tensor:
    """Of every token, the KL divergence of the prediction from the teacher's, mixed with its cross-entropy.

    Logits are computed some tokens at a time, and again in backward, as in `next_token_losses`.

    Parameters
    ----------
    states, teacher : Tensor
        As `next_token_states` gives them, of the model that learns and of the one that it learns from: their heads are the same.
    targets : Tensor
        The tokens that follow, int64 (count, length − 1).
    share : float
        Of the divergence KL(teacher ‖ model); the rest is the cross-entropy.

    Returns
    -------
    Tensor
        In nats, float32 (count, length − 1).

    References
    ----------
    Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    head = model.get_output_embeddings() if head_is_all(model) else nn.Identity()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = (states.flatten(0, 1), teacher.flatten(0, 1), targets.flatten())
    return _in_pieces(partial(_divergences, head, share), vocabulary, *rows).view(targets.shape)


def _in_pieces(compute: Callable[..., Tensor], vocabulary: int, *rows: Tensor) -> Tensor:
    """`compute` of rows that make logits of so many tokens, as many at a time as MOST_LOGITS allows; where they are several pieces,
    each is computed again in backward."""
    tokens = max(1, MOST_LOGITS // vocabulary)
    pieces = list(zip(*(each.split(tokens) for each in rows), strict=True))
    if len(pieces) == 1:
        return compute(*pieces[0])
    return torch.cat([checkpoint(compute, *piece, use_reentrant=False) for piece in pieces])


def _divergences(head, share: float, states: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = head(teacher)
    return token_losses(head(states), targets, wanted, share)


def _head_losses(head, hidden: Tensor, targets: Tensor) -> Tensor:
    return token_losses(head(hidden), targets)


@torch.no_grad()
def head_is_all(model) -> bool:
    """Whether the model's logits are its LM head of its last hidden state, without scaling, capping or a layer between:
    tried out on two tokens, once a model."""
    if model not in _tried:
        tokens = torch.arange(2, device=device_of(model)).unsqueeze(0)
        head, base = model.get_output_embeddings(), model.base_model
        if head is None or base is model:  # some models are their own base, and give logits alone
            _tried[model] = False
        else:
            hidden = getattr(base(input_ids=tokens, use_cache=False), "last_hidden_state", None)
            fits = hidden is not None and hidden.shape[-1] == head.weight.shape[1]
            whole = model(input_ids=tokens, use_cache=False).logits
            _tried[model] = fits and torch.equal(whole, head(hidden))
    return _tried[model]
