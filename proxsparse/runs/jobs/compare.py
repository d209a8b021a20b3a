"""Comparing methods, runs and sparse checkpoints, in a process of its own: each in turn on one model, or several at a time on as many,
then what needs them all.

What a method has given is kept in `results/<name>/` as soon as it is whole, so that a comparison that was stopped, or
lost its worker, goes on with the next method.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from proxsparse.config import LEARNED, CompareJob, LearnConfig
from proxsparse.errors import DivergedError, ProxSparseError
from proxsparse.files import read_json, write_json, written_whole
from proxsparse.memory import begin_peak, peak_bytes
from proxsparse.runs.jobs.base import Job
from proxsparse.runs.jobs.side_by_side import Work, devices_of, one, processes
from proxsparse.runs.readers.comparison import JUDGED_FILE, Comparison, check_masks, check_runs
from proxsparse.runs.readers.zero_shot import TASKS_FILE
from proxsparse.runs.recorder import describe_device
from proxsparse.runs.run import Run

if TYPE_CHECKING:
    from proxsparse.methods import Pruned

ERROR_WINDOWS = 8  # held-out windows on which the layers' output errors are measured


class CompareJobWorker(Job):
    """Dense first, then every method and run: its masks, its losses on the held-out windows, its completions."""

    @cached_property
    def job(self) -> CompareJob:
        return CompareJob(**self.run.header()["compare"])

    def work(self) -> None:
        devices_of(self, self.job.launch)  # that there are so many
        waiting = [path for name, path in self.job.run_names().items() if not self.is_measured(name)]
        check_runs(self.job, waiting)  # before anything that takes time
        self.recorder.update(doing=f"loading {self.job.model}", step=0)
        self.load()
        self.recorder.update(status="running")
        for name, path in self.job.mask_names().items():  # now, not after hours
            self.try_to_take_in(name, path)
        if self.job.tasks:
            from proxsparse.evaluation.zero_shot import check_data

            self.recorder.update(doing="loading the tasks")
            check_data(self.job.tasks)
        each = ["judge"] if self.judged_on else []
        each += ["ask_tasks"] if self.job.tasks else []
        steps = len(self.entries) + 1 + len(each)
        self.recorder.update(status="running", step=self.measured(), steps=steps)
        with processes(self, self.job.launch) as do:
            do(self.measuring(name) for name in self.entries if not self.is_measured(name))
            self.recorder.update(step=len(self.entries))
            do(iter([one("compare_masks")]))
            Comparison(self.run).write_files()
            for index, take in enumerate(each, start=len(self.entries) + 1):
                self.recorder.update(step=index)
                do(one(take, name) for name in Comparison(self.run).results())
                Comparison(self.run).write_files()
        self.recorder.update(step=steps)

    def measuring(self, name: str) -> Work:
        yield "try_to_measure", name
        self.recorder.update(step=self.measured())

    def measured(self) -> int:
        """How many are measured, or gave no result."""
        return sum(map(self.is_measured, self.entries))

    def load(self) -> None:
        from proxsparse.layers import prunable_layers
        from proxsparse.models.load import load_model

        job = self.job
        self.lm = load_model(job.model, self.own_device or job.device)
        self.device = self.lm.model.device
        self.recorder.update(doing=f"reading {job.corpus}", device=describe_device(self.device))
        text = self.lm.windows(job.corpus, job.length, job.context, job.bos, self.progress, job.calibration)
        self.heldout = text.heldout_windows(job.windows)
        self.calibration = text.calibration
        self.judged_on = self.further_texts(self.lm, text, self.learned_on_elsewhere())
        self.layers = prunable_layers(self.lm.model, job.m)
        self.describe(self.layers, text, self.lm.model)
        self.entries: dict[str, Callable[[], Pruned | None]] = {"dense": lambda: None}
        self.entries |= {name: partial(self.prune, name) for name in job.methods}
        self.entries |= {name: partial(self.masks_of, path) for name, path in job.run_names().items()}
        self.entries |= {name: partial(self.kept, name) for name in job.mask_names()}

    def learned_on_elsewhere(self) -> set[str]:
        """sha256 of the corpora that the runs learned on."""
        measured = Comparison(self.run).results()
        corpora = [
            measured[name].get("corpus") if name in measured else Run(path).corpus()
            for name, path in self.job.run_names().items()
        ]
        return {corpus["sha256"] for corpus in corpora if corpus}

    def try_to_take_in(self, name: str, path: str) -> None:
        """What is no mask of the model ends a comparison at its beginning; one that was added to goes on without it."""
        try:
            self.take_in(name, path)
        except ProxSparseError as error:
            if not self.is_measured("dense"):
                raise
            self.keep_failure(name, error)

    def take_in(self, name: str, path: str) -> None:
        """Keep the masks of a sparse checkpoint, once they are proven; a comparison that goes on has them already."""
        from proxsparse.methods.checkpoint import from_checkpoint

        if Comparison(self.run).masks_file(name).is_file():
            return
        check_masks([path])
        self.label, job = name, self.job
        found = from_checkpoint(path, self.lm.model, job.n, job.m, layers=self.layers, progress=self.progress)
        self.keep(name, found)
        self.recorder.event("masks read", method=name, layers=len(found.masks), pattern=found.masks.pattern)

    # One method

    def try_to_measure(self, name: str) -> None:
        """What one method cannot do is kept as its result, and the others go on."""
        try:
            self.measure(name, self.entries[name])
        except ProxSparseError as error:
            if name == "dense":
                raise
            self.keep_failure(name, error)

    def keep_failure(self, name: str, error: ProxSparseError) -> None:
        write_json(self.directory(name) / "result.json", {"method": name, "error": str(error)})
        self.recorder.event("gave no result", method=name, error=str(error))

    def measure(self, name: str, make: Callable[[], Pruned | None]) -> None:
        from proxsparse.evaluation.perplexity import window_losses

        self.label = name
        directory = self.directory(name)
        directory.mkdir(parents=True, exist_ok=True)
        begin_peak(self.device)
        began = self.working_seconds
        pruned = make()
        result = {"method": name, "weights_changed": pruned is not None and pruned.weights is not None}
        result |= {"seconds": self.working_seconds - began, "peak_bytes": peak_bytes(self.device)}
        if name in self.job.run_names():
            source = Run(self.job.run_names()[name])
            steps = source.table("steps")
            result |= {
                "seconds": None if steps.empty else steps["seconds"].sum(),  # those of a fork's parent among them
                "peak_bytes": source.state().get("peak_bytes"),
                "job": source.header()["job"],
                "corpus": source.corpus(),
            }
        if name in self.job.mask_names():
            result |= {"seconds": None, "peak_bytes": None}  # another tool made them
        if name == "dense":
            result |= {"seconds": None, "peak_bytes": None, "sparsity": self.sparsity()}
        if pruned is not None and name not in self.job.mask_names():
            self.keep(name, pruned)
        with pruned.placed_in(self.layers) if pruned else nullcontext():
            result["losses"] = window_losses(self.lm.model, self.heldout, progress=self.progress).tolist()
            result["completions"] = self.complete()
        write_json(directory / "result.json", result | {"context": self.job.context, "time": time.time()})
        self.recorder.event("measured", method=name)

    def sparsity(self) -> str:
        """What the model is as it came: dense, or sparse with the pattern of its zeros."""
        from proxsparse.models.sparsity import sparsity_of

        return str(sparsity_of(layer.matrix for layer in self.layers.values()))

    def prune(self, name: str) -> Pruned:
        from proxsparse.methods import METHODS

        job, options = self.job, {}
        windows = self.calibration[: job.calibration]
        if name in LEARNED:
            windows = self.calibration
            options["budget"] = LearnConfig(steps=job.steps, batch=job.batch, seed=job.seed, n=job.n, m=job.m)
        elif name == "random":
            options["seed"] = job.seed
        return METHODS[name](
            self.lm.model, windows, job.n, job.m, layers=self.layers, progress=self.progress, **options
        )

    def masks_of(self, path: str) -> Pruned:
        """The newest masks of a run."""
        from proxsparse.masks.mask_set import MaskSet
        from proxsparse.methods import Pruned

        run = Run(path)
        files = run.masks()
        masks = MaskSet.load(files[max(files)])
        masks.check_fits(self.layers)
        if masks.keys() != self.layers.keys():
            raise ProxSparseError(
                f"Run {run.id} has masks of {len(masks)} layers and this comparison prunes {len(self.layers)}: leave the run "
                "out, or compare it on the model it learned on."
            )
        return Pruned(masks)

    def complete(self) -> list[str]:
        from proxsparse.evaluation.completions import complete

        if not self.job.new_tokens:
            return []
        self.progress(0, 1, "completing the prompts")
        return complete(self.lm, self.job.prompts, self.job.new_tokens)

    def keep(self, name: str, pruned: Pruned) -> None:
        """Masks, and weights where they were changed: what has to be known again when all methods are there."""
        from safetensors.torch import save_file

        if pruned.weights is not None:
            with written_whole(self.directory(name) / "weights.safetensors") as temporary:
                save_file({name: weight.cpu().contiguous() for name, weight in pruned.weights.items()}, temporary)
        with written_whole(Comparison(self.run).masks_file(name)) as temporary:
            pruned.masks.save(temporary)

    def kept(self, name: str) -> Pruned:
        from safetensors.torch import load_file

        from proxsparse.masks.mask_set import MaskSet
        from proxsparse.methods import Pruned

        weights = self.directory(name) / "weights.safetensors"
        return Pruned(
            MaskSet.load(Comparison(self.run).masks_file(name)), load_file(weights) if weights.is_file() else None
        )

    def placed(self, name: str) -> AbstractContextManager:
        """The model under the kept result of a method."""
        return nullcontext() if name == "dense" else self.kept(name).placed_in(self.layers)

    # When all are there

    def compare_masks(self) -> None:
        """What each pair of masks keeps in common, and how far each layer's output is off."""
        from proxsparse.evaluation.output_error import output_errors

        names = [name for name in Comparison(self.run).results() if name != "dense"]
        target = self.run.path / "layers_compared.json"
        known = read_json(target, default={"overlap": {}, "output_error": {}})
        new = [name for name in names if name not in known["output_error"]]
        if not new:
            return
        self.label = "all masks"
        pruned = {name: self.kept(name) for name in names}
        overlaps = {
            f"{first} | {second}": [
                pruned[first].masks[layer].overlap(pruned[second].masks[layer]) for layer in self.layers
            ]
            for index, first in enumerate(names) for second in names[index + 1 :] if first in new or second in new
        }  # fmt: skip
        windows = self.heldout[:ERROR_WINDOWS]
        added = {name: pruned[name] for name in new}
        errors = output_errors(self.lm.model, windows, self.layers, added, progress=self.progress)
        found = {"overlap": known["overlap"] | overlaps, "output_error": known["output_error"] | errors}
        write_json(target, found | {"windows": len(windows)})

    def judge(self, name: str) -> None:
        """The losses of a method on every window of the further texts."""
        from proxsparse.evaluation.perplexity import window_losses

        self.label, target = name, self.directory(name) / JUDGED_FILE
        found = read_json(target, default=[])
        for text in self.judged_on:
            if text.sha256 in {entry["sha256"] for entry in found}:
                continue
            entry = {"text": text.name, "sha256": text.sha256, "context": self.job.context}
            with self.placed(name):
                try:
                    entry["losses"] = window_losses(
                        self.lm.model, text.windows, progress=partial(self.judging_progress, text.name)
                    ).tolist()
                except DivergedError as error:  # under this mask, on this text: the others go on
                    entry["error"] = str(error)
                    self.recorder.event("gave no result", method=name, text=text.name, error=str(error))
            found.append(entry)
            write_json(target, found)

    def ask_tasks(self, name: str) -> None:
        from proxsparse.evaluation.zero_shot import accuracies

        self.label, target = name, self.directory(name) / TASKS_FILE
        if not target.is_file():
            with self.placed(name):
                write_json(target, accuracies(self.lm, self.job.tasks, progress=self.progress))

    def is_measured(self, name: str) -> bool:
        return (self.directory(name) / "result.json").is_file()

    def directory(self, name: str) -> Path:
        return self.run.path / "results" / name
