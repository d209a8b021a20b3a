"""What ended a run, in one sentence with the way out."""

from __future__ import annotations

import os
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import free_bytes, is_full_disk
from proxsparse.runs.run import Run


def explain(error: Exception, run: Run) -> str:
    """One sentence about what ended a run, with the way out."""
    import torch

    from proxsparse.runs.ranks.launched import another_was_lost

    if isinstance(error, ProxSparseError):
        return str(error)
    if another_was_lost(error):
        return "Another process of this run was lost: see what it said; resume goes on from the last checkpoint."
    out_of_memory = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(
        error
    )
    if out_of_memory and "job" in run.header():
        job = run.job()
        lean = job.learn.memory == "lean"
        recompute = "" if job.learn.recompute or lean else "recompute, or with "
        more = "" if lean else " and more accumulation"  # which lean has none of
        return (
            f"Memory ran out with {job.learn.batch} windows of {job.length} tokens in a pass: fork the run with {recompute}a smaller "
            f"batch{more}, or choose shorter windows or a smaller model."
        )
    if is_full_disk(error):
        return (
            f"The disk is full ({free_bytes(run.path) / 1e6:.0f} MB left at {run.path}): free some space and resume; the last "
            "checkpoint is kept."
        )
    if isinstance(error, OSError) and error.filename is not None:
        name = Path(os.fsdecode(error.filename)).name
        return f"{name} of run {run.id} cannot be read or written ({error.strerror}): see to its folder, then resume."
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}; see worker.log."
