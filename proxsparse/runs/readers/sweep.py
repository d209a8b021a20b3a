"""The reader's side of a sweep, which looks for the best λ1 and learning rate by successive halving (Jamieson & Talwalkar
2016, arXiv 1502.07943): all settings get few steps, the better half of them twice as many, and so on up to the full number.

Every trial is a whole run of its length, with warm-up and decay, from the original weights. Settings are judged on
windows of the calibration text that no trial learns from; the held-out text is never looked at.

trials.jsonl  one line a trial (append-only); table.csv, figure.html, preset.json: written at the end
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from proxsparse.config import LearnJob, SweepPlan
from proxsparse.errors import ProxSparseError
from proxsparse.files import Tail, written_whole
from proxsparse.runs.presets import PRESET_FILE, write_preset
from proxsparse.runs.run import Run


class Sweep:
    """The reader's side: trials so far, the figure, the best setting."""

    def __init__(self, run: Run | str | Path):
        self.run = run if isinstance(run, Run) else Run(run)
        header = self.run.header()
        if header["kind"] != "sweep":
            raise ProxSparseError(f"Run {self.run.id} is no sweep (it is of the kind {header['kind']!r}).")
        self.plan, self.base = SweepPlan(**header["plan"]), LearnJob.from_dict(header["sweep"])

    def table(self) -> pd.DataFrame:
        """One row a trial: rung, steps, lambda1, learning_rate, perplexity, stderr, seconds. A trial whose loss was not
        finite has the perplexity inf."""
        columns = ["rung", "steps", "lambda1", "learning_rate", "perplexity", "stderr", "seconds"]
        table = pd.DataFrame(Tail(self.run.path / "trials.jsonl").read(), columns=columns)
        table["perplexity"] = table["perplexity"].astype(float).fillna(float("inf"))
        return table

    def settings(self, rung: int) -> list[tuple[float, float]]:
        """(λ1, learning rate) of the trials of a rung: the grid, or the better half of the rung below."""
        if rung == 0:
            return list(itertools.product(self.plan.lambdas, self.plan.learning_rates))
        below = self.table()
        below = below[below["rung"] == rung - 1].sort_values("perplexity", kind="stable")
        better = below.head(-(-len(below) // 2))
        better = better[better["perplexity"] < float("inf")]
        return list(zip(better["lambda1"], better["learning_rate"], strict=True))

    def steps(self, rung: int) -> int:
        return self.base.learn.steps >> (self.plan.rungs - 1 - rung)

    def total(self) -> int:
        """How many trials there are in all, if none diverges."""
        counts = [len(self.plan.lambdas) * len(self.plan.learning_rates)]
        for _ in range(self.plan.rungs - 1):
            counts.append(-(-counts[-1] // 2))
        return sum(counts)

    def best(self) -> pd.Series | None:
        """The best trial of the last rung that has one with a finite loss; None before."""
        trials = self.table()
        trials = trials[trials["perplexity"] < float("inf")]
        if trials.empty:
            return None
        last = trials[trials["rung"] == trials["rung"].max()]
        return last.loc[last["perplexity"].idxmin()]

    def figure(self):
        from proxsparse import figures

        return figures.sweep(self.table())

    def markdown(self) -> str:
        """The trials of every rung, best first."""
        trials = self.table().sort_values(["rung", "perplexity"], ascending=[False, True])
        rows = []
        for trial in trials.itertuples():
            stderr = "" if pd.isna(trial.stderr) else f" ± {trial.stderr:.2f}"
            perplexity, setting = f"{trial.perplexity:.2f}{stderr}", (f"{trial.lambda1:g}", f"{trial.learning_rate:g}")
            rows.append([trial.steps, *setting, perplexity, f"{trial.seconds:.0f}"])
        columns = ["steps", "λ1", "learning rate", "perplexity", "seconds"]
        table = tabulate(rows, headers=columns, tablefmt="github", disable_numparse=True)
        about = (
            f"{Path(self.base.model).name} on {Path(self.base.corpus).name}; perplexity on {self.plan.windows} calibration windows "
            f"of {self.base.length} tokens that nothing was learned from, ± standard error over windows."
        )
        best = self.best()
        found = "" if best is None else f"\nBest: λ1 {best['lambda1']:g}, learning rate {best['learning_rate']:g}.\n"
        return f"{about}\n\n{table}\n{found}"

    def next_command(self) -> str:
        """What one does with it."""
        return f"proxsparse learn --preset {self.run.path / PRESET_FILE}"

    def files(self) -> list[str]:
        """What `write_files` has written."""
        return [name for name in ("table.csv", "figure.html", PRESET_FILE) if (self.run.path / name).exists()]

    def write_files(self) -> None:
        """The table, the figure where plotly is installed, and the best setting as a preset."""
        with written_whole(self.run.path / "table.csv") as temporary:
            self.table().to_csv(temporary, index=False)
        best = self.best()
        learn = dataclasses.replace(
            self.base.learn, lambda1=float(best["lambda1"]), learning_rate=float(best["learning_rate"])
        )
        write_preset(self.run.path / PRESET_FILE, dataclasses.replace(self.base, learn=learn))
        if importlib.util.find_spec("plotly") is not None:
            with written_whole(self.run.path / "figure.html") as temporary:
                self.figure().write_html(temporary, include_plotlyjs=True)


def check_plan(plan: SweepPlan, job: LearnJob) -> None:
    """Raise ProxSparseError where there are more halvings than steps to halve."""
    least = 2 ** (plan.rungs - 1)
    if job.learn.steps < least:
        raise ProxSparseError(
            f"steps is {job.learn.steps} and rungs {plan.rungs}, each of which takes half the steps of the next: give {least} "
            "steps or more, or fewer rungs."
        )
