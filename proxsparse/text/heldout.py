"""Further texts that masks are judged on, without what was learned on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.text.corpus import SEPARATOR, Corpus
from proxsparse.text.load import NAMED, load_corpus
from proxsparse.text.reading import read_documents
from proxsparse.text.tokens import check_lengths, cut, first_token, token_ids


@dataclass(frozen=True)
class HeldOut:
    """Windows of a text that a mask is judged on: int64 (count, context). sha256: of this text. left_out: paragraphs of it
    that were learned on, and are not in the windows."""

    windows: Tensor
    name: str
    sha256: str
    tokens: int
    bos: bool = False
    left_out: int = 0


def load_heldout(
    corpus: str | Corpus,
    tokenizer,
    context: int = 512,
    model_context: int | None = None,
    *,
    vocabulary: int | None = None,
    bos: bool = False,
    learned_on: Corpus | None = None,
    also_learned_on: Collection[str] = (),
) -> HeldOut:
    """Windows of a text that a mask is judged on, which was learned on another one, or on another part of it.

    Parameters
    ----------
    corpus : str or Corpus
        As for `load_windows`, or `bundled-other`: text of another kind than `bundled`, which nothing learns from.
    tokenizer, model_context, vocabulary, bos
        As for `load_windows`.
    context : int
        Tokens in a window.
    learned_on : Corpus, optional
        What the mask was learned on. Of a file the whole text is taken then, without the paragraphs that were learned on. Where
        it is not given, and of every text that has a name, only the held-out part is taken.
    also_learned_on : collection of str
        sha256 of further corpora that masks were learned on: of these too only the held-out part is taken.

    Returns
    -------
    HeldOut
        Windows of token ids, int64 (count, context).

    Raises
    ------
    ProxSparseError
        As `load_windows`; and where every paragraph of a file was learned on.

    Examples
    --------
    >>> text = load_heldout("bundled-other", lm.tokenizer, context=512)  # doctest: +SKIP
    """
    check_lengths({"context": context}, model_context)
    first = first_token(tokenizer, bos)
    text, judged, left_out = load_corpus(corpus), None, 0
    is_file = isinstance(corpus, str) and corpus not in NAMED
    if learned_on is not None and is_file and text.sha256 not in {learned_on.sha256, *also_learned_on}:
        judged, left_out = _not_learned_on(read_documents(local_path(corpus)), learned_on)
        if not judged:
            raise ProxSparseError(
                f"Every paragraph of {text.name} is in the text that is learned on: give another text to judge on."
            )
    judged = text.heldout if judged is None else judged
    ids = token_ids(judged, tokenizer, vocabulary, text.name)
    windows = cut(ids, context, first, "held-out", "context", text.name)
    return HeldOut(windows, text.name, hashlib.sha256(judged.encode()).hexdigest(), len(ids), bos, left_out)


def _not_learned_on(documents: list[str], learned_on: Corpus) -> tuple[str, int]:
    """The paragraphs of a text that are not among those learned on, and how many are."""
    known = {paragraph.strip() for paragraph in _paragraphs(learned_on.calibration)}
    paragraphs = _paragraphs(SEPARATOR.join(documents))
    kept = [paragraph for paragraph in paragraphs if paragraph.strip() not in known]
    return SEPARATOR.join(kept), len(paragraphs) - len(kept)


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
