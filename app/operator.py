"""What the operator allows: where runs lie, and which files of this machine a browser may name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from app.limits import Limits
from app.uploads import Uploads
from app.views.run import RunSnapshot, snapshot_of
from app.visitors import Rights
from proxsparse import LearnJob, ProxSparseError
from proxsparse.bundled import ROOT
from proxsparse.config import CORPORA, JUDGED_ONLY
from proxsparse.files import local_path
from proxsparse.runs import Run, find_run, new_run_path
from proxsparse.runs.disk import require_room

EXAMPLE = ROOT / "assets" / "example-run"
EXAMPLE_ID = "example"
HAS_EXAMPLE = (EXAMPLE / "run.json").is_file()
EXAMPLE_COMPARISON = ROOT / "assets" / "example-comparison"
EXAMPLE_COMPARISON_ID = "example-comparison"
RECORDED = {
    id: path
    for id, path in ((EXAMPLE_ID, EXAMPLE), (EXAMPLE_COMPARISON_ID, EXAMPLE_COMPARISON))
    if (path / "run.json").is_file()
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Operator:
    """runs: the folder of the runs. allowed: folders whose models and texts may be named in the browser. rights: what visitors may
    do. limits: how much they may ask for."""

    runs: Path
    allowed: tuple[Path, ...] = field(default=())
    rights: Rights = field(default_factory=Rights)
    limits: Limits = field(default_factory=Limits)

    @property
    def uploads(self) -> Uploads:
        return Uploads(self.runs, self.limits)

    def find(self, id: str) -> Run:
        """A run by the id in the address: one of this folder's, or the recorded example."""
        run = self.find_any(id)
        run.job()  # says so when it is not a run that learned
        return run

    def find_any(self, id: str | None) -> Run:
        """The same, comparisons and sweeps included. Raises ProxSparseError where none is named."""
        if not id:
            raise ProxSparseError("No run is chosen: choose one in the list.")
        return Run(RECORDED[id]) if isinstance(id, str) and id in RECORDED else find_run(self.runs, id)

    def find_to_change(self, id: str | None) -> Run:
        """A run of any kind, for who may change it. Raises ProxSparseError for others."""
        run = self.find_any(id)
        self.rights.require_changing(run)
        return run

    def snapshot(self, id: str | None) -> RunSnapshot | None:
        """The run as it is now; None where none is named, or it was deleted meanwhile."""
        try:
            return snapshot_of(self.find(id)) if id else None
        except (ProxSparseError, FileNotFoundError):
            return None

    def check_model(self, name: str) -> str:
        """`embedded`, a Hub id, or a path inside an allowed folder; anything else is refused before it is looked at."""
        name = (name or "").strip()
        if name == "embedded":
            return name
        if self._is_path(name) or Path(name).exists():
            return self._inside(name, "model", self.allowed)
        if not _HUB_ID.fullmatch(name):
            raise ProxSparseError(
                f"There is no model {name[:80]!r}: give embedded, a Hub id such as org/model, or an allowed path."
            )
        return name

    def check_corpus(self, name: str) -> str:
        """A named corpus, an uploaded text, or a path inside an allowed folder."""
        name = (name or "").strip()
        if name in (*CORPORA, *JUDGED_ONLY):
            return name
        uploaded = self.uploads.find(name)
        return str(uploaded) if uploaded else self._inside(name, "text", self.allowed)

    def check_texts(self, names: list[str] | None) -> tuple[str, ...]:
        """The same, of several."""
        return tuple(map(self.check_corpus, names or []))

    def check_masks(self, path: str) -> str:
        """A directory with a sparse checkpoint, in an allowed folder."""
        return self._inside(path, "sparse checkpoint", self.allowed)

    def keep_upload(self, path: str) -> str:
        """Keep an uploaded text for who acts; returns the name to choose it by."""
        self.rights.require_acting()
        return self.uploads.keep(path, self.rights.owner)

    def require_room(self, job: LearnJob) -> None:
        """Raise ProxSparseError where a new run would be larger, or the runs take more of the disk, than the operator allows."""
        self.limits.check(job)
        require_room(new_run_path(self.runs, job.model))

    def learn(self, job: LearnJob) -> str:
        """Begin a run of who acts, and return its id. Raises ProxSparseError where it would be larger than allowed."""
        self.require_room(job)
        run = Run.create(job, new_run_path(self.runs, job.model), self.rights.owner)
        run.start()
        return run.id

    @staticmethod
    def _is_path(name: str) -> bool:
        return (
            name.startswith((".", "/", "~", "\\")) or name.endswith((".gguf", ".txt", ".jsonl")) or name.count("/") > 1
        )

    def _inside(self, name: str, what: str, folders: tuple[Path, ...]) -> str:
        path = local_path(name).resolve()
        if not any(path.is_relative_to(folder) for folder in folders):
            raise ProxSparseError(
                f"The {what} {name[:120]!r} is not in a folder that may be read here: ask for `proxsparse app --allow FOLDER`"
                f"{', or upload the text' if what == 'text' else ''}."
            )
        return str(path)
