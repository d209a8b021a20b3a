"""A sweep at one moment, and words and numbers about it as HTML. Everything that comes from outside is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from app import html
from proxsparse.runs import Run, Sweep
from proxsparse.runs.directory import ACTIVE

EMPTY = """
<div class='empty'><b>No sweep yet.</b> Press <b>Start a sweep</b>: the model learns a mask with each of the settings, those that do
worse end early, and this page shows which were best.</div>"""
COMING = """No trial has been measured yet. As soon as one is, its perplexity over λ1, all trials
side by side and their table stand here, to choose a trial in and to start a run with its settings."""
COLUMNS = ("trial", "state", "λ1", "learning rate", "steps", "perplexity", "seconds")


@dataclass(frozen=True)
class SweepSnapshot:
    """A sweep at one moment. state: as `Run.state`; asked: the commands that its worker has not handled yet; table, trials: as
    `Sweep.table` and `Sweep.trials`; best: the number of the best trial, None before there is one; ties, verdict: as `Sweep.ties`
    and `Sweep.verdict`."""

    run: Run
    sweep: Sweep
    created: str
    state: dict
    asked: tuple[str, ...]
    table: pd.DataFrame
    trials: pd.DataFrame
    best: int | None
    ties: list[int] | None
    verdict: str

    @property
    def is_active(self) -> bool:
        """Whether a worker is on it, or should be in a moment."""
        return self.state["status"] in ACTIVE

    @property
    def drawn(self) -> tuple:
        """What the charts and the table show: equal for two snapshots that look the same."""
        return self.run.path, self.created, len(self.table), tuple(self.trials["state"])

    def trial(self, number: str) -> pd.Series | None:
        """The trial of that number, else the best one; None before there is any."""
        numbers = self.trials["trial"].astype(str).tolist()
        wanted = number if number in numbers else str(self.best)
        return self.trials.iloc[numbers.index(wanted)] if wanted in numbers else None


def snapshot_of(run: Run) -> SweepSnapshot:
    """The sweep as it is now. Raises ProxSparseError for a run of another kind, or one that is damaged."""
    sweep = Sweep(run)
    state, asked = run.state(), tuple(command["command"] for _, command in run.commands())
    best = sweep.best()
    return SweepSnapshot(
        run, sweep, run.header()["created"], state, asked, sweep.table(), sweep.trials(), None if best is None else int(best["trial"]),
        sweep.ties(), sweep.verdict(),
    )  # fmt: skip


def banner(view: SweepSnapshot | None) -> str:
    """What the sweep is doing, and how far it is."""
    if view is None:
        return EMPTY
    state, base, plan = view.state, view.sweep.base, view.sweep.plan
    status, done, count = state["status"], state["step"], plan.count
    parts = [f"<b>{done}</b> of {count} trials ended"]
    if state.get("elapsed") is not None:
        parts.append(f"{html.duration(state['elapsed'])} of work")
    if state.get("device"):
        parts.append(escape(state["device"]))
    error = html.failure(state["error"]) if state.get("error") else ""
    if status == "interrupted":
        error = html.failure(
            "The worker process ended unexpectedly (killed, or out of memory); Resume goes on with its trial."
        )
    if view.asked:
        error += (
            f"<div class='facts'>Asked for: {escape(', '.join(view.asked))}. It takes effect when what is being computed now is "
            "done.</div>"
        )
    what = (
        f"{escape(Path(base.model).name)} on {escape(Path(base.corpus).name)}, {plan.sampler} sampler, pruner {plan.pruner}, "
        f"{' → '.join(map(str, view.sweep.steps()))} steps, metric {base.learn.metric}, {base.learn.pattern}"
    )
    return html.banner(state, parts, what, view.run.id, "trials ended", count, rest=error)


def table(view: SweepSnapshot | None, chosen: pd.Series | None) -> str:
    """All trials, the best ones first: a click on a number chooses one."""
    if view is None or view.trials.empty:
        return ""
    number = None if chosen is None else int(chosen["trial"])
    trials = view.trials.sort_values(["rung", "perplexity"], ascending=[False, True])
    rows, classes = [], []
    for trial in trials.itertuples():
        pressed = str(trial.trial == number).lower()
        pick = f"<button type='button' data-trial='{trial.trial}' aria-pressed='{pressed}'>{trial.trial}</button>"
        rows.append((
            pick, escape(_state(view, trial)), f"{trial.lambda1:.4g}", f"{trial.learning_rate:.4g}", str(trial.steps),
            html.with_error(trial.perplexity, trial.stderr) if trial.perplexity < float("inf") else "not finite", f"{trial.seconds:.0f}",
        ))  # fmt: skip
        classes.append("chosen" if trial.trial == number else "")
    return html.table(COLUMNS, rows, numeric=(2, 3, 4, 5, 6), classes=classes)


def _state(view: SweepSnapshot, trial) -> str:
    """The word for a trial in the table: best is one that is told apart from all others, and only at the end."""
    if view.ties and trial.trial == view.best:
        return "lowest, tied"
    if trial.trial in (view.ties or ()):
        return "tied with the lowest"
    if trial.trial != view.best:
        return str(trial.state)
    word = "lowest" if view.ties is None else "best"
    return f"{word} so far" if view.is_active else word


def chosen(view: SweepSnapshot | None, trial: pd.Series | None) -> str:
    """The settings of the trial that is chosen, and their preset."""
    if view is None or trial is None:
        return html.note(COMING) if view is not None else ""
    address = f"preset/{quote(view.run.id)}/{int(trial['trial'])}.json"
    steps = view.sweep.base.learn.steps
    return (
        f"<p>{escape(view.verdict)}</p>"
        f"<p><b>Trial {int(trial['trial'])}</b>: λ1 {trial['lambda1']:.4g}, learning rate {trial['learning_rate']:.4g}, with the "
        f"sweep's {steps} steps, model and text. <a href='{address}' download>Download as a preset</a></p>"
    )
