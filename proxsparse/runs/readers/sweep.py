"""The reader's side of a sweep: which λ1 and learning rate make the best mask.

Which settings are tried, and which of them end early, Optuna says (see `proxsparse.runs.jobs.study`); what came of them the sweep's
worker writes down here, so that a reader needs neither Optuna nor the database in which a study may lie.

study.log     Optuna's journal of the study, unless its storage is elsewhere; `optuna-dashboard study.log` shows it
trials.json   one entry for every rung that a trial has reached, with the losses of the windows on which it was judged  (written whole)
table.csv, figure.html, parallel.html, preset.json                           (written at the end)

Settings are judged on windows of the calibration text that no trial learns from; the held-out text is never looked at.

Sweeps of before there was Optuna here have their trials in trials.jsonl. They can be read, and not gone on with.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import random
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from proxsparse.config import LearnJob, SweepPlan, check_launch
from proxsparse.errors import ProxSparseError
from proxsparse.files import Tail, read_json, written_whole
from proxsparse.runs.presets import PRESET_FILE, write_preset
from proxsparse.runs.readers.judged import CERTAIN, differ
from proxsparse.runs.records import is_number, is_step
from proxsparse.runs.run import Run

TRIALS_FILE, FORMER_FILE, STUDY_FILE = "trials.json", "trials.jsonl", "study.log"
COLUMNS = ("trial", "state", "rung", "steps", "lambda1", "learning_rate", "perplexity", "stderr", "seconds")
NAMED = 8  # trials that are as good as the best one, by number
ERRORS = f"{CERTAIN} standard errors of the windows' paired differences"
FIGURES = {"figure.html": "figure", "parallel.html": "parallel"}


class Sweep:
    """The reader's side: trials so far, the figures, the best setting.

    storage, name: where its study lies, the path of a journal or the URL of a database, and what it is called there. joined: whether
    the study is another run's.
    """

    def __init__(self, run: Run | str | Path):
        self.run = run if isinstance(run, Run) else Run(run)
        header = self.run.header()
        if header["kind"] != "sweep":
            raise ProxSparseError(f"Run {self.run.id} is no sweep (it is of the kind {header['kind']!r}).")
        self.plan, self.base = SweepPlan(**header["plan"]), LearnJob.from_dict(header["sweep"])
        study = header.get("study") or {}
        self.storage = study.get("storage") or str(self.run.path.resolve() / STUDY_FILE)
        self.name, self.joined = study.get("name") or "sweep", bool(study.get("joined"))

    @property
    def is_former(self) -> bool:
        """Whether it is of before there was Optuna here."""
        return (self.run.path / FORMER_FILE).exists()

    def table(self) -> pd.DataFrame:
        """One row for every rung that a trial has reached: trial (its number), state (running, complete or pruned), rung, steps,
        lambda1, learning_rate, perplexity, stderr, seconds. A trial whose loss was not finite has the perplexity inf."""
        table = pd.DataFrame(self._rows(), columns=list(COLUMNS))
        table["perplexity"] = table["perplexity"].astype(float).fillna(float("inf"))
        return table

    def _rows(self) -> list[dict]:
        """The entries of the file. Raises ProxSparseError where it is damaged."""
        if self.is_former:
            return self._former_rows()
        rows = read_json(self.run.path / TRIALS_FILE, default=[])
        if not isinstance(rows, list) or not all(map(_fits, rows)):
            raise ProxSparseError(
                f"{TRIALS_FILE} of run {self.run.id} is damaged: resume the sweep, which writes it anew."
            )
        return rows

    def _former_rows(self) -> list[dict]:
        """The trials of a former sweep, of which each rung was one of its own, as those of today: a setting is a trial."""
        found = Tail(self.run.path / FORMER_FILE, lambda row: _fits(row, ("rung", "steps"))).read()
        settings = list(dict.fromkeys((row["lambda1"], row["learning_rate"]) for row in found))
        rows = [row | {"trial": settings.index((row["lambda1"], row["learning_rate"]))} for row in found]
        full = {row["trial"] for row in rows if row["rung"] == self.plan.rungs - 1}
        return [row | {"state": "complete" if row["trial"] in full else "pruned"} for row in rows]

    def trials(self) -> pd.DataFrame:
        """One row a trial, what it has reached: the columns of `table`, seconds those of all its rungs."""
        table = self.table()
        last = table.sort_values("rung", kind="stable").drop_duplicates("trial", keep="last").sort_values("trial")
        return last.assign(seconds=last["trial"].map(table.groupby("trial")["seconds"].sum())).reset_index(drop=True)

    def settings(self) -> list[dict[str, float]]:
        """What each trial is given: λ1 and learning rate of a grid; nothing where a sampler chooses.

        A grid is shuffled: a trial goes on when it is better than most before it, which in the order of the values, each better than
        the last, all would be.
        """
        if self.plan.sampler != "grid":
            return [{} for _ in range(self.plan.count)]
        pairs = [*itertools.product(self.plan.lambdas, self.plan.learning_rates)]
        random.Random(self.base.learn.seed).shuffle(pairs)
        return [{"lambda1": lambda1, "learning_rate": rate} for lambda1, rate in pairs]

    def steps(self) -> list[int]:
        """The steps of each rung."""
        return [self.base.learn.steps >> (self.plan.rungs - 1 - rung) for rung in range(self.plan.rungs)]

    def best(self) -> pd.Series | None:
        """The best trial of the highest rung on which one has a finite loss; None before."""
        table = self.table()
        table = table[table["perplexity"] < float("inf")]
        if table.empty:
            return None
        last = table[table["rung"] == table["rung"].max()]
        return last.loc[last["perplexity"].idxmin()]

    def ties(self) -> list[int] | None:
        """The trials of the best one's rung that are not told apart from it on the windows on which all were judged (see
        `proxsparse.runs.readers.judged.differ`); None where these windows' losses were not recorded, as in sweeps of before."""
        best = self.best()
        if best is None:
            return []
        rung = [row for row in self._rows() if row["rung"] == best["rung"] and row["perplexity"] is not None]
        losses = {row["trial"]: row.get("losses") or [] for row in rung}
        own = losses.pop(best["trial"])
        if any(len(others) != len(own) or not own for others in losses.values()):
            return None
        return sorted(trial for trial, others in losses.items() if not differ(others, own))

    def verdict(self) -> str:
        """Which trial is best, or that this cannot be said; nothing before one was measured."""
        best, ties = self.best(), self.ties()
        if best is None:
            return ""
        setting = f"λ1 {best['lambda1']:.4g}, learning rate {best['learning_rate']:.4g}"
        lowest = f"Trial {best['trial']} has the lowest perplexity after {best['steps']} steps ({setting})"
        table = self.table()
        if (table["rung"] == best["rung"]).sum() == 1:
            return f"{lowest}: no other trial took as many."
        if ties is None:
            return (
                f"{lowest}. Whether another is as good is not known: this sweep recorded no losses of single windows."
            )
        if not ties:
            told = f"each other differs from it by more than {ERRORS}"
            return f"Trial {best['trial']} is best after {best['steps']} steps ({setting}): {told}."
        named = ", ".join(map(str, ties[:NAMED])) + (f" and {len(ties) - NAMED} more" if len(ties) > NAMED else "")
        trials = "trial" if len(ties) == 1 else "trials"
        return f"{lowest}, and is not told apart from {trials} {named}: the difference is within {ERRORS}."

    def job(self, trial: int) -> LearnJob:
        """The job that takes a trial's settings, with the full number of steps. Raises ProxSparseError where there is no such trial."""
        rows = self.table()
        rows = rows[rows["trial"] == trial]
        if rows.empty:
            raise ProxSparseError(f"Sweep {self.run.id} has no trial {trial} that was measured: choose another one.")
        values = {name: float(rows.iloc[0][name]) for name in ("lambda1", "learning_rate")}
        return dataclasses.replace(self.base, learn=dataclasses.replace(self.base.learn, **values))

    def figure(self):
        from proxsparse import figures

        return figures.sweep(self.table())

    def parallel(self):
        """All trials as lines through the axes of what was set and what came of it."""
        from proxsparse import figures

        return figures.sweep_trials(self.trials())

    def markdown(self) -> str:
        """The trials at every rung, best first."""
        table = self.table().sort_values(["rung", "perplexity"], ascending=[False, True])
        rows = []
        for row in table.itertuples():
            stderr = "" if pd.isna(row.stderr) else f" ± {row.stderr:.2f}"
            setting = (f"{row.lambda1:g}", f"{row.learning_rate:g}")
            rows.append([row.steps, *setting, f"{row.perplexity:.2f}{stderr}", f"{row.seconds:.0f}", row.trial])
        columns = ["steps", "λ1", "learning rate", "perplexity", "seconds", "trial"]
        shown = tabulate(rows, headers=columns, tablefmt="github", disable_numparse=True)
        about = (
            f"{Path(self.base.model).name} on {Path(self.base.corpus).name}; perplexity on {self.plan.windows} calibration windows "
            f"of {self.base.length} tokens that nothing was learned from, ± standard error over windows."
        )
        verdict = self.verdict()
        return f"{about}\n\n{shown}\n" + (f"\n{verdict}\n" if verdict else "")

    def next_command(self) -> str:
        """What one does with it."""
        return f"proxsparse learn --preset {self.run.path / PRESET_FILE}"

    def files(self) -> list[str]:
        """What `write_files` has written."""
        return [name for name in ("table.csv", *FIGURES, PRESET_FILE) if (self.run.path / name).exists()]

    def write_files(self) -> None:
        """The table, the figures where plotly is installed, and the best setting as a preset."""
        with written_whole(self.run.path / "table.csv") as temporary:
            self.table().to_csv(temporary, index=False)
        write_preset(self.run.path / PRESET_FILE, self.job(self.best()["trial"]))
        if importlib.util.find_spec("plotly") is not None:
            for name, draw in FIGURES.items():
                with written_whole(self.run.path / name) as temporary:
                    getattr(self, draw)().write_html(temporary, include_plotlyjs=True)


