"""What the Export screen shows of a run: its export, written or ahead, as plain values."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.operator import EXAMPLE_ID
from app.views.run import RunSnapshot
from proxsparse.files import read_json
from proxsparse.runs import Run
from proxsparse.runs.readers.exporting import card_ahead, sizes_ahead, speed_ahead


@dataclass(frozen=True)
class ExportView:
    """id: of the run shown. state, format, step: of the last export, None where there is none; report: what it says of itself once
    it is finished; timing: the state of its timing, timed: the result. sizes: {format: sizes}, speed: bound on what sparse kernels
    gain, both as far as the run tells. card: (metadata as YAML, text as Markdown) of the export, else of what it would be; proven:
    which of them it is. newest: step of the newest masks."""

    id: str
    state: dict | None
    format: str | None
    step: int | None
    report: dict | None
    timing: dict | None
    timed: dict | None
    sizes: dict[str, dict]
    speed: dict[str, float] | None
    card: tuple[str, str] | None
    proven: bool
    newest: int | None
    pattern: tuple[int, int]

    @property
    def is_example(self) -> bool:
        return self.id == EXAMPLE_ID

    @property
    def can_start(self) -> bool:
        """Whether the button may be pressed."""
        return not self.is_example and self.newest is not None and not _busy(self.state) and not _busy(self.timing)

    @property
    def can_time(self) -> bool:
        """Whether there is something to be timed, and a GPU to do it."""
        return self.report is not None and has_gpu() and not _busy(self.timing)


def key_of(view: RunSnapshot | None, format: str) -> tuple:
    """What the screen depends on: equal where it would look the same. Cheap."""
    if view is None:
        return (None,)
    export = view.run.export()
    bench = None if export is None else export.bench()
    states = [None if each is None else each.state() for each in (export, bench)]
    masks = max(view.run.masks(), default=None)
    return (view.run.id, view.created, *states, masks, len(view.perplexity), len(view.judged), len(view.layers), format)


def export_view(view: RunSnapshot, id: str, format: str) -> ExportView:
    """Everything, read from disk. format: the one that is chosen, of which the card is shown ahead."""
    run = view.run
    export, learn = run.export(), view.job.learn
    bench = None if export is None else export.bench()
    report = None if export is None else _report(export)
    written = None if report is None else _written_card(export.path / "model" / "README.md")
    return ExportView(
        id=id, state=None if export is None else export.state(), format=None if export is None else export.header()["format"],
        step=None if export is None else export.header()["step"], report=report,
        timing=None if bench is None else bench.state(), timed=None if bench is None else _report(bench),
        sizes=sizes_ahead(run), speed=speed_ahead(run), card=written or _parts(card_ahead(run, format)), proven=written is not None,
        newest=max(run.masks(), default=None), pattern=(learn.n, learn.m),
    )  # fmt: skip


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU that may be used; known without torch."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _busy(state: dict | None) -> bool:
    return state is not None and state["status"] in ("new", "starting", "running")


def _report(job: Run) -> dict[str, Any] | None:
    return read_json(job.path / "report.json")


def _written_card(path: Path) -> tuple[str, str] | None:
    if not path.is_file() or path.is_symlink():
        return None
    text = path.read_text(encoding="utf-8")
    _, metadata, rest = (
        text.split("---\n", 2) if text.startswith("---\n") and text.count("---\n") > 1 else ("", "", text)
    )
    return metadata.strip(), rest.strip()


def _parts(card) -> tuple[str, str] | None:
    return None if card is None else (card.data.to_yaml(), card.text.strip())
