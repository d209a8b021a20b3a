"""Text as token ids, and these in windows that do not overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError


@dataclass(frozen=True)
class Tokenized:
    """A text and its tokens, int64 (tokens,)."""

    text: str
    ids: Tensor


def check_lengths(lengths: dict[str, int], model_context: int | None) -> None:
    for name, tokens in lengths.items():
        if tokens < 2:
            raise ProxSparseError(f"{name} is {tokens}: a window needs 2 tokens or more.")
        if model_context is not None and tokens > model_context:
            raise ProxSparseError(
                f"{name} is {tokens} and the model reads at most {model_context} tokens: give {model_context} or less."
            )


def first_token(tokenizer, bos: bool) -> int | None:
    """The token that begins every window, if there is one."""
    if bos and tokenizer.bos_token_id is None:
        raise ProxSparseError("This model's tokenizer has no BOS token to begin a window with: set bos to once.")
    return tokenizer.bos_token_id if bos else None


def token_ids(text: str, tokenizer) -> Tensor:
    """int64 (tokens,)."""
    return torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)


def check_known(ids: Tensor, tokenizer, vocabulary: int | None, name: str) -> None:
    """Raise ProxSparseError for a token that the model does not know. vocabulary: how many it does."""
    unknown = ids[ids >= vocabulary] if vocabulary is not None else ids[:0]
    if len(unknown):
        token = tokenizer.convert_ids_to_tokens(int(unknown[0]))
        raise ProxSparseError(
            f"{name} needs the token {token!r} ({int(unknown[0])}), which lies beyond the {vocabulary} rows of the model's "
            "embedding: give the tokenizer that belongs to the model, or take it out of the text."
        )


def taken(length: int, bos: bool) -> int:
    """Tokens of the text in a window. bos: whether the BOS token begins it."""
    return length - 1 if bos else length


def cut(ids: Tensor, length: int, first: int | None, part: str, setting: str, name: str) -> Tensor:
    """int64 (count, length). first: the token with which each begins, if there is one."""
    if first is not None and len(ids) and ids[0] == first:
        ids = ids[1:]
    step = taken(length, first is not None)
    count = len(ids) // step
    if count == 0:
        raise ProxSparseError(
            f"The {part} part of {name} has {len(ids)} tokens, too few for one window of {length}: give more text or a "
            f"smaller {setting}."
        )
    windows = ids[: count * step].view(count, step)
    return windows if first is None else torch.nn.functional.pad(windows, (1, 0), value=first)
