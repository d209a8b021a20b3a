"""Where text comes from, and how it becomes windows.

A corpus has a calibration part, which the masks are learned on, and a held-out part, which they are judged on; the two
never overlap. Each part is concatenated, tokenized once and cut into windows of a stated length that do not overlap.
Masks can be judged on other texts as well: `load_heldout` takes from each what was not learned on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from proxsparse.bundled import ROOT
from proxsparse.config import CORPUS, MIXED, OWN_TEXT, check_learnable
from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path, refuse_lfs_pointer

BUNDLED = ROOT / "assets" / "corpus"
CALIBRATION_SHARE = 0.8  # of a user's own file; the rest is held out
LEAST_SHARE, MOST_SHARE = 0.7, 0.9  # how far from that a cut between documents may lie
SEPARATOR = "\n\n"  # between two documents
# After what a document is cut, best first: a paragraph, a line, a sentence, a word.
BOUNDARIES = tuple(map(re.compile, (r"\n\n+", r"\n", r"[.!?…]\s+|[。！？]", r"\s+")))
C4_DOCUMENTS = 2000  # streamed for calibration, about 1 M tokens; a quarter of it is held out from the validation split


@dataclass(frozen=True)
class Corpus:
    """Two texts that share nothing. sha256 is of both, and goes into a model's provenance. calibration: empty where nothing
    may be learned from the corpus."""

    name: str
    calibration: str
    heldout: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.calibration}\0{self.heldout}".encode()).hexdigest()


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
    _check_lengths({"length": length, "context": context}, model_context)
    first = _first_token(tokenizer, bos)
    text = load_corpus(corpus)
    calibration, heldout = (
        _token_ids(part, tokenizer, vocabulary, text.name) for part in (text.calibration, text.heldout)
    )
    return Text(
        calibration=_windows(calibration, length, first, "calibration", "length", text.name),
        heldout=_windows(heldout, context, first, "held-out", "context", text.name),
        name=text.name,
        sha256=text.sha256,
        calibration_tokens=len(calibration),
        heldout_tokens=len(heldout),
        bos=bos,
        corpus=text,
    )


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
    _check_lengths({"context": context}, model_context)
    first = _first_token(tokenizer, bos)
    text, judged, left_out = load_corpus(corpus), None, 0
    is_file = isinstance(corpus, str) and corpus not in _NAMED
    if learned_on is not None and is_file and text.sha256 not in {learned_on.sha256, *also_learned_on}:
        judged, left_out = _not_learned_on(read_documents(local_path(corpus)), learned_on)
        if not judged:
            raise ProxSparseError(
                f"Every paragraph of {text.name} is in the text that is learned on: give another text to judge on."
            )
    judged = text.heldout if judged is None else judged
    ids = _token_ids(judged, tokenizer, vocabulary, text.name)
    windows = _windows(ids, context, first, "held-out", "context", text.name)
    return HeldOut(windows, text.name, hashlib.sha256(judged.encode()).hexdigest(), len(ids), bos, left_out)


def _not_learned_on(documents: list[str], learned_on: Corpus) -> tuple[str, int]:
    """The paragraphs of a text that are not among those learned on, and how many are."""
    known = {paragraph.strip() for paragraph in _paragraphs(learned_on.calibration)}
    paragraphs = _paragraphs(SEPARATOR.join(documents))
    kept = [paragraph for paragraph in paragraphs if paragraph.strip() not in known]
    return SEPARATOR.join(kept), len(paragraphs) - len(kept)


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def _check_lengths(lengths: dict[str, int], model_context: int | None) -> None:
    for name, tokens in lengths.items():
        if tokens < 2:
            raise ProxSparseError(f"{name} is {tokens}: a window needs 2 tokens or more.")
        if model_context is not None and tokens > model_context:
            raise ProxSparseError(
                f"{name} is {tokens} and the model reads at most {model_context} tokens: give {model_context} or less."
            )


def _first_token(tokenizer, bos: bool) -> int | None:
    """The token that begins every window, if there is one."""
    if bos and tokenizer.bos_token_id is None:
        raise ProxSparseError("This model's tokenizer has no BOS token to begin a window with: set bos to once.")
    return tokenizer.bos_token_id if bos else None


def load_corpus(corpus: str | Corpus) -> Corpus:
    """The text behind a name or a path, see `load_windows`; one that is read already as it is."""
    if isinstance(corpus, Corpus):
        return corpus
    if corpus in _NAMED:
        return _NAMED[corpus]()
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


def read_documents(path: Path) -> list[str]:
    """The paragraphs of a .txt file, or the `text` fields of a .jsonl file."""
    refuse_lfs_pointer(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ProxSparseError(f"There is no file {str(path)!r}: check the path.") from None
    except UnicodeDecodeError as error:
        raise ProxSparseError(f"{path.name} is not text (byte {error.start} is not UTF-8): save it as UTF-8.") from None
    except OSError as error:
        raise ProxSparseError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
    if "\0" in content:
        raise ProxSparseError(f"{path.name} is not text (it holds zero bytes): give a UTF-8 .txt or .jsonl file.")
    if path.suffix == ".txt":
        return [paragraph for paragraph in content.replace("\r\n", "\n").split(SEPARATOR) if paragraph.strip()]
    documents = []
    for number, line in enumerate(content.split("\n"), start=1):  # JSON may hold what else ends lines in Unicode
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            raise ProxSparseError(
                f'Line {number} of {path.name} is not a JSON object with a "text": write {{"text": "…"}}.'
            )
        documents.append(entry["text"])
    return documents


def split(documents: list[str]) -> tuple[str, str]:
    """Cut a text into a calibration part, about 80% of the characters, and a held-out part.

    The cut lies between two documents where one is near 80%; else, as with few long documents, inside one: at the end of
    a paragraph, a line, a sentence or a word, the first of these that is near.

    Parameters
    ----------
    documents : list of str
        What the text is made of; in each part, "\\n\\n" stands between two of them.

    Returns
    -------
    calibration, heldout : str
        Neither is empty where the text has two characters or more. From ten characters on, the calibration part has
        between 70% and 90% of them.

    Examples
    --------
    >>> split(["one", "two", "six", "ten", "end"])
    ('one\\n\\ntwo\\n\\nsix\\n\\nten', 'end')
    >>> split(["Title", "One sentence is here. Then comes one more. And a last."])
    ('Title\\n\\nOne sentence is here. Then comes one more. ', 'And a last.')
    """
    text = SEPARATOR.join(documents)
    least, target, most = (share * len(text) for share in (LEAST_SHARE, CALIBRATION_SHARE, MOST_SHARE))
    ends = list(itertools.accumulate(len(document) + len(SEPARATOR) for document in documents[:-1]))
    near = [end for end in ends if least <= end - len(SEPARATOR) and end <= most]
    if near:
        cut = min(near, key=lambda end: abs(end - target))
        return text[: cut - len(SEPARATOR)], text[cut:]
    first, last = math.ceil(least), math.floor(most)
    for boundary in BOUNDARIES:
        found = [match.end() for match in boundary.finditer(text, first, last) if match.end() < len(text)]
        if found:
            cut = min(found, key=lambda end: abs(end - target))
            break
    else:
        cut = max(1, min(round(target), len(text) - 1))
    return text[:cut], text[cut:]


def _token_ids(text: str, tokenizer, vocabulary: int | None, name: str) -> Tensor:
    """int64 (tokens,). Raises ProxSparseError for a token that the model does not know; vocabulary: how many it does."""
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)
    unknown = ids[ids >= vocabulary] if vocabulary is not None else ids[:0]
    if len(unknown):
        token = tokenizer.convert_ids_to_tokens(int(unknown[0]))
        raise ProxSparseError(
            f"{name} needs the token {token!r} ({int(unknown[0])}), which lies beyond the {vocabulary} rows of the model's "
            "embedding: give the tokenizer that belongs to the model, or take it out of the text."
        )
    return ids


def _windows(ids: Tensor, length: int, first: int | None, part: str, setting: str, name: str) -> Tensor:
    """int64 (count, length). first: the token with which each begins, if there is one."""
    if first is not None and len(ids) and ids[0] == first:
        ids = ids[1:]
    taken = length if first is None else length - 1
    count = len(ids) // taken
    if count == 0:
        raise ProxSparseError(
            f"The {part} part of {name} has {len(ids)} tokens, too few for one window of {length}: give more text or a "
            f"smaller {setting}."
        )
    windows = ids[: count * taken].view(count, taken)
    return windows if first is None else torch.nn.functional.pad(windows, (1, 0), value=first)


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


def _bundled() -> Corpus:
    return Corpus("bundled", SEPARATOR.join(_files_of("calibration")), SEPARATOR.join(_files_of("heldout")))


def _bundled_other() -> Corpus:
    return Corpus("bundled-other", "", SEPARATOR.join(_files_of("other")))


def _files_of(part: str) -> list[str]:
    files = sorted((BUNDLED / part).glob("*.txt"))
    if not files:
        raise ProxSparseError(f"The bundled corpus is not at {BUNDLED}: install proxsparse again, or give a text file.")
    return [path.read_text(encoding="utf-8").strip() for path in files]


def _from_hub(name: str, read: Callable[[], Corpus]) -> Corpus:
    try:
        return read()
    except ImportError:
        raise ProxSparseError(f"The corpus {name!r} needs the package `datasets`: pip install datasets.") from None
    except (OSError, ConnectionError, RuntimeError, ValueError) as error:  # what `datasets` raises without a network
        raise ProxSparseError(
            f"The corpus {name!r} could not be loaded from the Hub ({type(error).__name__}): check the network, or use "
            "bundled or your own text file."
        ) from error


def _wikitext2() -> Corpus:
    def read():
        from datasets import load_dataset

        splits = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1")
        return Corpus("wikitext2", SEPARATOR.join(splits["train"]["text"]), SEPARATOR.join(splits["test"]["text"]))

    return _from_hub("wikitext2", read)


def _c4() -> Corpus:
    def read():
        from datasets import load_dataset

        def first(split: str, count: int) -> str:
            return SEPARATOR.join(
                row["text"]
                for row in itertools.islice(load_dataset("allenai/c4", "en", split=split, streaming=True), count)
            )

        return Corpus("c4", first("train", C4_DOCUMENTS), first("validation", C4_DOCUMENTS // 4))

    return _from_hub("c4", read)


_NAMED: dict[str, Callable[[], Corpus]] = {
    "bundled": _bundled, "bundled-other": _bundled_other, "wikitext2": _wikitext2, "c4": _c4,
}  # fmt: skip
