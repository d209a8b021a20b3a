"""Exporting a run: its masks, or those of a method it compares, on its model; written to disk and proven."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from proxsparse.config import METHODS, CompareJob, LearnJob, absolute, check_format, judged_by, text_name
from proxsparse.errors import ProxSparseError
from proxsparse.files import write_json
from proxsparse.progress import Progress, no_progress
from proxsparse.runs.commands import in_words, require
from proxsparse.runs.directory import ACTIVE
from proxsparse.runs.lock import held
from proxsparse.runs.places import check_places, check_weights
from proxsparse.runs.readers.comparison import OURS, Comparison
from proxsparse.runs.readers.judged import judged_table, with_stderr
from proxsparse.runs.run import Run

if TYPE_CHECKING:  # it imports torch, which those who only start an export do not need
    from proxsparse.runs.recorder import Recorder

WITHOUT_TEXT = tuple(name for name, method in METHODS.items() if not method.reads)
START_TIMEOUT = 10.0  # seconds that a second request waits for the first one to have started its export


def start_export(run: Run, format: str = "dense", method: str | None = None) -> Run:
    """Export `run` in a worker process of its own, into `export/` of the run; an earlier export is replaced.

    An export in the same format that is being written is returned as it is. Asking twice at once starts one. format: see
    `export_model`. method: of a comparison, which goes into `exports/<method>/`. Raises ProxSparseError for another format, for a
    run without masks, for a method without a mask on the original weights, and while an export in the other format is being
    written.
    """
    check_format(format)
    require(run, "export")
    if run.kind == "compare":
        require_method(run, method)
    else:
        require_masks(run)
        require_no_method(run, method)
    with in_words(run):
        try:
            with held(run.path / "export.lock", timeout=START_TIMEOUT):
                return _start_export(run, format, method)
        except BlockingIOError:
            raise ProxSparseError(
                f"An export of run {run.id} is just being started: wait a moment, then try again."
            ) from None


def _start_export(run: Run, format: str, method: str | None) -> Run:
    """The same, while nobody else starts one."""
    earlier, path = run.export(method), run.export_path(method)
    if earlier is not None and earlier.state()["status"] in ACTIVE:
        writing = earlier.header()["format"]
        if writing != format:
            raise ProxSparseError(
                f"The {writing} export of run {run.id} is being written: wait until it is done, then ask for {format}."
            )
        return earlier
    timed = None if earlier is None else earlier.bench()
    if timed is not None and timed.is_alive():
        raise ProxSparseError(f"The export of run {run.id} is being timed: wait until it is done, then export anew.")
    if path.exists():
        shutil.rmtree(path)
    what = {"step": max(run.masks())} if method is None else {"method": method}
    job = Run.create_kind("export", {"run": str(run.path.resolve()), "format": format} | what, path)
    job.start()
    return job


def export_run(job: Run, recorder: Recorder) -> int:
    """The work of an export's own process."""
    header = job.header()
    recorder.update(status="running", doing="loading the model", step=header.get("step", 0))

    def tell(done: int, total: int, what: str) -> None:
        recorder.update(doing=f"{what} {done + 1}/{total}" if total > 1 else what)

    run, to = Run(header["run"]), job.path / "model"
    if "method" in header:
        report = export_method(run, header["method"], to, tell, header["format"])
    else:
        report = export_masks(run, header["step"], to, tell, header["format"])
    write_json(job.path / "report.json", report)
    recorder.update(status="done", doing="done")
    return 0


def export_masks(
    run: Run,
    step: int,
    directory: Path,
    progress: Progress = no_progress,
    format: str = "dense",
    model: str | None = None,
    stream: bool = False,
) -> dict:
    """Write the model of `run` under its masks of `step`; see `export_model`. model: where it lies now, if it was moved. stream: see
    `load_model`."""
    provenance = learned_provenance(run, step)
    return _export(run, run.job(), run.masks()[step], provenance, directory, progress, format, model, stream)


def learned_provenance(run: Run, step: int) -> dict:
    """What an export of the masks of a step says of how they were made, and of how good they are."""
    job, measured = run.job(), run.table("perplexity")
    if not measured.empty:
        scope = "final" if (measured["scope"] == "final").any() else "live"
        measured = measured[
            (measured["scope"] == scope) & ((measured["mask"] != "learned") | (measured["step"] == step))
        ]
    own = text_name(job.corpus)
    elsewhere = judged_table(record for record in run.table("judged").to_dict("records") if record["step"] == step)
    rows = [entry | {"judged_on": f"{judged_by(job.corpus)}, held-out part"} for entry in measured.to_dict("records")]
    rows += [_judged(row) for row in elsewhere.to_dict("records")]
    perplexity = [entry | {"made_on": own if entry["mask"] == "learned" else None} for entry in rows]
    about = {"method": "ProxSparse", "mask": "learned", "step": step, "perplexity": perplexity}
    return _provenance(run, job, about)


