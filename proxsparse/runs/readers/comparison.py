"""The reader's side of a comparison: its tables, from what the worker has kept so far.

results/<name>/result.json  losses of every held-out window, seconds, memory, completions; masks.safetensors beside it
results/<name>/judged.json  the same losses on each further text, and that text's sha256
results/<name>/tasks.json   zero-shot accuracies, {task: {metric: {"accuracy", "stderr"}}}
layers_compared.json        overlap of every pair of masks and output error, layer by layer
table.csv, .parquet, .md    what `table` gives; layers.csv: what `layers` gives; figures/*.html
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from proxsparse.config import CompareJob, absolute, text_name
from proxsparse.errors import ProxSparseError
from proxsparse.evaluation.zero_shot import Scores
from proxsparse.files import MASKS_FILE, local_path, read_json, written_whole
from proxsparse.runs.readers.comparison_words import ON, in_markdown, in_terminal
from proxsparse.runs.readers.judged import ratio, with_stderr
from proxsparse.runs.readers.zero_shot import TASKS_FILE, accuracy_columns, scores_in
from proxsparse.runs.run import Run

JUDGED_FILE = "judged.json"
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

    def masks_file(self, name: str) -> Path:
        """Where the masks of a method, run or checkpoint lie once it is measured. Raises ProxSparseError for one that is not compared."""
        if name == "dense" or name not in self.names():
            raise ProxSparseError(
                f"Comparison {self.run.id} compares no {name[:80]!r}: choose among {', '.join(self.names()[1:])}."
            )
        return self.run.path / "results" / name / MASKS_FILE

    def progress(self) -> dict[str, str]:
        """{dense, method, run or checkpoint: measured, failed, working or waiting}, in the order in which they are measured."""
        ended = {name: "failed" if "error" in result else "measured" for name, result in self._found().items()}
        return stages(self.names(), ended, self.run.state()["status"], self.job.launch)

    def other_texts(self) -> dict[str, str]:
        """{run that learned on another text than this comparison's: that text's name}."""
        own = (self.run.corpus() or {}).get("sha256")
        texts = {name: result.get("corpus") for name, result in self.results().items()}
        return {name: text["name"] for name, text in texts.items() if text and text["sha256"] != own}

    def names(self) -> tuple[str, ...]:
        """All that are compared, in the order in which they are measured: dense, methods, runs, sparse checkpoints."""
        return ("dense", *self.job.methods, *self.job.run_names(), *self.job.mask_names())

    def _found(self) -> dict[str, dict]:
        found = {name: read_json(self.run.path / "results" / name / "result.json") for name in self.names()}
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
            if ours in compared["output_error"]:  # what was added to a comparison is laid beside the others at the end
                overlap = [1.0] * len(errors) if method == ours else _overlap(compared, method, ours)
            parts.append(described.assign(method=method, output_error=errors, overlap=overlap))
        columns = ["method", "name", "block", "projection", "output_error", "overlap"]
        return pd.concat(parts, ignore_index=True)[columns].astype({"output_error": float, "overlap": float})

    def differing(self, first: str, second: str) -> pd.Series:
        """Of every layer, by name, the share of the weights kept by the mask of `first` that the one of `second` drops. Empty while
        the two are not compared."""
        compared = read_json(self.run.path / "layers_compared.json", default={"output_error": {}})
        if not {first, second} <= compared["output_error"].keys():
            return pd.Series(dtype=float)
        names = self.run.layers()["name"]
        return pd.Series(
            [0.0] * len(names) if first == second else 1 - np.array(_overlap(compared, first, second)), index=names
        )

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

        layers, table = self.layers(), self.table()
        found = {
            "perplexity": figures.perplexities(table),
            "cost": figures.against_perplexity(table, "seconds", self.base),
        }
        if len(layers):
            found["overlap"] = figures.overlap_matrix(self.overlaps(), self.job.n / self.job.m)
            found["output_error"] = figures.output_errors(layers)
            found["error_and_perplexity"] = figures.against_perplexity(table, "output_error", self.base)
        if len(layers) and self.ours is not None and layers["method"].nunique() > 1:
            found["overlap_by_layer"] = figures.overlap_by_layer(layers, self.ours)
        return found

    def markdown(self) -> str:
        """The table and the completions for people."""
        return in_markdown(self)

    def in_terminal(self) -> str:
        """The perplexities alone, narrow enough for a terminal; `markdown` has the rest."""
        return in_terminal(self)


def stages(names: Iterable[str], ended: Mapping[str, str], status: str, launch: int = 1) -> dict[str, str]:
    """{name: measured, failed, working or waiting}: of what has not ended, a comparison at work is at the first, or the first few.

    ended: {name: measured or failed}; status, launch: of the comparison.
    """
    found, free = {}, launch if status in ("running", "paused") else 0
    for name in names:
        found[name] = ended.get(name) or ("working" if free else "waiting")
        free -= found[name] == "working"
    return found


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


def _overlap(compared: dict, first: str, second: str) -> list[float]:
    pairs = compared["overlap"]
    return pairs[f"{first} | {second}"] if f"{first} | {second}" in pairs else pairs[f"{second} | {first}"]
