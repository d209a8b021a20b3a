"""A corpus: a calibration part, which masks are learned on, and a held-out part, which they are judged on."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from dataclasses import dataclass

CALIBRATION_SHARE = 0.8  # of a user's own file; the rest is held out
LEAST_SHARE, MOST_SHARE = 0.7, 0.9  # how far from that a cut between documents may lie
SEPARATOR = "\n\n"  # between two documents
# After what a document is cut, best first: a paragraph, a line, a sentence, a word.
BOUNDARIES = tuple(map(re.compile, (r"\n\n+", r"\n", r"[.!?…]\s+|[。！？]", r"\s+")))


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
