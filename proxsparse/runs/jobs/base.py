"""What every long job shares: it reports its progress, and handles the run's commands between two pieces of its work."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from proxsparse.errors import ProxSparseError
from proxsparse.files import write_json
from proxsparse.progress import Progress, no_progress
from proxsparse.runs.disk import why_no_room
from proxsparse.runs.places import check_weights
from proxsparse.runs.queue import device_of, waiting_behind
from proxsparse.runs.recorder import Recorder
from proxsparse.runs.run import Run

if TYPE_CHECKING:
    from proxsparse.config import LearnJob
    from proxsparse.models.language_model import LanguageModel
    from proxsparse.text import HeldOut, Text

POLL_SECONDS = 0.1
DISK_SECONDS = 5.0  # between two looks at how much of the disk the runs take


class Stopped(Exception):
    """The run was asked to stop, or its work ends for the reason given."""


def require_same_text(run: Run, text) -> None:
    """Raise ProxSparseError where `text` is another one than `run` began with."""
    begun_with = run.corpus()
    if begun_with and begun_with["sha256"] != text.sha256:
        raise ProxSparseError(
            f"The text {text.name} is not the one that run {run.id} began with: put that one back, or start anew."
        )


def windows_of(lm: LanguageModel, job: LearnJob, progress: Progress = no_progress) -> Text:
    """The text of a job that learns: the same for every process that works on it, goes on with it, or answers questions about it."""
    return lm.windows(job.corpus, job.length, job.context, job.bos, progress, job.samples).sampled(job.samples)


class Job:
    """A job that can be paused, resumed and stopped. A kind of run gives `work`, and `stop` where there is something to
    save; both happen in the worker's process. label: what of several things is worked on, said with the progress. own_device: of one
    of several processes, in place of the job's."""

    label = ""
    own_device: str | None = None

    def __init__(self, run: Run, recorder: Recorder):
        self.run, self.recorder = run, recorder
        self.paused, self.stopping = False, False
        self.elapsed_before = recorder.state.get("elapsed") or 0.0
        self.paused_seconds, self.began = 0.0, time.monotonic()
        self.disk_looked_at = -math.inf
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run_to_the_end(self) -> int:
        try:
            self.work()
            self.recorder.update(status="done", doing="done", remaining=0, elapsed=self.total_elapsed)
            self.recorder.event("done")
        except Stopped as why:
            self.stop()
            for path, command in self.run.commands():
                if command["command"] == "stop":
                    path.unlink(missing_ok=True)
            doing = str(why) or "stopped on request"
            self.recorder.update(status="stopped", doing=doing, remaining=None, elapsed=self.total_elapsed)
            self.recorder.flush()
            self.recorder.event("stopped")
        return 0

    def work(self) -> None:
        raise NotImplementedError

    def describe(self, layers, text, model) -> None:
        """Write down what is worked on. Raises ProxSparseError where a run that goes on finds another text or model than it
        began with: its figures would not belong together."""
        from proxsparse.export.write import extent_of
        from proxsparse.models.sparsity import sparsity_of

        weights = check_weights(self.run, model)
        begun_with = self.run.corpus()
        require_same_text(self.run, text)
        described = {"layers": layers.describe(), "skipped": layers.skipped, "corpus": text.describe()}
        described["weights_sha256"] = weights
        described["extent"] = dataclasses.asdict(extent_of(model, layers))
        described["given"] = str(sparsity_of(layer.matrix for layer in layers.in_turn()))
        write_json(self.run.path / "layers.json", described)
        if text.bos and not begun_with:
            self.recorder.event("a BOS token begins every window")

    def further_texts(self, lm, text, also_learned_on: Collection[str] = ()) -> list[HeldOut]:
        """The texts on which the result is judged besides `text`, read before anything that takes long. also_learned_on: sha256
        of other corpora that masks were learned on."""
        found = []
        for corpus in self.job.judged_on:
            self.recorder.update(doing=f"reading {corpus}")
            read = lm.heldout(corpus, self.job.context, self.job.bos, text.corpus, also_learned_on, self.progress)
            if read.left_out:
                self.recorder.event("not judged on what was learned on", text=read.name, paragraphs=read.left_out)
            found.append(dataclasses.replace(read, windows=read.windows[: self.job.windows or None]))
        return found

    def stop(self) -> None:
        """What has to be saved when the work is ended before its end."""

    @property
    def is_waiting(self) -> bool:
        """Whether nothing may be done until the next command."""
        return self.paused

    def progress(self, done: int, total: int, what: str) -> None:
        """Called from inside long work: report how far it is, handle commands, and wait while the run is paused."""
        self.stop_at_disk_limit()
        of_what = f"{self.label}: {what}" if self.label else what
        self.recorder.update(doing=f"{of_what} {min(done + 1, total)}/{total}", elapsed=self.total_elapsed)
        self.handle_commands()
        while self.is_waiting:
            self.wait()
            self.handle_commands()

    def judging_progress(self, text: str, done: int, total: int, _: str) -> None:
        """The same, while a mask is judged on a further text."""
        self.progress(done, total, f"judging on {text}, window")

    def handle_commands(self) -> None:
        """Handle the commands in the queue, in the order they were sent."""
        for path, command in self.run.commands():
            if not self.can_handle(command["command"]):
                continue
            # A stop stays until the run has stopped, should its processes be started again meanwhile.
            if command["command"] != "stop":
                path.unlink()
            self.handle(**command)
        if self.stopping:
            raise Stopped

    def stop_at_disk_limit(self) -> None:
        """End the work, with what there is to save, once the run or all runs take as much of the disk as an operator allows."""
        if time.monotonic() >= self.disk_looked_at + DISK_SECONDS:
            self.disk_looked_at = time.monotonic()
            reason = why_no_room(self.run.path)
            if reason is not None:
                raise Stopped(reason)

    def can_handle(self, command: str) -> bool:
        """Whether a command can be handled already; else it stays in the queue."""
        return True

    def handle(self, command: str, **values) -> None:
        """Handle one command. One that only a run that learns knows is recorded as ignored."""
        if command == "stop":
            self.stopping = True
        elif command == "pause":
            if not self.paused:
                self.pause()
        elif command == "resume":
            if self.paused:
                self.paused = False
                self.recorder.update(status="running", doing="going on")
                self.recorder.event("went on")
        else:
            self.recorder.event("ignored", command=command)

    def pause(self) -> None:
        self.paused = True
        self.recorder.update(status="paused", doing=self.pausing)
        self.recorder.event("paused")

    @property
    def pausing(self) -> str:
        """What is said while the run is paused."""
        return "paused"

    def wait(self) -> None:
        waiting = waiting_behind(self.run)
        told = f"; {waiting[0]} waits for {device_of(self.run)}: stop this run to let it begin" if waiting else ""
        self.recorder.update(status="paused", doing=f"{self.pausing}{told}")
        self.idle()

    def idle(self) -> None:
        """Let a moment pass that does not count as work."""
        began = time.monotonic()
        time.sleep(POLL_SECONDS)
        self.paused_seconds += time.monotonic() - began

    @property
    def working_seconds(self) -> float:
        return time.monotonic() - self.began - self.paused_seconds

    @property
    def total_elapsed(self) -> float:
        return self.elapsed_before + self.working_seconds

    def _on_signal(self, number, frame) -> None:
        self.stopping = True
