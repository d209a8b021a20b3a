"""Every rank but 0: it waits to be told of a call, and makes it on its own part of the learner."""

from __future__ import annotations

import os
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.layers import prunable_layers
from proxsparse.models.language_model import fingerprint
from proxsparse.progress import no_progress
from proxsparse.runs.jobs.base import windows_of
from proxsparse.runs.ranks.checking import check_together, stored_state
from proxsparse.runs.ranks.group import BEGIN, CHECK, COMPARE, END, MEET, READ, together, told
from proxsparse.runs.ranks.learner import load_to_share, make_learner
from proxsparse.runs.run import Run


def follow(run: Run) -> None:
    """Do what rank 0 tells, to the end."""
    job, own, problem = run.job(), None, ""
    while True:
        name, arguments = told()
        if name == END:
            return
        if name == READ:
            try:
                lm, _ = load_to_share(job)
                text = windows_of(lm, job)
                layers = prunable_layers(lm.model, job.learn.m)
            except ProxSparseError as error:  # which may be so on this machine alone
                problem = str(error)
        elif name == COMPARE:
            together(problem or difference(text, lm.model, *arguments))
        elif name == MEET:
            together()
        elif name == CHECK:
            check_together(Path(arguments[0]))
        elif name == BEGIN:
            checkpoint = None if arguments[0] is None else stored_state(Path(arguments[0]))
            own = make_learner(lm.model, text.calibration, job, layers, checkpoint, no_progress)
        else:
            getattr(own, name)(*arguments)


def difference(text, model, sha256: str, weights_sha256: str) -> str:
    """What this rank has read other than rank 0, whose machine may be another one; "" where there is nothing. One rank a machine looks at
    the weights."""
    if text.sha256 != sha256:
        return f"the text {text.name} is not that of process 0: give --corpus the same text on all machines."
    if int(os.environ["LOCAL_RANK"]) == 0 and fingerprint(model) != weights_sha256:
        return f"the weights of {model.name_or_path} are not those of process 0: give --model the same model on all machines."
    return ""
