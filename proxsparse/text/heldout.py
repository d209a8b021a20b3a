"""Further texts that masks are judged on, without what was learned on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.progress import Progress, no_progress
from proxsparse.text.corpus import SEPARATOR, Corpus
from proxsparse.text.hub import HUB, read_part
from proxsparse.text.load import NAMED, load_corpus
from proxsparse.text.reading import read_documents
from proxsparse.text.tokens import Tokenized, check_known, check_lengths, cut, first_token, taken, token_ids


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
    progress: Progress = no_progress,
) -> HeldOut:
    """Windows of a text that a mask is judged on, which was learned on another one, or on another part of it.

    Parameters
    ----------
    corpus : str or Corpus
        As for `load_windows`, or `bundled-other`: text of another kind than `bundled`, which nothing learns from.
    tokenizer, model_context, vocabulary, bos, progress
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
    if isinstance(corpus, str) and corpus in HUB:
        part = read_part(HUB[corpus][1], tokenizer, window=taken(context, bos), progress=progress)
        name, left_out = corpus, 0
    else:
        text, left_out = _judged(corpus, learned_on, also_learned_on)
        name, part = text.name, Tokenized(text.heldout, token_ids(text.heldout, tokenizer))
    check_known(part.ids, tokenizer, vocabulary, name)
    windows = cut(part.ids, context, first, "held-out", "context", name)
    return HeldOut(windows, name, hashlib.sha256(part.text.encode()).hexdigest(), len(part.ids), bos, left_out)


def _judged(corpus: str | Corpus, learned_on: Corpus | None, also_learned_on: Collection[str]) -> tuple[Corpus, int]:
    """A text of which all that was not learned on is held out, and how many paragraphs were learned on."""
    text = load_corpus(corpus)
    is_file = isinstance(corpus, str) and corpus not in NAMED
    if learned_on is None or not is_file or text.sha256 in {learned_on.sha256, *also_learned_on}:
        return text, 0
    judged, left_out = _not_learned_on(read_documents(local_path(corpus)), learned_on)
    if not judged:
        raise ProxSparseError(
            f"Every paragraph of {text.name} is in the text that is learned on: give another text to judge on."
        )
    return Corpus(text.name, "", judged), left_out


def _not_learned_on(documents: list[str], learned_on: Corpus) -> tuple[str, int]:
    """The paragraphs of a text that are not among those learned on, and how many are."""
    known = {paragraph.strip() for paragraph in _paragraphs(learned_on.calibration)}
    paragraphs = _paragraphs(SEPARATOR.join(documents))
    kept = [paragraph for paragraph in paragraphs if paragraph.strip() not in known]
    return SEPARATOR.join(kept), len(paragraphs) - len(kept)


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
