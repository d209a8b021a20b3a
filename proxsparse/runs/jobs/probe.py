"""Answering questions about a run's model, which stays in memory between them; see `proxsparse.runs.readers.probe`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import append_record, read_json
from proxsparse.runs.jobs.base import POLL_SECONDS, Job, Stopped
from proxsparse.runs.lock import held
from proxsparse.runs.readers.probe import ANSWERS_KEPT, read_answer
from proxsparse.runs.recorder import Recorder, describe_device
from proxsparse.runs.requests import RankingRequest, request_from
from proxsparse.runs.run import Run

LOST = "The worker ended before this was answered: ask again."


class Cancelled(Exception):
    """Nobody wants the answer any more."""


class ProbeWorker(Job):
    """Loads the model, answers requests in the order in which they were left, and ends when none came for a while."""

    def __init__(self, run: Run, recorder: Recorder):
        super().__init__(run, recorder)
        header = run.header()
        self.source, self.idle = Run((run.path / header["run"]).resolve()), header["idle"]
        self.requests, self.answers = run.path / "requests", run.path / "answers"
        self.in_work: list[str] = []  # a ranking, and what is answered between two of its layers

    def work(self) -> None:
        from proxsparse.models.language_model import resolve_device

        self.recorder.state |= {"requests": [], "ends_at": None}
        self.close_unfinished()
        try:
            device = resolve_device(self.source.job().device)
            with self.alone_on(device.type if device.type == "cpu" else f"{device.type}:{device.index or 0}"):
                self.load()
                self.serve()
        except Stopped:
            raise
        except Exception as error:  # whoever waits is told, as the state tells it
            self.close_waiting(str(error) if isinstance(error, ProxSparseError) else LOST)
            raise

    def load(self) -> None:
        from proxsparse.runs.jobs.loaded_run import LoadedRun

        self.recorder.update(status="running", doing=f"loading {self.source.job().model}")
        self.recorder.flush()
        self.loaded = LoadedRun(self.source, self.run.path / "wanda.safetensors", super().progress)
        device = self.loaded.model.device
        self.recorder.update(device=describe_device(device), arithmetic=self.loaded.arithmetic)
        self.recorder.event("loaded", device=str(device), arithmetic=self.loaded.arithmetic)

    @contextmanager
    def alone_on(self, device: str) -> Iterator[None]:
        """While open, no other worker of this kind holds a model on the device. One that has nothing to do is ended; one
        that answers is waited for."""
        lock = self.run.path.parent.parent / f".probe-{device.replace(':', '-')}.lock"
        while True:
            try:
                with held(lock):
                    lock.write_text(str(self.run.path.resolve()))
                    yield
                return
            except BlockingIOError:
                self.wait_for(Path(lock.read_text()), device)

    def wait_for(self, path: Path, device: str) -> None:
        if (path / "run.json").is_file():
            other = Run(path)
            self.recorder.update(doing=f"waiting until the model of run {path.parent.name} leaves {device}")
            state = other.state()
            if state["status"] == "running" and state.get("ends_at") and not other.commands():
                with suppress(ProxSparseError):  # it may just have ended by itself
                    other.send("stop")
        self.handle_commands()
        time.sleep(POLL_SECONDS)

    # The queue

    def serve(self) -> None:
        self.rest()
        while True:
            self.handle_commands()
            if (id := self.next_request()) is not None:
                self.answer(id)
                self.rest()
            elif time.monotonic() > self.ends:
                self.end_unless_asked()
            else:
                time.sleep(POLL_SECONDS)

    def rest(self) -> None:
        """Begin to wait for the next request."""
        self.ends = time.monotonic() + self.idle
        self.recorder.update(status="running", doing="ready", ends_at=time.time() + self.idle)
        self.recorder.flush()

    def end_unless_asked(self) -> None:
        """End, in such an order that no request is lost: whoever leaves one and still reads `running` is answered."""
        self.recorder.update(status="stopped", doing="no model in memory", ends_at=None)
        self.recorder.flush()
        if self.next_request() is None:
            raise Stopped(f"ended: nobody asked anything for {self.idle:g} s")
        self.rest()

    def next_request(self, short: bool = False) -> str | None:
        """The oldest request; short: of those that are no rankings, which take minutes."""
        for path in sorted(self.requests.glob("[0-9]*.json")):
            if not short or read_json(path, {}).get("kind") != "ranking":
                return path.stem
        return None

    def answer(self, id: str) -> None:
        """Take a request and answer it. What it cannot be answered with is a sentence; anything else ends the worker."""
        path, target = self.requests / f"{id}.json", self.answers / f"{id}.jsonl"
        self.answers.mkdir(exist_ok=True)
        self.in_work.append(id)
        self.recorder.update(requests=list(self.in_work), ends_at=None)
        self.recorder.flush()  # before the answer's file is there: a reader takes one that nobody works on for lost
        asked = read_json(path)

        def tell(piece: dict) -> None:
            append_record(target, piece)

        tell({"request": asked, "time": time.time()})
        path.unlink()  # after the answer's file is there: a reader finds one or the other
        try:
            request = request_from(asked)
            self.check_wanted()
            between = self.answer_short_ones if isinstance(request, RankingRequest) else lambda: None
            self.loaded.answer(request, tell, self.progress, between)
            tell({"done": True})
        except ProxSparseError as error:
            tell({"error": str(error)})
        except Cancelled:
            tell({"stopped": True})
        except BaseException:
            tell({"error": LOST})
            raise
        finally:
            (self.requests / f"{id}.stop").unlink(missing_ok=True)
            self.in_work.remove(id)
            self.recorder.update(requests=list(self.in_work))
            self.recorder.flush()
        self.forget_old_ones()

    def answer_short_ones(self) -> None:
        """Between two layers of a ranking, which takes minutes: others do not wait for its end."""
        while (id := self.next_request(short=True)) is not None:
            self.answer(id)

    def forget_old_ones(self) -> None:
        answers = sorted(self.answers.glob("[0-9]*.jsonl"))
        for path in answers[:-ANSWERS_KEPT]:
            if path.stem not in self.in_work:
                path.unlink()

    def close_unfinished(self) -> None:
        """End the answers that a worker before this one was killed in. Their requests are not taken again: it may have
        been killed for what one of them asked."""
        for path in self.answers.glob("[0-9]*.jsonl"):
            found = read_answer(path)
            if found is None:
                path.unlink()  # its request still waits
            elif found.status == "working":
                append_record(path, {"error": LOST})
                (self.requests / f"{path.stem}.json").unlink(missing_ok=True)

    def close_waiting(self, sentence: str) -> None:
        """Answer every request that waits with a sentence."""
        self.answers.mkdir(exist_ok=True)
        for path in sorted(self.requests.glob("[0-9]*.json")):
            target = self.answers / f"{path.stem}.jsonl"
            append_record(target, {"request": read_json(path), "time": time.time()})
            append_record(target, {"error": sentence})
            path.unlink()

    # Commands

    def progress(self, done: int, total: int, what: str) -> None:
        super().progress(done, total, what)
        self.check_wanted()

    def check_wanted(self) -> None:
        if (self.requests / f"{self.in_work[-1]}.stop").exists():
            raise Cancelled

    def handle(self, command: str, **values) -> None:
        """Only `stop`: there is nothing to pause in answering."""
        if command == "stop":
            self.stopping = True
        else:
            self.recorder.event("ignored", command=command)

    def stop(self) -> None:
        """What still waits is answered with a sentence, after the status has said that nothing more is taken."""
        self.recorder.update(status="stopped", doing="no model in memory", requests=[], ends_at=None)
        self.recorder.flush()
        self.close_waiting(LOST)
