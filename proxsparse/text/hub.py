"""The corpora that are read from the Hugging Face Hub."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from proxsparse.errors import ProxSparseError
from proxsparse.text.corpus import SEPARATOR, Corpus

C4_DOCUMENTS = 2000  # streamed for calibration, about 1 M tokens; a quarter of it is held out from the validation split


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


def wikitext2() -> Corpus:
    def read():
        from datasets import load_dataset

        splits = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1")
        return Corpus("wikitext2", SEPARATOR.join(splits["train"]["text"]), SEPARATOR.join(splits["test"]["text"]))

    return _from_hub("wikitext2", read)


def c4() -> Corpus:
    def read():
        from datasets import load_dataset

        def first(split: str, count: int) -> str:
            return SEPARATOR.join(
                row["text"]
                for row in itertools.islice(load_dataset("allenai/c4", "en", split=split, streaming=True), count)
            )

        return Corpus("c4", first("train", C4_DOCUMENTS), first("validation", C4_DOCUMENTS // 4))

    return _from_hub("c4", read)
