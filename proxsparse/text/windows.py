"""The windows of a corpus: those that masks are learned on, and those that they are judged on."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from proxsparse.config import check_learnable
from proxsparse.text.corpus import Corpus
from proxsparse.text.load import load_corpus
from proxsparse.text.tokens import check_lengths, cut, first_token, token_ids


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
) -> Text:
    """The windows of a corpus: calibration windows of `length` tokens, held-out ones of `context` (default: `length`).

    Parameters
    ----------
    corpus : str or Corpus
        `bundled`, `wikitext2`, `c4` (the last two need a network), or the path of a .txt or .jsonl file, of which about
        the first 80% are for calibration; or a text that is read already.
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
    text = load_corpus(corpus)
    calibration, heldout = (
        token_ids(part, tokenizer, vocabulary, text.name) for part in (text.calibration, text.heldout)
    )
    return Text(
        calibration=cut(calibration, length, first, "calibration", "length", text.name),
        heldout=cut(heldout, context, first, "held-out", "context", text.name),
        name=text.name,
        sha256=text.sha256,
        calibration_tokens=len(calibration),
        heldout_tokens=len(heldout),
        bos=bos,
        corpus=text,
    )