def _fits(row: Any, steps: tuple[str, ...] = ("trial", "rung", "steps")) -> bool:
    """Whether a row holds what the table needs."""
    if not isinstance(row, dict) or not all(is_step(row.get(name)) for name in steps):
        return False
    settings = all(row.get(name) is not None and is_number(row[name]) for name in ("lambda1", "learning_rate"))
    losses = row.get("losses", [])
    if not isinstance(losses, list) or any(loss is None or not is_number(loss) for loss in losses):
        return False
    return settings and all(is_number(row.get(name)) for name in ("perplexity", "stderr", "seconds"))


def check_plan(plan: SweepPlan, job: LearnJob) -> None:
    """Raise ProxSparseError where a sweep cannot be done: there are more halvings than steps to halve, several processes for one GPU,
    or no Optuna."""
    check_launch(plan.launch, job.device)
    least = 2 ** (plan.rungs - 1)
    if job.learn.steps < least:
        raise ProxSparseError(
            f"steps is {job.learn.steps} and rungs {plan.rungs}, each of which takes half the steps of the next: give {least} "
            "steps or more, or fewer rungs."
        )
    require_optuna()


def require_optuna() -> None:
    """Raise ProxSparseError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ProxSparseError("A sweep needs Optuna: pip install 'proxsparse[sweep]'.")
