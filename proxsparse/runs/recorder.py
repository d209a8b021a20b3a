"""The worker's side of a run directory: its state, its records, its checkpoints.

torch is imported only with the first checkpoint: a worker that waits for its turn needs none of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from proxsparse.errors import ProxSparseError
from proxsparse.files import append_record, keep_records, temporaries_in, write_json, written_whole
from proxsparse.runs.checkpoints.checksums import checksum
from proxsparse.runs.checkpoints.places import remove, set_aside, shared_checkpoint
from proxsparse.runs.checkpoints.stored import DAMAGE, StoredFile, StoredParts, opened
from proxsparse.runs.directory import numbered_file
from proxsparse.runs.records import tail_of
from proxsparse.runs.run import Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OTHERS = ("export", "exports", "probe", "commands")  # folders of a run into which others than its worker write
RECORDS = ("steps", "layers", "perplexity", "judged")
CHECKPOINTS_KEPT = 2
STATE_SECONDS = 0.25  # between two writes of a state in which only the progress changed


def remove_temporaries(directory: Path) -> None:
    """Remove what a worker that was killed had half written; those of an export or of questions, and commands, have others who
    may be writing them."""
    for path in temporaries_in(directory):
        if path.relative_to(directory).parts[0] not in OTHERS:
            remove(path)


class Recorder:
    """Writes what the readers of a run see. Only the process that holds the run's lock makes one."""

    def __init__(self, run: Run):
        self.run = run
        self._place = _place_of(run)
        self.state = run.state() | {"pid": os.getpid(), "error": None}
        self._written, self.began = 0.0, time.time()

    def update(self, **changes) -> None:
        """Change the state. A change of the status is written at once, progress a few times a second."""
        urgent = changes.get("status", self.state.get("status")) != self.state.get("status") or "error" in changes
        self.state |= changes
        if urgent or time.monotonic() - self._written > STATE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the state as it is."""
        self.require_place()
        write_json(self.run.path / "state.json", self.state | {"updated": time.time()})
        self._written = time.monotonic()

    def require_place(self) -> None:
        """Raise ProxSparseError where the run's directory was deleted, or is another one by now: writing would make a new one,
        which nobody asked for and nobody looks at."""
        if _place_of(self.run) != self._place:
            raise ProxSparseError(
                f"The directory of run {self.run.id} was deleted or replaced while it was worked on: nothing more is written."
            )

    def event(self, event: str, **about) -> None:
        self.require_place()
        append_record(
            self.run.path / "events.jsonl", {"time": time.time(), "step": self.state["step"], "event": event, **about}
        )

    def record(self, name: str, record: dict) -> None:
        self.require_place()
        append_record(self.run.path / f"{name}.jsonl", record)

    def forget_after(self, step: int) -> None:
        """Drop the records of steps that will be taken again. Of the events, those that set λ1 at these steps stay: the
        learner sets it again when it gets there."""
        for name in RECORDS:
            self._keep(name, lambda record: record["step"] <= step)
        self._keep(
            "events",
            lambda event: event["step"] <= step or event["event"] == "lambda1" or event["time"] >= self.began,
        )
        for masks_step, path in self.run.masks().items():
            if masks_step > step:
                path.unlink()

    def forget_strengths_from(self, step: int, phase: str) -> None:
        """Drop the events that set λ1 at this half step or later: it has just been set anew."""
        here = (step, phase)
        self._keep("events", lambda event: event["event"] != "lambda1" or (event["step"], event["phase"]) < here)

    def _keep(self, name: str, keep: Callable[[dict], bool]) -> None:
        tail = tail_of(self.run.path, name)
        if tail.path.is_file():
            keep_records(tail, keep)
        if tail.left_out:
            self.event("damaged lines left out", record=name, count=tail.left_out)

    def save_checkpoint(self, tensors: dict[str, Tensor], rest: dict) -> None:
        """Write a checkpoint whole, then drop the oldest."""
        from safetensors.torch import save_file

        self.require_place()
        path = numbered_file(self.run.path / "checkpoints", rest["step"])
        stored = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        checksums = {name: checksum(tensor) for name, tensor in stored.items()}
        with written_whole(path) as temporary:
            save_file(stored, temporary, {"learner": json.dumps(rest), "crc32": json.dumps(checksums)})
        self.checkpoint_written(rest["step"], path)

    def checkpoint_written(self, step: int, path: Path) -> None:
        """Drop what the checkpoint of a step at `path` takes the place of, and the oldest."""
        directory = self.run.path / "checkpoints"
        for other in (numbered_file(directory, step), shared_checkpoint(directory, step)):
            if other != path and other.exists():
                remove(other)
        found = self.run.checkpoints()
        for earlier in list(found)[:-CHECKPOINTS_KEPT]:
            remove(found[earlier])
        self.event("checkpoint", step=step)

    def load_checkpoint(
        self, check: Callable[[Path, StoredFile | StoredParts], None] | None = None
    ) -> tuple[Mapping, dict] | None:
        """The newest checkpoint that can be read, or None: its tensors, each read when it is asked for, and the rest. One that cannot is
        set aside, and an event says so.

        check : callable
            (path, what it holds): raises one of `DAMAGE` where the values have changed; default: this process looks at all.
        """
        for step, path in sorted(self.run.checkpoints().items(), reverse=True):
            try:
                stored = opened(path)
                if check is None:
                    stored.check()
                else:
                    check(path, stored)
                return stored.tensors, stored.rest
            except DAMAGE as error:
                set_aside(path)
                self.event("unreadable checkpoint", checkpoint=step, error=str(error))
        return None

    def save_masks(self, step: int, masks) -> None:
        self.require_place()
        path = numbered_file(self.run.path / "masks", step)
        if path.is_dir():  # a name that somebody took
            path.rename(path.with_suffix(".unreadable"))
        with written_whole(path) as temporary:
            masks.save(temporary)


def _place_of(run: Run) -> tuple[int, int] | None:
    """What tells the run's directory from another of the same name: its lock file, which its worker holds."""
    try:
        status = (run.path / "lock").stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def describe_device(device: torch.device) -> str:
    """The GPU's name, or how many threads the CPU uses, as shown on screen."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
