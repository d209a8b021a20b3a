"""A comparison (a `Comparison`) in words: its table as people read it, what its columns mean, what is to be known of single
methods."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from proxsparse.config import LEARNED, judged_by
from proxsparse.runs.readers.zero_shot import about_accuracies

ON = "perplexity on "  # begins the names of the columns of further texts
BRIEF = (
    "method",
    "perplexity",
    "over ours",
    "weights",
    "mean acc",
    "mean acc_norm",
)  # in a terminal, beside further texts


def in_markdown(comparison) -> str:
    """The table and the completions for people."""
    parts = [about(comparison), _table(readable(comparison.table())), *notes(comparison)]
    completions = comparison.completions()
    for prompt in completions.index:
        parts.append(f"**{prompt} …**")
        parts.append("\n".join(f"- {name}: {' '.join(text.split())}" for name, text in completions.loc[prompt].items()))
    return "\n\n".join(parts) + "\n"


def in_terminal(comparison) -> str:
    """Perplexities of all methods on all texts, as the last thing said and narrow enough for a terminal; `in_markdown` has the rest."""
    shown = readable(comparison.table())
    columns = [name for name in shown if name in BRIEF or name.startswith("on ")]
    return "\n\n".join([about_perplexity(comparison), *notes(comparison), _table(shown[columns])]) + "\n"


def _table(shown: pd.DataFrame) -> str:
    return tabulate(shown, headers="keys", tablefmt="github", showindex=False, disable_numparse=True)


def about(comparison) -> str:
    """What was compared, and what the columns of the table are."""
    job = comparison.job
    words = about_perplexity(comparison)
    words += " Seconds and memory: to make the mask. Output error: mean over layers of ‖WX − ŴX‖/‖WX‖ on held-out text."
    if comparison.ours:
        words += f" Kept as ours: share of the kept weights that {comparison.ours} keeps too."
    if tasks := {task for scores in comparison.accuracies().values() for task in scores}:
        words += f" {about_accuracies(tasks)}"
    learned = [name for name in job.methods if name in LEARNED]
    if learned:
        words += f" {', '.join(learned)}: {job.steps} steps of {job.batch} × {job.length} tokens."
    if set(job.methods) - set(learned):
        words += f" Calibrated on {job.calibration} windows of {job.length} tokens."
    return words


def about_perplexity(comparison) -> str:
    """On what perplexities were measured, and over what they are given."""
    job, results = comparison.job, comparison.results()
    windows = len(next(iter(results.values()))["losses"]) if results else 0
    words = (
        f"{Path(job.model).name}, {job.n}:{job.m}; perplexity on {windows} held-out windows of {job.context} tokens of "
        f"{judged_by(job.corpus)}, ± standard error over windows."
    )
    for text, losses in comparison.judged().items():
        count = len(next(iter(losses.values())))
        words += f" On {text}: the same on {count} windows of that text."
    if comparison.ours:
        words += f" Over ours: perplexity over that of {comparison.ours}, ± standard error of the paired differences."
    return words


def notes(comparison) -> list[str]:
    """What is to be known of single methods: where a mask is from, on what it was learned, why there is none."""
    job, results, layers = comparison.job, comparison.results(), len(comparison.run.layers())
    found = [
        f"{name}: the zeros of the checkpoint {path}, proven to be {job.n}:{job.m} in all {layers} layers."
        for name, path in job.mask_names().items() if name in results
    ]  # fmt: skip
    found += [f"{name} learned on another text: {text}." for name, text in comparison.other_texts().items()]
    return found + [f"{name} gave no result. {why}" for name, why in comparison.failures().items()]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `Comparison.table` as people read them: strings, with units in the names."""
    shown = pd.DataFrame({"method": table["method"]}) if len(table) else pd.DataFrame(columns=["method"])
    if not len(table):
        return shown
    shown["perplexity"] = _pairs_of(table, "perplexity", "stderr")
    if "ratio" in table:
        shown["over ours"] = _pairs_of(table, "ratio", "ratio_stderr")
    texts = [column.removeprefix(ON) for column in table.columns if column.startswith(ON)]
    for text in texts:
        shown[f"on {text}"] = _pairs_of(table, f"{ON}{text}", f"stderr on {text}")
        if f"ratio on {text}" in table:
            shown[f"over ours on {text}"] = _pairs_of(table, f"ratio on {text}", f"ratio_stderr on {text}")
    shown["weights"] = ["updated" if changed else "original" for changed in table["weights_changed"]]
    shown["seconds"] = [_number(value, ".0f") for value in table["seconds"]]
    shown["memory, GB"] = [_number(value, ".1f") for value in table["memory_GB"]]
    known = {"method", "perplexity", "stderr", "ratio", "ratio_stderr", "weights_changed", "seconds", "memory_GB"}
    known |= {f"{what} on {text}" for what in ("perplexity", "stderr", "ratio", "ratio_stderr") for text in texts}
    names = {"overlap": "kept as ours", "output_error": "output error"}
    for column in table.columns.drop(list(known & set(table.columns))):
        form = ".2f" if column == "output_error" else ".1%"
        shown[names.get(column, column)] = [_number(value, form) for value in table[column]]
    return shown


def _pairs_of(table: pd.DataFrame, values: str, errors: str) -> list[str]:
    """Two columns as one of texts: empty where nothing was measured."""
    return [
        "" if math.isnan(value) else _with_error(value, error)
        for value, error in zip(table[values], table[errors], strict=True)
    ]


def _with_error(value: float, error: float) -> str:
    digits = ".2f" if value < 10 else ".1f" if value < 1e5 else ".1e"
    shown = f"{value:{digits}}" if math.isnan(error) or error == 0 else f"{value:{digits}} ± {error:{digits}}"
    return shown.replace("e+0", "e").replace("e+", "e")


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}"
