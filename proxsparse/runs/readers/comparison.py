"""The reader's side of a comparison: its tables, from what the worker has kept so far.

results/<name>/result.json  losses of every held-out window, seconds, memory, completions; masks.safetensors beside it
results/<name>/judged.json  the same losses on each further text, and that text's sha256
results/<name>/tasks.json   zero-shot accuracies, {task: {metric: {"accuracy", "stderr"}}}
layers_compared.json        overlap of every pair of masks and output error, layer by layer
table.csv, .parquet, .md    what `table` gives; layers.csv: what `layers` gives; figures/*.html
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from proxsparse.config import LEARNED, CompareJob, absolute, text_name
from proxsparse.errors import ProxSparseError
from proxsparse.evaluation.zero_shot import Scores
from proxsparse.files import local_path, read_json, written_whole
from proxsparse.runs.readers.judged import ratio, with_stderr
from proxsparse.runs.readers.zero_shot import TASKS_FILE, about_accuracies, accuracy_columns, scores_in
from proxsparse.runs.run import Run

JUDGED_FILE = "judged.json"
ON = "perplexity on "  # begins the names of the columns of further texts
OURS = ("proxsparse", "proxsparse-paper")


class Comparison:
    """A run of the kind "compare" as pandas tables."""

    def __init__(self, run: Run | str | Path):
        self.run = run if isinstance(run, Run) else Run(run)
        header = self.run.header()
        if header["kind"] != "compare":
            raise ProxSparseError(f"Run {self.run.id} compares nothing (it is of the kind {header['kind']!r}).")
        self.job = CompareJob(**header["compare"])

    def results(self) -> dict[str, dict]:
        """What is known of each method, in the order in which they were asked for: dense, methods, runs, checkpoints."""
        return {name: result for name, result in self._found().items() if "error" not in result}

    def failures(self) -> dict[str, str]:
        """{method that gave no result: why}."""
        return {name: result["error"] for name, result in self._found().items() if "error" in result}

    def other_texts(self) -> dict[str, str]:
        """{run that learned on another text than this comparison's: that text's name}."""
        own = (self.run.corpus() or {}).get("sha256")
        texts = {name: result.get("corpus") for name, result in self.results().items()}
        return {name: text["name"] for name, text in texts.items() if text and text["sha256"] != own}

    def _found(self) -> dict[str, dict]:
        names = ("dense", *self.job.methods, *self.job.run_names(), *self.job.mask_names())
        found = {name: read_json(self.run.path / "results" / name / "result.json") for name in names}
        return {name: result for name, result in found.items() if result is not None}

    def judged(self) -> dict[str, dict[str, list[float]]]:
        """{further text: {method: losses of its windows}}, in the order in which the texts were asked for."""
        found: dict[str, dict[str, list[float]]] = {text_name(text): {} for text in self.job.judged_on}
        judged: dict[
            str, str
        ] = {}  # a file may have changed under its name: what counts is the newest text of the first method
        for name in self.results():
            entries = read_json(self.run.path / "results" / name / JUDGED_FILE, default=[])
            newest = {entry["text"]: entry for entry in entries if entry["text"] in found and "losses" in entry}
            for text, entry in newest.items():
                if judged.setdefault(text, entry["sha256"]) == entry["sha256"]:
                    found[text][name] = entry["losses"]
        return {text: losses for text, losses in found.items() if losses}

    def accuracies(self) -> dict[str, Scores]:
        """{method: {task: {metric: {"accuracy", "stderr"}}}} of the methods that were asked the tasks."""
        read = {name: read_json(self.run.path / "results" / name / TASKS_FILE) for name in self.results()}
        return {name: scores_in(record) for name, record in read.items() if record}

    @property
    def ours(self) -> str | None:
        """What the others are compared with: the first run, else ProxSparse, else nothing."""
        names = [*self.job.run_names(), *(name for name in OURS if name in self.job.methods)]
        return next((name for name in names if name in self.results()), None)

    @property
    def base(self) -> str:
        """What the model is as it came, and what it is called in the tables: dense, or sparse with its pattern."""
        return (self._found().get("dense") or {}).get("sparsity", "dense")

    def _label(self, name: str) -> str:
        return self.base if name == "dense" else name

    def table(self) -> pd.DataFrame:
        """One row a method, best first; perplexities with their standard error over windows.

        ratio: perplexity over ours; its standard error comes from the paired differences of the windows' losses, so that
        what makes a window hard for both does not count. `perplexity on TEXT` and the three that belong to it: the same on each
        further text. overlap: share of the kept weights that ours keeps as well.
        output_error: mean over layers of ‖WX − ŴX‖/‖WX‖. seconds, memory_GB: to make the mask; of a run, the seconds of its
        steps, and the most memory that it took. `acc on TASK`, `acc_norm on TASK`, `mean acc`, `mean acc_norm`: see
        `proxsparse.runs.readers.zero_shot`.
        """
        results, ours, accuracies = self.results(), self.ours, self.accuracies()
        layers, judged = self.layers(), self.judged()
        columns = ["output_error"] if ours is None else ["overlap", "output_error"]
        means = layers.groupby("method")[columns].mean() if len(layers) else pd.DataFrame()
        rows = []
        for name, result in results.items():
            row: dict[str, Any] = {"method": self._label(name)}
            row["perplexity"], row["stderr"] = with_stderr(result["losses"])
            if ours is not None:
                row["ratio"], row["ratio_stderr"] = ratio(result["losses"], results[ours]["losses"])
            for text, losses in judged.items():
                if name in losses:
                    row[f"{ON}{text}"], row[f"stderr on {text}"] = with_stderr(losses[name])
                if name in losses and ours in losses:
                    found = ratio(losses[name], losses[ours])
                    row[f"ratio on {text}"], row[f"ratio_stderr on {text}"] = found
            row["weights_changed"] = result["weights_changed"]
            row["seconds"] = result["seconds"]
            row["memory_GB"] = result["peak_bytes"] / 1e9 if result["peak_bytes"] else None
            for column in means:
                row[column] = means[column].get(name)
            row |= accuracy_columns(accuracies.get(name, {}))
            rows.append(row)
        table = pd.DataFrame(rows)
        return table.sort_values("perplexity", ignore_index=True) if len(table) else table

    def layers(self) -> pd.DataFrame:
        """One row a method and layer: method, name, block, projection, output_error, overlap with ours."""
        compared = read_json(self.run.path / "layers_compared.json")
        if compared is None:
            return pd.DataFrame(columns=["method", "name", "block", "projection", "output_error", "overlap"])
        described, ours = self.run.layers()[["name", "block", "projection"]], self.ours
        parts = []
        for method, errors in compared["output_error"].items():
            overlap = None
            if ours is not None:
                overlap = [1.0] * len(errors) if method == ours else _overlap(compared, method, ours)
            parts.append(described.assign(method=method, output_error=errors, overlap=overlap))
        columns = ["method", "name", "block", "projection", "output_error", "overlap"]
        return pd.concat(parts, ignore_index=True)[columns].astype({"output_error": float, "overlap": float})

    def overlaps(self) -> pd.DataFrame:
        """Method by method: share of the kept weights that two masks have in common, over all layers."""
        compared = read_json(self.run.path / "layers_compared.json")
        if compared is None:
            return pd.DataFrame()
        names, shapes = list(compared["output_error"]), self.run.layers()
        sizes = (shapes["rows"] * shapes["columns"]).to_numpy()
        table = pd.DataFrame(1.0, index=names, columns=names)
        for first in names:
            for second in names:
                if first != second:
                    table.loc[first, second] = np.average(_overlap(compared, first, second), weights=sizes)
        return table

    def completions(self) -> pd.DataFrame:
        """Prompt by method: how each sparse model goes on."""
        prompts = self.job.prompts if self.job.new_tokens else ()
        return pd.DataFrame(
            {self._label(name): result["completions"] for name, result in self.results().items()}, index=list(prompts)
        )

    def next_command(self) -> str:
        """What one does with it."""
        return f"proxsparse export {self.run.path} --method NAME --to DIR"

    def files(self) -> list[str]:
        """What `write_files` has written."""
        names = ("table.csv", "table.md", "table.parquet", "layers.csv", "figures")
        return [name for name in names if (self.run.path / name).exists()]

    def write_files(self) -> None:
        """The tables as files, and the figures where plotly is installed."""
        table, folder = self.table(), self.run.path
        with written_whole(folder / "table.csv") as temporary:
            table.to_csv(temporary, index=False)
        with written_whole(folder / "layers.csv") as temporary:
            self.layers().to_csv(temporary, index=False)
        with written_whole(folder / "table.md") as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8")
        if importlib.util.find_spec("pyarrow") is not None:
            with written_whole(folder / "table.parquet") as temporary:
                table.to_parquet(temporary, index=False)
        if importlib.util.find_spec("plotly") is not None:
            (folder / "figures").mkdir(exist_ok=True)
            for name, figure in self.figures().items():
                with written_whole(folder / "figures" / f"{name}.html") as temporary:
                    figure.write_html(temporary, include_plotlyjs="directory")

    def figures(self) -> dict:
        """{name: plotly figure} of what is known so far."""
        from proxsparse import figures

        layers, found = self.layers(), {"perplexity": figures.perplexities(self.table())}
        if len(layers):
            found["overlap"] = figures.overlap_matrix(self.overlaps(), self.job.n / self.job.m)
            found["output_error"] = figures.output_errors(layers)
        if len(layers) and self.ours is not None and layers["method"].nunique() > 1:
            found["overlap_by_layer"] = figures.overlap_by_layer(layers, self.ours)
        return found

    def markdown(self) -> str:
        """The table and the completions for people."""
        job = self.job
        windows = len(next(iter(self.results().values()))["losses"]) if self.results() else 0
        about = (
            f"{Path(job.model).name}, {job.n}:{job.m}; perplexity on {windows} held-out windows of {job.context} tokens of "
            f"{Path(job.corpus).name}, ± standard error over windows."
        )
        for text, losses in self.judged().items():
            count = len(next(iter(losses.values())))
            about += f" On {text}: the same on {count} windows of that text."
        about += (
            " Seconds and memory: to make the mask. Output error: mean over layers of ‖WX − ŴX‖/‖WX‖ on held-out text."
        )
        if self.ours:
            about += (
                f" Over ours: perplexity over that of {self.ours}, ± standard error of the paired differences. Kept as ours: "
                f"share of the kept weights that {self.ours} keeps too."
            )
        if tasks := {task for scores in self.accuracies().values() for task in scores}:
            about += f" {about_accuracies(tasks)}"
        learned = [name for name in job.methods if name in LEARNED]
        if learned:
            about += f" {', '.join(learned)}: {job.steps} steps of {job.batch} × {job.length} tokens."
        if set(job.methods) - set(learned):
            about += f" Calibrated on {job.calibration} windows of {job.length} tokens."
        shown = readable(self.table())
        parts = [about, tabulate(shown, headers="keys", tablefmt="github", showindex=False, disable_numparse=True)]
        parts += [
            f"{name}: the zeros of the checkpoint {path}, proven to be {job.n}:{job.m} in all {len(self.run.layers())} layers."
            for name, path in job.mask_names().items() if name in self.results()
        ]  # fmt: skip
        parts += [f"{name} learned on another text: {text}." for name, text in self.other_texts().items()]
        parts += [f"{name} gave no result. {why}" for name, why in self.failures().items()]
        completions = self.completions()
        for prompt in completions.index:
            parts.append(f"**{prompt} …**")
            parts.append(
                "\n".join(f"- {name}: {' '.join(text.split())}" for name, text in completions.loc[prompt].items())
            )
        return "\n\n".join(parts) + "\n"


def check_runs(job: CompareJob, paths: Iterable[str]) -> None:
    """Raise ProxSparseError unless every run at `paths` has masks, of the comparison's model and pattern."""
    for path in paths:
        run = Run(path)
        learned = run.job().learn
        if not run.masks():
            raise ProxSparseError(f"Run {run.id} has no masks yet: wait for its first measurement, or leave it out.")
        if absolute(run.job().model) != absolute(job.model):
            raise ProxSparseError(
                f"Run {run.id} learned on the model {run.job().model} and this comparison is of {job.model}: give --model "
                f"{run.job().model}, or leave the run out."
            )
        if (learned.n, learned.m) != (job.n, job.m):
            raise ProxSparseError(
                f"The masks of run {run.id} are {learned.pattern} and this comparison is {job.n}:{job.m}: give its --n and "
                "--m, or leave the run out."
            )


