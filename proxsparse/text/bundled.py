"""The text that comes along, alone and mixed with what a model wrote."""

from __future__ import annotations

import itertools
from pathlib import Path

from proxsparse.bundled import ROOT
from proxsparse.config import MIXED
from proxsparse.errors import ProxSparseError
from proxsparse.text.corpus import SEPARATOR, Corpus, split
from proxsparse.text.reading import read_documents

BUNDLED = ROOT / "assets" / "corpus"


def mixed_with_bundled(own_text: Path) -> Corpus:
    """The text that a model wrote, and the bundled corpus between: of both the calibration part, of which every stretch has its
    share of each, and of the bundled corpus the held-out part. See `LanguageModel.windows`.

    own_text: a .jsonl file, as `own_text_file` gives it.
    """
    documents = read_documents(own_text)
    calibration, _ = split(documents)
    ends = itertools.accumulate(len(document) + len(SEPARATOR) for document in documents)
    whole = [
        document for document, end in zip(documents, ends, strict=True) if end - len(SEPARATOR) <= len(calibration)
    ]
    pieces, articles = whole or [calibration], _files_of("calibration")
    places = [round(len(pieces) * (number + 0.5) / len(articles)) for number in range(len(articles))]
    for place, article in zip(reversed(places), reversed(articles), strict=True):
        pieces.insert(place, article)
    return Corpus(MIXED, SEPARATOR.join(pieces), SEPARATOR.join(_files_of("heldout")))


def bundled() -> Corpus:
    return Corpus("bundled", SEPARATOR.join(_files_of("calibration")), SEPARATOR.join(_files_of("heldout")))


def bundled_other() -> Corpus:
    return Corpus("bundled-other", "", SEPARATOR.join(_files_of("other")))


def _files_of(part: str) -> list[str]:
    files = sorted((BUNDLED / part).glob("*.txt"))
    if not files:
        raise ProxSparseError(f"The bundled corpus is not at {BUNDLED}: install proxsparse again, or give a text file.")
    return [path.read_text(encoding="utf-8").strip() for path in files]
