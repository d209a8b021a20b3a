"""Text that a model writes itself: sampled from it once, to learn its mask on without any corpus.

Masks of the embedded model that were learned on it hold better on foreign texts than those learned on the bundled corpus
(docs/quality.md): it is drawn from all that the model was trained on. The idea is that of data-free quantization (Liu et al.
2023, LLM-QAT, arXiv 2305.17888, section 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from proxsparse.bundled import ROOT
from proxsparse.config import OWN_TEXT
from proxsparse.errors import ProxSparseError
from proxsparse.files import cache_dir, written_whole
from proxsparse.layers.stored import is_stored
from proxsparse.progress import Progress, no_progress

SHIPPED = ROOT / "assets" / "corpus" / "self"  # that of the embedded model
PIECES, TOKENS = 288, 320  # how many texts are written, and their length
TOP_P, TEMPERATURE, SEED = 0.95, 1.0, 0
AT_ONCE = 48  # written side by side: more would be faster, and take more memory
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>")  # between two documents of a training text, the first that there is


def own_text_file(lm, weights: str, progress: Progress = no_progress) -> Path:
    """The text that a model wrote, as a .jsonl file: the one that comes along, or that was written before; else it is written now.

    Parameters
    ----------
    lm : LanguageModel
        With its dense weights.
    weights : str
        Their fingerprint.
    progress : callable
        (tokens written, of how many, what is being done); what it raises ends the writing.

    Returns
    -------
    Path
        In $PROXSPARSE_CACHE, else in the user's cache directory; named by the weights.

    Raises
    ------
    ProxSparseError
        Where the tokenizer has no token that separates documents, the cache cannot be written, or the model is streamed.
    """
    name = f"{weights[:16]}.jsonl"
    if (SHIPPED / name).is_file():
        return SHIPPED / name
    tokens = min(TOKENS, lm.context - 1)
    path = cache_dir() / "own-text" / f"{PIECES}x{tokens}" / name
    if not path.is_file():
        if is_stored(lm.model):
            raise ProxSparseError(
                f"{lm.name} has not written a text of its own yet, and its weights, left in their files, would be read from disk for every "
                "token of it: give another text, such as bundled or a file, or let one process that holds it whole write the text: "
                f"proxsparse learn --model {lm.name} --corpus {OWN_TEXT} --steps 1."
            )
        pieces = list(write_own_text(lm, PIECES, tokens, progress=progress))
        try:
            with written_whole(path) as temporary:
                temporary.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces), encoding="utf-8")
        except OSError as error:
            raise ProxSparseError(
                f"The text that {lm.name} wrote cannot be kept in {path.parent} ({error.strerror}): name another place in "
                "$PROXSPARSE_CACHE."
            ) from error
    return path


@torch.inference_mode()
def write_own_text(
    lm,
    pieces: int = PIECES,
    tokens: int = TOKENS,
    top_p: float = TOP_P,
    temperature: float = TEMPERATURE,
    seed: int = SEED,
    progress: Progress = no_progress,
) -> Iterator[str]:
    """What a model writes when nothing is given to it but the token that begins a document.

    Parameters
    ----------
    lm : LanguageModel
        With its dense weights.
    pieces, tokens : int
        How many texts, and the length of each in tokens.
    top_p : float
        Sample from the most probable tokens that together have this probability (Holtzman et al. 2020, arXiv 1904.09751).
    temperature : float
        Divides the logits.
    seed : int
        The same text for the same seed, weights and device.
    progress : callable
        (tokens written, of how many, what is being done); what it raises ends the writing.

    Yields
    ------
    str
        A piece, without the token that begins it.

    Raises
    ------
    ProxSparseError
        Where the tokenizer has no token that separates documents.
    """
    first, device = separator_of(lm), lm.model.device
    for begin in range(0, pieces, AT_ONCE):
        count = min(AT_ONCE, pieces - begin)

        def tell(drawn: torch.Tensor, _scores, begin: int = begin, count: int = count) -> torch.Tensor:
            done = begin * tokens + count * (drawn.shape[1] - 1)
            progress(done, pieces * tokens, "the model writes its own text, token")
            return torch.zeros(count, dtype=torch.bool, device=device)

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed + begin)
            drawn = lm.model.generate(
                torch.full((count, 1), first, device=device), attention_mask=torch.ones((count, 1), device=device),
                do_sample=True, top_p=top_p, top_k=0, temperature=temperature, min_new_tokens=tokens, max_new_tokens=tokens,
                eos_token_id=None, pad_token_id=first, stopping_criteria=[tell],
            )  # fmt: skip
        yield from lm.tokenizer.batch_decode(drawn[:, 1:], skip_special_tokens=True)


def separator_of(lm) -> int:
    """The token that stands between two documents of the model's training text. Raises ProxSparseError where none is known."""
    vocabulary = lm.tokenizer.get_vocab()
    known = [vocabulary[token] for token in SEPARATORS if token in vocabulary]
    known += [token for token in (lm.tokenizer.eos_token_id, lm.tokenizer.bos_token_id) if token is not None]
    if not known:
        raise ProxSparseError(
            f"The tokenizer of {lm.name} has no token between documents, so that it cannot write a text of its own: give another text."
        )
    return known[0]
