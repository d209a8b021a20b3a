"""What a model expects next: the probabilities of the token after a prompt."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError

MOST_PROMPT_TOKENS = 512


def check_prompt(lm, prompt: str, new_tokens: int = 0) -> None:
    """Raise ProxSparseError unless `prompt` has a token, and leaves room for `new_tokens` in the model's context."""
    count = len(lm.tokenizer(prompt, verbose=False)["input_ids"])
    most = min(MOST_PROMPT_TOKENS, lm.context - new_tokens)
    if not prompt.strip() or count < 1:
        raise ProxSparseError("The prompt is empty: type the beginning of a text.")
    if count > most:
        raise ProxSparseError(
            f"The prompt has {count} tokens, and {most} are the most with {new_tokens} new ones: give a shorter one."
        )


@torch.inference_mode()
def next_token_probabilities(lm, prompt: str) -> Tensor:
    """The probability of every token of the vocabulary after `prompt`; float32 (vocabulary,), on the CPU.

    Parameters
    ----------
    lm : LanguageModel
        As it is in memory; the arithmetic is that of its weights' dtype, as in `complete`.
    prompt : str
        1 to `MOST_PROMPT_TOKENS` tokens.

    Raises
    ------
    ProxSparseError
        For a prompt without a token, or with too many.
    """
    check_prompt(lm, prompt)
    tokens = lm.tokenizer(prompt, return_tensors="pt").to(lm.model.device)
    return lm.model(input_ids=tokens["input_ids"], use_cache=False).logits[0, -1].float().softmax(0).cpu()


def next_tokens(lm, prompt: str, count: int = 10, reference: Tensor | None = None) -> pd.DataFrame:
    """The `count` tokens that are most probable after `prompt`, most probable first.

    Parameters
    ----------
    lm, prompt
        As for `next_token_probabilities`, which see for errors.
    count : int
        How many rows.
    reference : Tensor, optional
        Probabilities of another model of the same vocabulary, as `next_token_probabilities` gives them.

    Returns
    -------
    DataFrame
        token (id), text, probability; with a reference also reference, its probability of the same token.

    Examples
    --------
    >>> next_tokens(lm, "The capital of France is", count=3)  # doctest: +SKIP
    """
    return most_probable(lm, next_token_probabilities(lm, prompt), count, reference)


def most_probable(lm, probabilities: Tensor, count: int = 10, reference: Tensor | None = None) -> pd.DataFrame:
    """The table of `next_tokens`, of probabilities that are known already."""
    values, tokens = probabilities.topk(min(count, len(probabilities)))
    texts = [lm.tokenizer.decode([token]) for token in tokens.tolist()]
    table = pd.DataFrame({"token": tokens.tolist(), "text": texts, "probability": values.tolist()})
    return table if reference is None else table.assign(reference=reference[tokens].tolist())


def divergence(reference: Tensor, probabilities: Tensor) -> float:
    """Kullback-Leibler divergence Σ p · ln(p / q) in nats, of `probabilities` q from the `reference` p; inf where q has
    a zero that p has not."""
    p, q = reference.double(), probabilities.double()
    found = torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p)).sum().item()
    return max(found, 0.0) if not math.isnan(found) else math.inf
