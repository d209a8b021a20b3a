"""The text behind a name or a path."""

from __future__ import annotations

from collections.abc import Callable

from proxsparse.config import CORPUS, MIXED, OWN_TEXT
from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.text.bundled import bundled, bundled_other
from proxsparse.text.corpus import Corpus, split
from proxsparse.text.hub import HUB
from proxsparse.text.reading import read_documents

NAMED: dict[str, Callable[[], Corpus]] = {"bundled": bundled, "bundled-other": bundled_other}


def load_corpus(corpus: str | Corpus) -> Corpus:
    """The text behind a name or a path, see `load_windows`; one that is read already as it is."""
    if isinstance(corpus, Corpus):
        return corpus
    if corpus in NAMED:
        return NAMED[corpus]()
    if corpus in HUB:
        raise ProxSparseError(
            f"The text `{corpus}` is read up to a number of tokens: read it with `load_windows`, which has the tokenizer."
        )
    if corpus in (OWN_TEXT, MIXED):
        raise ProxSparseError(
            f"The text `{corpus}` needs the model, which writes it or a part of it: read it with `LanguageModel.windows`."
        )
    path = local_path(corpus)
    if path.suffix not in (".txt", ".jsonl"):
        raise ProxSparseError(f"There is no corpus {corpus!r}: give {CORPUS}.")
    documents = read_documents(path)
    calibration, heldout = split(documents)
    return Corpus(path.name, calibration, heldout)
