"""Asking the worker that holds a run's model in memory, and reading its answers; without torch.

The worker (kind "probe") has a run directory of its own, `probe/` of the run, and in it:

requests/<id>.json   what was asked, until the worker takes it; handled in the order of the ids, which are times
requests/<id>.stop   somebody no longer wants the answer
answers/<id>.jsonl   the request, then what is known so far, one line a piece; at last `done`, `error` or `stopped`
wanda.safetensors    Wanda's masks, which take a while to make

Anybody may ask at any time: the worker is started by the first request, and ends when nobody asked for a while.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from proxsparse.errors import ProxSparseError
from proxsparse.files import Tail, read_json, write_json
from proxsparse.runs import launch
from proxsparse.runs.commands import in_words
from proxsparse.runs.directory import ACTIVE
from proxsparse.runs.lock import held
from proxsparse.runs.readers.known_masks import known_steps, require_step
from proxsparse.runs.requests import KINDS, PromptRequest, Request, WhatIfRequest, as_json, request_from
from proxsparse.runs.run import Run, readable_run

IDLE_SECONDS = 300.0  # without a request, after which the worker ends
ANSWERS_KEPT = 100
MOST_WAITING = 20
START_TIMEOUT = 10.0  # seconds that a visitor waits for another to start the worker, or for an old worker to end
_ID = re.compile(r"\d{20}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Answer:
    """What is known so far of an answer.

    status: `waiting` (ahead: how many requests are handled before it), `working`, `done`, `failed` (see error), `stopped`,
    or `interrupted` when the worker was lost.
    """

    id: str
    request: Request
    status: str
    lines: tuple[dict, ...] = ()
    ahead: int = 0

    @property
    def error(self) -> str | None:
        """The sentence that says why it failed."""
        return next((line["error"] for line in self.lines if "error" in line), None)

    def next_tokens(self) -> dict[str, pd.DataFrame]:
        """Of a prompt, {model: table} of the most probable next tokens: token, text, probability, reference (of the dense
        model). Its `attrs["divergence"]` is the divergence from the dense model in nats."""
        tables = {}
        for line in self.lines:
            if "next" in line:
                tables[line["model"]] = pd.DataFrame(line["next"])
                tables[line["model"]].attrs["divergence"] = line["divergence"]
        return tables

    def texts(self) -> dict[str, str]:
        """Of a prompt, {model: what it has said so far}, in the order in which the models began."""
        texts: dict[str, str] = {}
        for line in self.lines:
            if "model" in line:
                texts[line["model"]] = texts.get(line["model"], "") + line.get("piece", "")
        return texts

    def change(self) -> dict | None:
        """Of a what-if: before, after, difference, stderr, windows; of a group also weights, kept_before, kept_after."""
        return next((line["change"] for line in self.lines if "change" in line), None)

    def layers(self) -> pd.DataFrame:
        """Of a ranking, a row a layer: layer, estimate, estimate_stderr, measured, measured_stderr; nan where not known.
        Measured layers first, the most negative difference at the top."""
        columns = ["layer", "estimate", "estimate_stderr", "measured", "measured_stderr"]
        estimates = next((line["estimates"] for line in self.lines if "estimates" in line), [])
        table = pd.DataFrame(estimates, columns=columns[:3])
        measured = {line["layer"]: line for line in self.lines if "layer" in line}
        for column, key in (("measured", "difference"), ("measured_stderr", "stderr")):
            table[column] = [measured.get(name, {}).get(key) for name in table["layer"]]
        table = table.astype(dict.fromkeys(columns[1:], float))
        return table.sort_values(["measured", "estimate"], na_position="last", ignore_index=True)


class Probe:
    """The worker of one run that answers questions about its model.

    path: its directory, by default `probe/` of the run; another one for a run that may not be written to. It lies two
    folders below the one in which all runs lie: workers with the same such folder share the machine's devices. idle:
    seconds after which the worker ends when nobody asks.
    """

    def __init__(self, run: Run, path: Path | None = None, idle: float = IDLE_SECONDS):
        run.job()  # says so when it is not a run that learned
        self.run, self.idle = run, idle
        self.path = run.path / "probe" if path is None else path

    @property
    def directory(self) -> Run | None:
        """Its run directory; None before the first request, and where that is damaged."""
        return readable_run(self.path)

    def state(self) -> dict:
        """As `Run.state`, with `requests`, the ids in work, and `ends_at`, the time at which it ends if nobody asks."""
        return {"status": "new", "doing": "no model in memory"} if self.directory is None else self.directory.state()

    def is_there(self) -> bool:
        """Whether a worker is there, or starts."""
        directory = self.directory
        return directory is not None and (directory.state()["status"] in ACTIVE or directory.is_alive())

    def steps(self) -> list[int]:
        """The steps whose learned masks can be asked for."""
        return known_steps(self.run)

    # Asking

    def ask(self, request: Request) -> str:
        """Leave a request, and start the worker where none is there; returns the id of the answer.

        Raises ProxSparseError for what cannot be asked of this run, and when too many requests wait.
        """
        request = self.checked(request)
        with in_words(self.run):
            return self._left(request)

    def _left(self, request: Request) -> str:
        """The id of a request that was checked, once it lies in the queue and a worker is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with held(self.path.with_name(f"{self.path.name}.lock"), timeout=START_TIMEOUT):
                if self.directory is None:
                    if self.path.exists():  # damaged
                        self.path.rename(self.path.with_name(f"{self.path.name}.damaged-{secrets.token_hex(2)}"))
                    source = ".." if self.path.parent == self.run.path else str(self.run.path.resolve())
                    Run.create_kind("probe", {"run": source, "idle": self.idle}, self.path)
                if len(waiting := self.waiting()) >= MOST_WAITING:
                    raise ProxSparseError(f"{len(waiting)} requests wait for an answer already: try again in a while.")
                id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
                left = self.path / "requests" / f"{id}.json"
                write_json(left, as_json(request))
                try:
                    self._wake()
                except ProxSparseError:
                    left.unlink(missing_ok=True)  # whoever is told that it failed gets no answer later
                    raise
        except BlockingIOError:
            raise ProxSparseError("Another request is just being left: wait a moment, then ask again.") from None
        return id

    def checked(self, request: Request) -> Request:
        """The request with its step filled in. Raises ProxSparseError where the run has no such step, layer or group."""
        if isinstance(request, PromptRequest):
            known = self.steps() or request.step is not None
            return dataclasses.replace(request, step=require_step(self.run, request.step)) if known else request
        if isinstance(request, WhatIfRequest):
            self._check_place(request)
        if request.needs_learned:
            request = dataclasses.replace(request, step=require_step(self.run, request.step))
        return request

    def _check_place(self, request: WhatIfRequest) -> None:
        layers = self.run.layers().set_index("name")
        if request.layer not in layers.index:
            raise ProxSparseError(
                f"There is no layer {request.layer[:120]!r}: choose one of the {len(layers)} of the run."
            )
        if request.to != "group":
            return
        layer, m = layers.loc[request.layer], self.run.job().learn.m
        places = [("row", request.row, layer["rows"]), ("group", request.group, layer["columns"] // m)]
        for name, value, count in (*places, *(("kept", position, m) for position in request.kept)):
            if not 0 <= value < count:
                raise ProxSparseError(
                    f"{name} is {value}, and {request.layer} has 0 to {count - 1}: give one of these."
                )

    def _wake(self) -> None:
        """Start a worker unless there is one that will see what has just been asked. Called with the lock held."""
        directory, deadline = self.directory, time.monotonic() + START_TIMEOUT
        while directory.state()["status"] not in ACTIVE:
            if not directory.is_alive():
                launch.start(directory)
                return
            if time.monotonic() > deadline:
                raise ProxSparseError(
                    "The worker that was asked before is still ending: wait a moment, then ask again."
                )
            time.sleep(0.02)  # it is about to end, or sees the request before it does

    def stop(self) -> None:
        """End the worker; requests that wait are answered with a sentence."""
        if self.directory is None:
            raise ProxSparseError(f"No model of run {self.run.id} is in memory: nothing can be ended.")
        self.directory.send("stop")

    def cancel(self, id: str) -> None:
        """Say that an answer is no longer wanted; what is known of it stays."""
        if self.answer(id).status in ("waiting", "working"):
            (self.path / "requests" / f"{id}.stop").touch()

    # Reading

    def waiting(self) -> list[str]:
        """The ids of the requests that no worker has taken, oldest first."""
        return sorted(path.stem for path in (self.path / "requests").glob("[0-9]*.json"))

    def answer(self, id: str) -> Answer:
        """What is known of an answer. Raises ProxSparseError for an id that is not known, or no longer."""
        if not _ID.fullmatch(id):
            raise ProxSparseError(f"There is no answer {id[:40]!r}: ask again.")
        path, waiting = self.path / "answers" / f"{id}.jsonl", self.waiting()  # in this order: see `take` of the worker
        found = read_answer(path)
        if found is None:
            asked = read_json(self.path / "requests" / f"{id}.json") if id in waiting else None
            if asked is not None:
                status = "waiting" if self.is_there() else "interrupted"
                return Answer(id, request_from(asked), status, ahead=waiting.index(id) + len(self._in_work()))
            found = read_answer(path)  # taken between the two looks
        if found is None:
            raise ProxSparseError("This answer is no longer kept: ask again.")
        if found.status == "working" and id not in self._in_work():
            found = read_answer(path)  # finished between the two looks, or never to be
            return dataclasses.replace(found, status="interrupted") if found.status == "working" else found
        return found

    def _in_work(self) -> list[str]:
        state = self.state()
        return state.get("requests", []) if state["status"] in ACTIVE else []


def read_answer(path: Path) -> Answer | None:
    """The answer in a file, as far as it goes; None where there is none. One that does not end is called `working`."""
    lines = Tail(path).read()
    if not lines:
        return None
    ends = {"done": "done", "error": "failed", "stopped": "stopped"}
    status = next((word for key, word in ends.items() if key in lines[-1]), "working")
    return Answer(path.stem, request_from(lines[0]["request"]), status, tuple(lines[1:]))


def recorded_answers(run: Run) -> dict[str, Answer]:
    """{kind of request: Answer} of those that were recorded with a run, in its `answers/`."""
    found = [read_answer(path) for path in sorted((run.path / "answers").glob("*.jsonl"))]
    names = {request: kind for kind, request in KINDS.items()}
    return {names[type(answer.request)]: answer for answer in found if answer is not None}
