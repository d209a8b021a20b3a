"""What a run is and what came out of it, as plain values for the head of the page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from proxsparse.config import LearnConfig, LearnJob, judged_by
from proxsparse.runs import Run
from proxsparse.runs.readers.judged import judged_table
from proxsparse.settings import settings_of

MASKS = ("dense", "magnitude", "learned")
NAMED_APART = ("model", "corpus", "device")  # shown by themselves, and not among the settings


@dataclass(frozen=True)
class Result:
    """One line of the table: the newest measurement of a mask."""

    mask: str
    perplexity: float
    stderr: float | None
    windows: int
    context: int
    step: int
    text: str

    @property
    def written(self) -> str:
        """Perplexity ± standard error, both to the same place."""
        form = number_form(self.perplexity)
        return f"{self.perplexity:{form}}" + ("" if self.stderr is None else f" ± {self.stderr:{form}}")


def number_form(value: float) -> str:
    """How a perplexity is written, with as many digits as are worth reading."""
    return ".2f" if value < 10 else ",.1f" if value < 1000 else ",.0f" if value < 1e6 else ".1e"


def place(name: str) -> str:
    """A model or a text as a page that is passed on may call it: of a path on this machine its last part."""
    return Path(name).name if Path(name).is_absolute() else name


def facts(run: Run) -> dict[str, str]:
    """Model, text, pattern, device, state and times; name → value."""
    job, state, corpus = run.job(), run.state(), run.corpus()
    tokens = f" ({corpus['calibration_tokens']:,} tokens to learn from)" if corpus else ""
    found = {
        "model": place(job.model),
        "text": place(job.corpus) + tokens,
        "pattern": f"{job.learn.n}:{job.learn.m}",
        "device": state.get("device") or job.device or "not known",
        "state": f"{state['status']}, step {state['step']} of {job.learn.steps}",
        "started": _minute(run.header()["created"]),
    }
    updated = state.get("updated")
    if updated:
        found["last change"] = _minute(datetime.fromtimestamp(updated, UTC).isoformat())
    if state.get("error"):
        found["error"] = str(state["error"])
    parent = run.header().get("parent")
    if parent:
        found["forked from"] = f"{parent['run']}, step {parent['step']}"
    return found


def changed_settings(run: Run) -> dict[str, str]:
    """The settings that are not at their default; name → value."""
    job, found = run.job(), {}
    for given, usual in ((job, LearnJob()), (job.learn, LearnConfig())):
        for name, about in settings_of(type(given)).items():
            value = getattr(given, name)
            if name not in NAMED_APART and value != getattr(usual, name):
                plain = f"{value:g}" if isinstance(value, float) else str(value)
                found[name.replace("_", " ")] = about.with_unit(plain)
    return found


def results(run: Run) -> list[Result]:
    """Of each mask its newest measurement: on the final windows where there is one, else on those of the live curve; and those on
    further texts."""
    table, found = run.table("perplexity"), []
    if table.empty:
        return found
    own = f"{judged_by(place(run.job().corpus))}, held-out part"
    scope = "final" if ((table["scope"] == "final") & (table["mask"] == "learned")).any() else "live"
    for mask in MASKS:
        rows = table[(table["mask"] == mask) & (table["scope"] == scope)]
        if len(rows):
            last = rows.iloc[-1]
            stderr = None if pd.isna(last["stderr"]) else float(last["stderr"])
            found.append(
                Result(
                    mask, float(last["perplexity"]), stderr, int(last["windows"]), int(last["context"]), int(last["step"]), own
                )
            )  # fmt: skip
    judged = judged_table(run.table("judged").to_dict("records"))
    for row in judged.itertuples():
        stderr = None if pd.isna(row.stderr) else row.stderr
        found.append(Result(row.mask, row.perplexity, stderr, row.windows, row.context, row.step, row.text))
    return found


def _minute(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
