"""Text that a model writes itself: sampled from it, to learn its mask on without any corpus.

Masks learned on it hold better on foreign texts than those learned on a small corpus: it is the model's own distribution, of all
that it was trained on. The idea is that of data-free distillation and quantization (Liu et al. 2023, LLM-QAT, arXiv 2305.17888,
section 3.1).
"""

from __future__ import annotations

import torch

from proxsparse.errors import ProxSparseError
from proxsparse.progress import Progress, no_progress

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>")  # between two documents of a training text, in this order


@torch.inference_mode()
def write_own_text(
    lm,
    pieces: int = 288,
    tokens: int = 320,
    top_p: float = 0.95,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 96,
    progress: Progress = no_progress,
) -> list[str]:
    """What the model writes when nothing is given to it.

    Parameters
    ----------
    lm : LanguageModel
        With its dense weights.
    pieces, tokens : int
        How many texts, and the length of each in tokens.
    top_p : float
        Sample from the most probable tokens that together have this probability (nucleus sampling: Holtzman et al. 2020, arXiv
        1904.09751).
    temperature : float
        Divides the logits.
    seed : int
        The same text for the same seed, model, device and batch.
    batch : int
        How many are written at a time.
    progress : callable
        (tokens written, of how many, what is being done).

    Returns
    -------
    list of str
        The pieces, without the separator that each begins with.

    Raises
    ------
    ProxSparseError
        Where the tokenizer has no token that separates documents.
    """
    first, written = separator_of(lm), []
    with torch.random.fork_rng(devices=[lm.model.device] if lm.model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for begin in range(0, pieces, batch):
            count = min(batch, pieces - begin)
            progress(begin * tokens, pieces * tokens, "the model writes its own text")
            drawn = lm.model.generate(
                torch.full((count, 1), first, device=lm.model.device), attention_mask=torch.ones((count, 1), device=lm.model.device),
                do_sample=True, top_p=top_p, top_k=0, temperature=temperature, min_new_tokens=tokens, max_new_tokens=tokens,
                eos_token_id=None, pad_token_id=first,
            )  # fmt: skip
            written += lm.tokenizer.batch_decode(drawn[:, 1:], skip_special_tokens=True)
    progress(pieces * tokens, pieces * tokens, "the model has written its own text")
    return written


def separator_of(lm) -> int:
    """The token that stands between two documents in the model's training text. Raises ProxSparseError where none is known."""
    vocabulary = lm.tokenizer.get_vocab()
    for token in SEPARATORS:
        if token in vocabulary:
            return vocabulary[token]
    for token in (lm.tokenizer.eos_token_id, lm.tokenizer.bos_token_id):
        if token is not None:
            return token
    raise ProxSparseError(f"The tokenizer of {lm.name} has no token between documents: give a text to learn on.")