def export_method(
    run: Run, method: str | None, directory: Path, progress: Progress = no_progress, format: str = "dense",
    model: str | None = None, stream: bool = False,
) -> dict:  # fmt: skip
    """Write the model of a comparison under the mask of one of its methods; see `export_model`. model, stream: as above.

    Raises ProxSparseError for a method that has no result, or updates weights: those of an export are the original ones.
    """
    require_method(run, method)
    comparison = Comparison(run)
    job = comparison.job
    learned = method in OURS or method in job.run_names()
    perplexity = _measured_in(comparison, method)
    about = {"method": "ProxSparse" if learned else method, "mask": method, "perplexity": perplexity}
    return _export(
        run,
        job,
        comparison.masks_file(method),
        _provenance(run, job, about),
        directory,
        progress,
        format,
        model,
        stream,
    )


def _measured_in(comparison: Comparison, method: str) -> list[dict]:
    """The perplexities of the model as it came and under the mask of `method`, on every text of the comparison."""
    job, results, own = comparison.job, comparison.results(), text_name(comparison.job.corpus)
    made_on = None if method in WITHOUT_TEXT else own
    if method in job.run_names():
        made_on = (results[method].get("corpus") or {}).get("name", "not known")
    if method in job.mask_names():
        made_on = "not known"
    texts = {
        f"{judged_by(job.corpus)}, held-out part": {name: results[name]["losses"] for name in ("dense", method)}
    } | comparison.judged()
    found = []
    for text, losses in texts.items():
        for name, label in (("dense", comparison.base), (method, method)):
            if name in losses:
                value, stderr = with_stderr(losses[name])
                found.append(
                    {
                        "mask": label, "made_on": made_on if name == method else None, "judged_on": text, "perplexity": value,
                        "stderr": stderr, "windows": len(losses[name]), "context": job.context,
                    }
                )  # fmt: skip
    return found


def _judged(row: dict) -> dict:
    """A row of `judged_table` as provenance has it."""
    return {name: value for name, value in row.items() if name != "text"} | {"judged_on": row["text"]}


def _provenance(run: Run, job: LearnJob | CompareJob, about: dict) -> dict:
    sha256 = (run.corpus() or {}).get("sha256")
    return {"run": run.id, "job": job.to_dict(), "corpus": job.corpus, "corpus_sha256": sha256} | about


def _export(
    run: Run, job: LearnJob | CompareJob, masks: Path, provenance: dict, directory: Path, progress: Progress, format: str,
    model: str | None, stream: bool,
) -> dict:  # fmt: skip
    from proxsparse.export.write import export_model
    from proxsparse.masks.mask_set import MaskSet
    from proxsparse.models.load import load_model

    if model is None:
        check_places(run, ("model",))
    else:
        job = dataclasses.replace(job, model=absolute(model))
    lm = load_model(job.model, "cpu", stream=stream)
    check_weights(run, lm.model)
    provenance = provenance | {"job": job.to_dict()}
    return export_model(lm, MaskSet.load(masks), directory, provenance, progress, format)


def require_method(run: Run, method: str | None) -> None:
    """Raise ProxSparseError for a method of a comparison that has no result, or updates weights."""
    results = Comparison(run).results()
    exportable = [name for name in results if name != "dense" and not results[name]["weights_changed"]]
    if method not in exportable:
        given = "none was given" if method is None else f"{method!r} has no mask on the original weights here"
        raise ProxSparseError(
            f"Run {run.id} compares methods, and {given}: give --method and one of {', '.join(exportable)}."
            if exportable
            else f"Run {run.id} has no mask on the original weights yet: go on with it, or compare a method that gives one."
        )


def require_no_method(run: Run, method: str | None) -> None:
    if method is not None:
        raise ProxSparseError(f"Run {run.id} is no comparison and has one method: leave --method out.")


def require_masks(run: Run) -> None:
    run.job()  # a comparison or a sweep never has any
    if not run.masks():
        raise ProxSparseError(f"Run {run.id} has no masks yet: wait for its first measurement, or pause it.")
