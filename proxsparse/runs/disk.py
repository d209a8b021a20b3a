"""How much of the disk runs may take, where an operator limits it: one run, and all runs of a folder.

The limits are in the environment of the workers for which they hold, as `proxsparse app` sets it for those that its visitors start.
A run that has reached one is not started, and one that works is stopped with a checkpoint, so that it passes the limit by one
checkpoint at most, or by the export that was being written.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import bytes_in, free_bytes

RUN_GB, RUNS_GB = "PROXSPARSE_RUN_GB", "PROXSPARSE_RUNS_GB"
GB = 1e9
DEEPEST = 3  # folders that a directory of a run may lie inside the run it belongs to: exports/<method>/bench


def limit_disk(run_gb: float, runs_gb: float) -> None:
    """Let the workers that this process starts take so much: a run, and all runs of their folder; 0: no limit."""
    os.environ[RUN_GB], os.environ[RUNS_GB] = str(run_gb), str(runs_gb)


def why_no_room(path: Path) -> str | None:
    """The limit that the run at `path`, or the folder of the runs in which it lies, has reached, as a sentence with the way out; None
    where none is. path: a run's directory, which need not be there yet, or that of its export or its questions."""
    one, every = _limits()
    run, folder = _places(path)
    if one < math.inf and (taken := bytes_in(run)) >= one:
        return (
            f"Run {run.name} takes {_gb(taken)} GB on disk and a run may take {_gb(one)} GB here: start one with a smaller "
            "history, or ask who runs this server for more (--max-run-gb)."
        )
    if every < math.inf and (taken := bytes_in(folder)) >= every:
        return (
            f"The runs take {_gb(taken)} GB on disk and may take {_gb(every)} GB here: delete one, or ask who runs this server for more "
            "(--max-runs-gb) or for `proxsparse runs --prune`."
        )
    return None


def require_room(path: Path) -> None:
    """Raise ProxSparseError where `why_no_room` gives a reason."""
    reason = why_no_room(path)
    if reason is not None:
        raise ProxSparseError(reason)


def room_left(path: Path) -> float:
    """Bytes that the run at `path` may still write: what is free, and what the limits leave."""
    (one, every), (run, folder) = _limits(), _places(path)
    left = [float(free_bytes(path))]
    left += [one - bytes_in(run)] if one < math.inf else []
    left += [every - bytes_in(folder)] if every < math.inf else []
    return max(0.0, min(left))


def _limits() -> tuple[float, float]:
    """Bytes that a run, and that all runs of a folder may take; inf: no limit."""
    one, every = (_read(name) for name in (RUN_GB, RUNS_GB))
    return one, every


def _read(name: str) -> float:
    text = os.environ.get(name, "0")
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < math.inf:
        raise ProxSparseError(f"${name} is {text[:40]!r}: give a number of gigabytes, or 0 for no limit.")
    return gigabytes * GB or math.inf


def _places(path: Path) -> tuple[Path, Path]:
    """(the run, the folder of the runs) of a run's directory, or of one that lies in it."""
    run = path.resolve()
    around = [each for each in run.parents[:DEEPEST] if (each / "run.json").is_file()]
    run = around[-1] if around else run
    return run, run.parent


def _gb(size: float) -> str:
    return f"{size / GB:.3g}"
