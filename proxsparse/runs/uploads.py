"""The texts that visitors of the page uploaded, as the folder of the runs holds them, and which of them no run needs."""

from __future__ import annotations

from pathlib import Path

from proxsparse.runs.run import look_at_runs

FOLDER, RECEIVED = (
    ".uploads",
    ".received",
)  # in the folder of the runs: texts that are kept, and what is still being sent


def uploaded(runs: Path) -> list[Path]:
    """All uploaded texts."""
    return sorted(path for path in (runs / FOLDER).rglob("*") if path.is_file())


def unused(runs: Path) -> list[Path]:
    """Those that no run under `runs` was started with; none at all where a run cannot be read, which may need any of them."""
    readable, unreadable = look_at_runs(runs)
    if unreadable:
        return []
    # By their names, which are unique: the folder may have been moved since.
    needed = {Path((run.asked() or {}).get("corpus", "")).name for run in readable}
    return [path for path in uploaded(runs) if path.name not in needed]
