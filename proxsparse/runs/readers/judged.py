"""What masks are worth on texts: perplexities and their ratios from the losses of all windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

CERTAIN = 2  # standard errors beyond which a difference is called one
COLUMNS = ("text", "mask", "step", "perplexity", "stderr", "ratio", "ratio_stderr", "windows", "context")


def with_stderr(losses: Sequence[float]) -> tuple[float, float]:
    """exp of the mean of the windows' losses, and its standard error over the windows; of two losses' differences, their ratio."""
    values = np.asarray(losses, dtype=float)
    found = math.exp(min(values.mean(), 700))
    return found, found * (values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan)


def ratio(losses: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """One perplexity over another on the same windows. Its standard error comes from the paired differences of the windows' losses,
    so that what makes a window hard for both does not count."""
    return with_stderr(np.asarray(losses, dtype=float) - np.asarray(others, dtype=float))


def differ(losses: Sequence[float], others: Sequence[float]) -> bool:
    """Whether two masks are told apart on the same windows: whether the mean of the paired differences of their losses is more than
    `CERTAIN` of its standard errors from zero. On a single window nothing is."""
    differences = np.asarray(losses, dtype=float) - np.asarray(others, dtype=float)
    if len(differences) < 2:
        return False
    return bool(abs(differences.mean()) > CERTAIN * differences.std(ddof=1) / math.sqrt(len(differences)))


def judged_table(records: Iterable[dict]) -> pd.DataFrame:
    """The further texts on which the mask of a run that learned was judged; one row a text and mask.

    Parameters
    ----------
    records : iterable of dict
        The record `judged` of a run, oldest first: step, mask (`dense` or `learned`), text, sha256 (of the text), context, losses.

    Returns
    -------
    DataFrame
        text, mask, step, perplexity, stderr (over windows), ratio (over the dense model, on the same windows), ratio_stderr,
        windows, context (tokens of a window). Of each mask its newest measurement on the newest text of a name; no row of a text
        on which the learned mask was not measured yet.
    """
    newest: dict[str, dict[str, dict]] = {}
    for record in records:
        known = newest.setdefault(record["text"], {})
        if any(other["sha256"] != record["sha256"] for other in known.values()):
            known.clear()
        known[record["mask"]] = record
    rows = []
    for text, masks in newest.items():
        if not {"dense", "learned"} <= masks.keys():
            continue
        for mask in ("dense", "learned"):
            losses, dense = masks[mask]["losses"], masks["dense"]["losses"]
            over = ratio(losses, dense) if len(losses) == len(dense) else (math.nan, math.nan)
            rows.append(
                (text, mask, masks[mask]["step"], *with_stderr(losses), *over, len(losses), masks[mask]["context"])
            )
    return pd.DataFrame(rows, columns=COLUMNS)
