"""A run among others: what it was forked from, what was forked from it, and in what runs differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.operator import EXAMPLE_ID, HAS_EXAMPLE
from app.settings_form import differences, label_of, values_of
from app.views.listing import Row
from app.views.run import RunSnapshot
from proxsparse.figures import Course

# What changes how a run is carried out or looked at, but not what it learns.
ASIDE = ("windows", "live_windows", "evaluate_every", "checkpoint_every", "device", "memory", "recompute")


def learned_beside(id: str, rows: Iterable[Row]) -> list[str]:
    """The runs that learned, the newest first, then the recorded example; without the run `id`."""
    ids = [row.id for row in rows if row.kind == "learn"] + ([EXAMPLE_ID] if HAS_EXAMPLE else [])
    return [each for each in ids if each != id]


def family(id: str, rows: Iterable[Row]) -> list[str]:
    """The runs that a run goes back to, the nearest first, then its own forks, the newest first."""
    parents = {row.id: row.parent for row in rows if row.kind == "learn"}
    found: list[str] = []
    ancestor = parents.get(id)
    while ancestor in parents and ancestor != id and ancestor not in found:
        found.append(ancestor)
        ancestor = parents[ancestor]
    return found + [child for child, parent in parents.items() if parent == id and child not in found]


def courses(views: Sequence[RunSnapshot]) -> list[Course]:
    """Runs as they are drawn over each other, the one in the foreground first; each is named by what tells it from the rest."""
    measured = [(view.job.model, view.job.corpus, view.job.context, view.job.live_windows) for view in views]
    return [
        Course(name, view.curves(), view.measurements(), _forked_at(view), how == measured[0])
        for view, name, how in zip(views, names(views), measured, strict=True)
    ]


def names(views: Sequence[RunSnapshot]) -> list[str]:
    """What each run has that not all have: settings, the step of its fork, λ1 set by hand; its id where that says nothing."""
    jobs = [view.job for view in views]
    differ = {name for job in jobs for name in differences(values_of(job), jobs[0])} - set(ASIDE)
    places = [name for name in ("model", "corpus") if len({getattr(job, name) for job in jobs}) > 1]
    texts = [", ".join(_told(view, places, differ)) for view in views]
    texts = [
        text if text and texts.count(text) == 1 else f"{text}, {view.run.id}".removeprefix(", ")
        for text, view in zip(texts, views, strict=True)
    ]
    return [f"{text} (shown)" if index == 0 else text for index, text in enumerate(texts)]


def _told(view: RunSnapshot, places: list[str], differ: set[str]) -> list[str]:
    """Pieces of the name of one run."""
    job, learn = view.job, view.job.learn
    told = [f"{name} {getattr(job, name).rsplit('/', 1)[-1]}" for name in places]
    for name in sorted(differ, key=lambda name: (name != "lambda1", name)):
        value = getattr(job if hasattr(job, name) else learn, name)
        label = "λ1" if name == "lambda1" else label_of(name)
        told.append(f"{label} {value:g}" if isinstance(value, float) else f"{label} {value}")
    forked_at = _forked_at(view)
    if forked_at is not None:
        told.append(f"from step {forked_at}")
    by_hand = [event for event in view.events if event["event"] == "lambda1"]
    if by_hand:
        told.append(f"λ1 set to {by_hand[-1]['lambda1']:g} after step {by_hand[-1]['step']}")
    return told


def _forked_at(view: RunSnapshot) -> int | None:
    return (view.run.header().get("parent") or {}).get("step")
