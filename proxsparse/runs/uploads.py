"""The texts that visitors of the page uploaded, as the folder of the runs holds them, and which of them no run needs."""

from __future__ import annotations

from pathlib import Path

from proxsparse.runs.run import look_at_runs

FOLDER = ".uploads"  # in the folder of the runs


def uploaded(runs: Path) -> list[Path]:
    """All uploaded texts."""
    return sorted(path for path in (runs / FOLDER).rglob("*") if path.is_file())


def unused(runs: Path) -> list[Path]:
    """Those that no run under `runs` was made or judged on; none at all where a run cannot be read, which may need any of them."""
    readable, unreadable = look_at_runs(runs)
    if unreadable:
        return []
    # By their names, which are unique: the folder may have been moved since.
    jobs = [run.asked() or {} for run in readable]
    needed = {Path(text).name for job in jobs for text in (job.get("corpus", ""), *(job.get("evaluate_on") or ()))}
    return [path for path in uploaded(runs) if path.name not in needed]
