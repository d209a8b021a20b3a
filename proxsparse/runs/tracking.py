"""Telling an experiment tracker what a run records, under the names of the records, through the tracker's own client.

It follows `steps.jsonl` and `perplexity.jsonl` rather than the learner, so that a run that goes on after a crash goes on in the
tracker where it was. Nothing reaches a network by itself: TensorBoard and trackio write to this machine, and so does Weights &
Biases unless the environment says WANDB_MODE=online. What the environment says otherwise (TRACKIO_SPACE_ID, WANDB_PROJECT, …) the
clients read themselves.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Protocol

from proxsparse.errors import ProxSparseError
from proxsparse.files import read_json, write_json
from proxsparse.runs.recorder import Recorder
from proxsparse.runs.records import tail_of
from proxsparse.runs.run import Run

PROJECT = "proxsparse"
POSITION = "position.json"  # how many records of each kind the tracker has been told


def require_tracker(name: str) -> None:
    """Raise ProxSparseError where the client of a tracker is not installed."""
    if importlib.util.find_spec(name) is None:
        raise ProxSparseError(f"Tracking with {name} needs its package: pip install 'proxsparse[{name}]'.")


class Client(Protocol):
    """A tracker's client. can_take_back: whether it forgets what it was told of steps that are taken again. keeps_at_once: whether
    what it was told outlives a process that is killed; else it is told again."""

    can_take_back: bool
    keeps_at_once: bool

    def log(self, step: int, values: dict[str, float], time: float | None) -> None:
        """Tell it the values at a step. time: when that was, in seconds since 1970; None: now."""

    def flush(self) -> None:
        """Let nothing be lost that was told."""

    def close(self) -> None:
        """The run ends, or this process does."""


class TensorBoard:
    """Event files in `tracking/tensorboard` of the run: `tensorboard --logdir runs`."""

    can_take_back, keeps_at_once = True, True

    def __init__(self, run: Run, directory: Path, step: int, config: dict, goes_on: bool):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(directory / "tensorboard", purge_step=step + 1 if goes_on else None)
        self.flush = self.writer.flush
        self.close = self.writer.close

    def log(self, step: int, values: dict[str, float], time: float | None) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step, walltime=time)


class Trackio:
    """Its local database, project `proxsparse`: `trackio show`. It writes twice a second: a process that is killed loses half a second."""

    can_take_back, keeps_at_once = False, True

    def __init__(self, run: Run, directory: Path, step: int, config: dict, goes_on: bool):
        import trackio

        self.tracked = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=run.id, config=config, resume="allow" if goes_on else "never",
            embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self.close = trackio.finish

    def log(self, step: int, values: dict[str, float], time: float | None) -> None:
        self.tracked.log(values, step=step)

    def flush(self) -> None:
        """It has a thread for that."""


class WeightsAndBiases:
    """Files in `tracking/wandb` of the run, project `proxsparse`; `wandb sync` sends them. With WANDB_MODE=online it sends at once.

    Steps are a column and not its own counter, which drops what lies before the last it has seen: after a crash the same points may come
    twice.
    """

    can_take_back, keeps_at_once = False, False

    def __init__(self, run: Run, directory: Path, step: int, config: dict, goes_on: bool):
        import wandb

        self.tracked = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=run.id, name=run.id, config=config, dir=directory, resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )  # fmt: skip
        self.tracked.define_metric("step")
        self.tracked.define_metric("*", step_metric="step")
        self.close = self.tracked.finish

    def log(self, step: int, values: dict[str, float], time: float | None) -> None:
        self.tracked.log({"step": step} | values)

    def flush(self) -> None:
        """It has a process for that."""


CLIENTS = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": WeightsAndBiases}


class Tracking:
    """Tells the tracker of a run, if it has one, what its records hold that is new. `open` is called when they are cut back to
    where the run goes on, `follow` after each record; as a context manager, it is closed at the end.

    A tracker that fails is given up, an event of the run says why, and the run goes on.
    """

    def __init__(self, run: Run, recorder: Recorder):
        self.run, self.recorder, self.name = run, recorder, run.job().track
        self.directory, self.client = run.path / "tracking", None
        self.tails = {name: tail_of(run.path, name) for name in ("steps", "perplexity")}

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_) -> None:
        if self.client is not None:
            self._try(self._close)

    def open(self) -> None:
        """Begin, or go on after what it was told before."""
        if self.name is not None:
            self._try(self._open)

    def follow(self) -> None:
        """Tell it what was recorded since."""
        if self.client is not None:
            self._try(self._follow)

    def _open(self) -> None:
        require_tracker(self.name)
        self.directory.mkdir(exist_ok=True)
        waiting = {name: tail.read() for name, tail in self.tails.items()}
        told = read_json(self.directory / POSITION, default={})
        steps = waiting["steps"]
        known = CLIENTS[self.name]
        self.client = known(
            self.run, self.directory, steps[-1]["step"] if steps else 0, _config(self.run), goes_on=bool(told)
        )
        # Records that the run was cut back to: what it records anew is told anew where that can be taken back, else only what
        # lies beyond what was told.
        self.told = {
            name: min(told.get(name, 0), len(records)) if known.can_take_back else told.get(name, 0)
            for name, records in waiting.items()
        }
        self.seen = dict.fromkeys(self.tails, 0)
        self._tell(waiting)

    def _close(self) -> None:
        self.client.close()
        write_json(self.directory / POSITION, self.told)

    def _follow(self) -> None:
        self._tell({name: tail.read() for name, tail in self.tails.items()})

    def _tell(self, records: dict[str, list[dict]]) -> None:
        before = dict(self.told)
        for name, new in records.items():
            for record in new:
                self.seen[name] += 1
                if self.seen[name] > self.told[name]:
                    values, time = _values(name, record)
                    self.client.log(record["step"], values, time)
                    self.told[name] = self.seen[name]
        if self.told != before:
            self.client.flush()
            if self.client.keeps_at_once:
                write_json(self.directory / POSITION, self.told)

    def _try(self, action) -> None:
        try:
            action()
        except Exception as error:  # a stranger's client: whatever it raises, the run does not end by it
            self.client = None
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            self.recorder.event("stopped tracking", tracker=self.name, error=reason)


def _values(name: str, record: dict[str, Any]) -> tuple[dict[str, float], float | None]:
    """What a record says, by the names of its columns, and when it was written; those of a perplexity name scope and mask, too:
    `perplexity/live/learned`. What was not finite has no value."""
    known = {
        key: value for key, value in record.items() if isinstance(value, int | float) and key not in ("step", "time")
    }
    if name == "perplexity":
        known = {f"{key}/{record['scope']}/{record['mask']}": value for key, value in known.items()}
    return known, record.get("time")


def _config(run: Run) -> dict[str, Any]:
    """What was asked for, with names in the place of paths."""
    job = run.job().to_dict()
    names = {key: Path(job[key]).name if Path(job[key]).is_absolute() else job[key] for key in ("model", "corpus")}
    return {key: value for key, value in job.items() if key != "evaluate_on"} | names
