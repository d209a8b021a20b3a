"""What a run can be asked for, and the one guard that every such action passes.

A command is a file in the run's `commands/`, which the worker handles between two halves of a step, in the order sent,
and deletes.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxsparse.config import LearnConfig
from proxsparse.errors import ProxSparseError
from proxsparse.files import read_json, why_not_written, write_json
from proxsparse.runs.directory import ACTIVE, RunDirectory

STEPPING = ("step", "gradient", "prox", "set", "delay")  # what only a run that learns can do
COMMANDS = ("pause", "resume", "step", "gradient", "prox", "set", "delay", "stop")
VALUES = {"set": "lambda1", "delay": "seconds"}  # what has to be said with a command
UNREADABLE = {"command": "unreadable"}  # in the place of a file that holds no command
LONGEST_DELAY = 60.0  # seconds between two half steps
STARTABLE = ("new", "stopped", "failed", "interrupted")
ENDED = (*STARTABLE, "done")


def require(run: RunDirectory, action: str) -> None:
    """Raise ProxSparseError unless `action` can be done to `run` as it is: the run may be changed, is of the kind that
    can, and in a state that allows it.

    action: one of COMMANDS, or `start` (also: go on from the last checkpoint), `fork`, `export`, `add` (to a comparison), `rename`,
    `delete`.
    """
    header, status = run.header(), run.state()["status"]
    reads_only = action == "fork"  # it copies
    if header.get("recorded") and not reads_only:
        raise ProxSparseError(f"Run {run.id} is a recorded example, which is only looked at: start a run of your own.")
    if not reads_only and not os.access(run.path, os.W_OK):
        raise ProxSparseError(f"Run {run.id} lies in a folder that may not be written to: copy it to another one.")
    if action in (*STEPPING, "fork") and header["kind"] != "learn":
        raise ProxSparseError(
            f"Run {run.id} learned no mask (it is of the kind {header['kind']!r}): it takes no {action!r}."
        )
    if action in COMMANDS and status not in ACTIVE:
        raise ProxSparseError(f"Run {run.id} is {status}: it takes no commands until it is resumed.")
    if action in COMMANDS and status == "waiting" and action != "stop":
        raise ProxSparseError(
            f"Run {run.id} waits for its turn: until then it takes no {action!r}, only stop, which withdraws it."
        )
    if action == "start":
        if run.is_alive():
            raise ProxSparseError(f"Run {run.id} is being worked on already.")
        refuse_what_is_done(run)
    if action in ("add", "rename", "delete") and (run.is_alive() or status in ACTIVE):
        raise ProxSparseError(f"Run {run.id} is {status}: stop it first.")


@contextmanager
def in_words(run: RunDirectory) -> Iterator[None]:
    """What the system refuses while a run is changed becomes one sentence: a folder that may not be written, a full disk, a run
    that was deleted meanwhile."""
    try:
        yield
    except OSError as error:
        if not run.path.exists():
            raise ProxSparseError(f"Run {run.id} was deleted meanwhile: choose another run.") from error
        name = Path(os.fsdecode(error.filename)).name if error.filename is not None else "its folder"
        raise ProxSparseError(
            f"Run {run.id} cannot be changed ({name}: {why_not_written(error)}): see to the rights of its folder and the room on "
            "its disk."
        ) from error


def refuse_what_is_done(run: RunDirectory) -> None:
    """Raise ProxSparseError where there is nothing left to be worked on."""
    if run.state()["status"] == "done":
        more = "fork it with more steps" if run.kind == "learn" else "start a new one"
        raise ProxSparseError(f"Run {run.id} is done: {more}.")


def send(run: RunDirectory, command: str, **values) -> None:
    """Leave a command for the worker. Raises ProxSparseError for one that this run does not take, or a wrong value."""
    asked = checked(command, **values)
    require(run, command)
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    write_json(run.path / "commands" / name, asked)


def checked(command: str, **values) -> dict:
    """A command as its file holds it. Raises ProxSparseError for one that no run knows, or a wrong value."""
    if command not in COMMANDS:
        raise ProxSparseError(f"A run does not know {command!r}: choose one of {', '.join(COMMANDS)}.")
    wanted = {VALUES[command]} if command in VALUES else set()
    if values.keys() != wanted:
        given = ", ".join(values) or "nothing"
        raise ProxSparseError(f"{command} takes {', '.join(wanted) or 'no value'}, and {given} was given.")
    if command == "set":
        values = {"lambda1": LearnConfig(lambda1=values["lambda1"]).lambda1}  # checked
    if command == "delay":
        values = {"seconds": checked_delay(values["seconds"])}
    return {"command": command, **values}


def checked_delay(seconds) -> float:
    """A delay between two half steps, in seconds. Raises ProxSparseError for what is none."""
    try:
        number = float(seconds)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(seconds, bool) or not 0 <= number <= LONGEST_DELAY:
        raise ProxSparseError(f"delay is {seconds!r}: give 0 to {LONGEST_DELAY:g} seconds; 0: as fast as it goes.")
    return number


def waiting(run: RunDirectory) -> list[tuple[Path, dict]]:
    """The commands that the worker has not handled yet, oldest first."""
    paths = sorted(path for path in (run.path / "commands").glob("[0-9]*.json") if path.is_file())
    return [(path, _read(path)) for path in paths]


def forget_waiting(run: RunDirectory) -> None:
    """Remove the commands that were meant for a worker that is gone."""
    for path, _ in waiting(run):
        path.unlink()


def _read(path: Path) -> dict:
    """A command as it was sent; `unreadable` where the file holds none."""
    try:
        asked = read_json(path)
        return checked(**asked) if isinstance(asked, dict) else UNREADABLE
    except (ProxSparseError, TypeError):  # TypeError: it does not say which command
        return UNREADABLE
