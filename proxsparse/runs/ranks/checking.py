"""Reading a checkpoint on several ranks: each looks at its share of what was written, and reads what it is going to hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxsparse.layers.ranks import Ranks
from proxsparse.runs.checkpoints.stored import DAMAGE, Stored, StoredFile, StoredParts, opened
from proxsparse.runs.ranks.group import CHECK, tell


def stored_state(path: Path) -> tuple[Mapping[str, Stored], dict]:
    """The state in a checkpoint, which all ranks have found whole; a rank reads its part of each tensor."""
    stored = opened(path)
    return stored.tensors, stored.rest


def check_together(path: Path, stored: StoredFile | StoredParts | None = None) -> None:
    """Look whether a checkpoint is what was written, each rank at its share. All ranks call it, rank 0 with what it has opened; it
    raises ValueError there where it is not."""
    ranks = Ranks.started()
    if stored is not None:
        tell(CHECK, str(path))
    try:
        (stored or opened(path)).check(ranks.index, ranks.count)
        wrong = ""
    except DAMAGE as error:
        wrong = str(error) or type(error).__name__
    found = ranks.gathered(wrong)
    if any(found):
        raise ValueError(next(filter(None, found)))
