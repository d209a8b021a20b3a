"""The corpora of the Hugging Face Hub: streamed, and tokenized meanwhile, until there are as many tokens as are needed.

What has been read once is kept (`proxsparse.text.kept`): whoever needs it again needs no network, and gets the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from proxsparse.config import DATASETS
from proxsparse.errors import ProxSparseError
from proxsparse.progress import Progress, no_progress
from proxsparse.text.ahead import read_ahead
from proxsparse.text.corpus import SEPARATOR
from proxsparse.text.kept import fingerprint_of, kept
from proxsparse.text.tokens import Tokenized, token_ids

SEED, BUFFER = 0, 1000  # of the shuffling; documents among which the next one is drawn, the default of `datasets`
BATCH = 32  # rows that are read, and tokenized, at once


@dataclass(frozen=True)
class Part:
    """A part of a corpus on the Hub. least: tokens that are read at least; None: of a small corpus, whose rows are lines, all of them
    in their order."""

    corpus: str
    split: str
    least: int | None = None


# {corpus: (calibration part, held-out part)}. The held-out parts are as large for every job, so that all are judged on the same text.
HUB = {
    "wikitext2": (Part("wikitext2", "train"), Part("wikitext2", "test")),
    "c4": (Part("c4", "train", 2**20), Part("c4", "validation", 2**19)),
}


def read_part(
    part: Part, tokenizer, tokens: int = 0, seed: int = SEED, window: int = 1, progress: Progress = no_progress
) -> Tokenized:
    """A part of a corpus, with its tokens: from the cache, else from the Hub.

    Parameters
    ----------
    part : Part
        Of one of the corpora of `HUB`.
    tokenizer : transformers tokenizer
        Of the model that will read it.
    tokens : int
        How many are needed. Of a large corpus `part.least` are read where that is more, of a small one all.
    seed : int
        A large corpus is shuffled by it: the order of its files, then the documents within a buffer.
    window : int
        Tokens of a window, in which progress is told.
    progress : callable
        What it raises ends the reading, and then nothing is kept.

    Raises
    ------
    ProxSparseError
        Where the package `datasets` is missing, the Hub does not answer, or what was read cannot be kept.
    """
    needed = None if part.least is None else max(part.least, tokens)
    key = {"dataset": DATASETS[part.corpus], "split": part.split, "tokenizer": fingerprint_of(tokenizer)}
    if needed is None:
        read = partial(_all_lines, part, tokenizer, progress)
    else:
        key |= {"tokens": needed, "seed": seed, "buffer": BUFFER}
        read = partial(_documents, part, tokenizer, needed, seed, window, progress)
    return kept(f"{part.corpus}-{part.split}", key, read, progress)


def _all_lines(part: Part, tokenizer, progress: Progress) -> Tokenized:
    """The whole text, tokenized at once, as those do who publish perplexities of WikiText-2."""
    lines: list[str] = []

    def tell() -> None:
        progress(len(lines), len(lines) + 1, f"reading {part.corpus}, {part.split} split: line")

    for batch in read_ahead(_batches(part, None), tell):
        lines += batch
    text = SEPARATOR.join(lines)
    return Tokenized(text, token_ids(text, tokenizer))


def _documents(part: Part, tokenizer, needed: int, seed: int, window: int, progress: Progress) -> Tokenized:
    """Documents, each tokenized by itself, up to the one with which there are as many tokens as needed; and these tokens."""
    documents: list[str] = []
    ids = [_beginning(tokenizer)]
    count = len(ids[0])

    def tell() -> None:
        progress(count // window, needed // window, f"reading {part.corpus}, {part.split} split: window")

    for batch in read_ahead(_batches(part, seed), tell):
        read = [document + SEPARATOR for document in batch]
        found = tokenizer(read, add_special_tokens=False, verbose=False)["input_ids"]
        for document, its in zip(batch, found, strict=True):
            documents.append(document)
            ids.append(torch.tensor(its, dtype=torch.int64))
            count += len(its)
            if count >= needed:
                return Tokenized(SEPARATOR.join(documents), torch.cat(ids)[:needed])
        tell()
    return Tokenized(SEPARATOR.join(documents), torch.cat(ids))


def _beginning(tokenizer) -> Tensor:
    """The BOS token where the tokenizer begins a text with it, else nothing."""
    first = tokenizer("", verbose=False)["input_ids"][:1]
    return torch.tensor(first if first == [tokenizer.bos_token_id] else [], dtype=torch.int64)


def _batches(part: Part, seed: int | None) -> Iterator[list[str]]:
    """The rows of a part, some at once; shuffled where there is a seed."""
    path, config, commit = DATASETS[part.corpus]
    try:
        from datasets import load_dataset

        rows = load_dataset(path, config, split=part.split, revision=commit, streaming=True)
        rows = rows if seed is None else rows.shuffle(seed=seed, buffer_size=BUFFER)
        for batch in rows.iter(batch_size=BATCH):
            yield batch["text"]
    except ImportError:
        raise ProxSparseError(
            f"The corpus {part.corpus!r} needs the package `datasets`: pip install datasets."
        ) from None
    except Exception as error:  # of a broken connection `datasets` raises what its HTTP clients do, of many kinds
        raise ProxSparseError(
            f"The corpus {part.corpus!r} could not be read from the Hub ({type(error).__name__}): check the network, or use "
            "bundled or your own text file."
        ) from error
