"""The windows of a corpus: those that masks are learned on, and those that they are judged on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxsparse.config import check_learnable
from proxsparse.progress import Progress, no_progress
from proxsparse.text.corpus import Corpus
from proxsparse.text.hub import HUB, SEED, read_part
from proxsparse.text.load import load_corpus
from proxsparse.text.tokens import Tokenized, check_known, check_lengths, cut, first_token, taken, token_ids


@dataclass(frozen=True)
class Text:
    """Windows of token ids. calibration: int64 (count, length); heldout: int64 (count, context). bos: whether the BOS token
    begins every one of them. corpus: what they were cut from."""

    calibration: Tensor
    heldout: Tensor
    name: str
    sha256: str
    calibration_tokens: int
    heldout_tokens: int
    bos: bool = False
    corpus: Corpus | None = field(default=None, repr=False)

    def heldout_windows(self, count: int = 0) -> Tensor:
        """The first `count` held-out windows, int64 (count, context); 0: all of them."""
        return self.heldout[:count] if count else self.heldout

    def sampled(self, count: int) -> Text:
        """With at most so many calibration windows, spread evenly over those that there are; 0: with all of them."""
        there = len(self.calibration)
        if not 0 < count < there:
            return self
        windows = self.calibration[torch.arange(count) * there // count]
        return dataclasses.replace(self, calibration=windows, calibration_tokens=windows.numel())

    def describe(self) -> dict:
        """What tells this text from another, as JSON."""
        names = ("name", "sha256", "calibration_tokens", "heldout_tokens", "bos")
        return {name: getattr(self, name) for name in names}


def load_windows(
    corpus: str | Corpus,
    tokenizer,
    length: int = 256,
    context: int | None = None,
    model_context: int | None = None,
    *,
    vocabulary: int | None = None,
    bos: bool = False,
    samples: int = 0,
    seed: int = SEED,
    progress: Progress = no_progress,
) -> Text:
    """The windows of a corpus: calibration windows of `length` tokens, held-out ones of `context` (default: `length`).

    Parameters
    ----------
    corpus : str or Corpus
        `bundled`, `wikitext2`, `c4` (the last two need a network the first time), or the path of a .txt or .jsonl file, of
        which about the first 80% are for calibration; or a text that is read already.
    tokenizer : transformers tokenizer
        Of the model that will read the windows.
    length, context : int
        Tokens in a calibration window and in a held-out one.
    model_context : int, optional
        The model's longest input in tokens; longer windows are refused.
    vocabulary : int, optional
        How many tokens the model knows; text that needs another one is refused.
    bos : bool
        Begin every window with the tokenizer's BOS token, which counts towards its length; else it stands where the
        tokenizer puts it, mostly once, before the text. `LanguageModel.windows` knows which models need it.
    samples : int
        How many calibration windows are needed. Of c4 so many are read, and at least 2²⁰ tokens; every other text is read
        whole, and may have fewer.
    seed : int
        Of the order in which the calibration part of c4 is read; the held-out part is always the same.
    progress : callable
        (windows read, of how many, what is being done), while a text comes from the Hub; what it raises ends the reading.

    Returns
    -------
    Text
        Windows of token ids, int64: calibration (count, length) and heldout (count, context).

    Raises
    ------
    ProxSparseError
        Where the text cannot be read, a part of it is too short for one window, or the tokenizer lacks a BOS token that is
        asked for or gives a token that the model does not know.

    Examples
    --------
    >>> text = load_windows("bundled", lm.tokenizer, length=256, context=512)  # doctest: +SKIP
    """
    context = context or length
    check_learnable(corpus if isinstance(corpus, str) else corpus.name)
    check_lengths({"length": length, "context": context}, model_context)
    first = first_token(tokenizer, bos)
    if isinstance(corpus, str) and corpus in HUB:
        learned, judged = HUB[corpus]
        needed = samples * taken(length, bos) + bos
        calibration = read_part(learned, tokenizer, needed, seed, taken(length, bos), progress)
        heldout = read_part(judged, tokenizer, window=taken(context, bos), progress=progress)
        text = Corpus(corpus, calibration.text, heldout.text)
    else:
        text = load_corpus(corpus)
        calibration, heldout = (
            Tokenized(part, token_ids(part, tokenizer)) for part in (text.calibration, text.heldout)
        )
    for part in (calibration, heldout):
        check_known(part.ids, tokenizer, vocabulary, text.name)
    return Text(
        calibration=cut(calibration.ids, length, first, "calibration", "length", text.name),
        heldout=cut(heldout.ids, context, first, "held-out", "context", text.name),
        name=text.name,
        sha256=text.sha256,
        calibration_tokens=len(calibration.ids),
        heldout_tokens=len(heldout.ids),
        bos=bos,
        corpus=text,
    )
