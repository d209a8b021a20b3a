"""Where text comes from, and how it becomes windows.

A corpus has a calibration part, which the masks are learned on, and a held-out part, which they are judged on; the two
never overlap. Each part is concatenated, tokenized once and cut into windows of a stated length that do not overlap.
Masks can be judged on other texts as well: `load_heldout` takes from each what was not learned on.
"""

from proxsparse.text.bundled import BUNDLED, mixed_with_bundled
from proxsparse.text.corpus import Corpus, split
from proxsparse.text.heldout import HeldOut, load_heldout
from proxsparse.text.load import load_corpus
from proxsparse.text.reading import read_documents
from proxsparse.text.windows import Text, load_windows

__all__ = [
    "BUNDLED",
    "Corpus",
    "HeldOut",
    "Text",
    "load_corpus",
    "load_heldout",
    "load_windows",
    "mixed_with_bundled",
    "read_documents",
    "split",
]