def check_masks(paths: Iterable[str]) -> None:
    """Raise ProxSparseError unless every path is a directory with a model in it; its weights are looked at later."""
    for path in paths:
        directory = local_path(path)
        if not directory.is_dir():
            raise ProxSparseError(f"There is no directory {path!r}: give --masks that of a sparse model.")
        if (directory / "run.json").is_file():
            raise ProxSparseError(f"{path} is a run: give it with --run, or export it and give that directory.")
        if not (directory / "config.json").is_file():
            raise ProxSparseError(f"The directory {path!r} has no config.json: give --masks that of a sparse model.")


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


def _overlap(compared: dict, first: str, second: str) -> list[float]:
    pairs = compared["overlap"]
    return pairs[f"{first} | {second}"] if f"{first} | {second}" in pairs else pairs[f"{second} | {first}"]


def _pairs_of(table: pd.DataFrame, values: str, errors: str) -> list[str]:
    """Two columns as one of texts: empty where nothing was measured."""
    return [
        "" if math.isnan(value) else _with_error(value, error)
        for value, error in zip(table[values], table[errors], strict=True)
    ]


def _with_error(value: float, error: float) -> str:
    digits = ".2f" if value < 10 else ".1f" if value < 1e5 else ".1e"
    return f"{value:{digits}}" if math.isnan(error) or error == 0 else f"{value:{digits}} ± {error:{digits}}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}"
