"""The process that works on a run: `python -m proxsparse worker RUN`. It obeys the run's commands and writes its
records."""

from __future__ import annotations

import errno
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from proxsparse.errors import ProxSparseError
from proxsparse.runs.files import write_json
from proxsparse.runs.recorder import Recorder, describe_device, free_bytes, peak_bytes
from proxsparse.runs.run import Run

POLL_SECONDS = 0.1


class Stopped(Exception):
    """Somebody asked the worker to end."""


def work(path: str | Path) -> int:
    """Work on the run at `path` until it is done, stopped or failed; returns the exit code."""
    run = Run(path)
    lock = FileLock(run.path / "lock")
    try:
        lock.acquire(timeout=10)  # a reader may hold it for a moment, to see whether anybody does
    except Timeout:
        raise ProxSparseError(f"Run {run.id} is being worked on already.") from None
    with lock:
        recorder = Recorder(run)
        recorder.update(status="starting", doing="importing torch")
        recorder.flush()
        try:
            return _jobs()[run.header()["kind"]](run, recorder)
        except Exception as error:  # whatever it was, the reader of the run is told
            traceback.print_exc()
            sentence = explain(error, run)
            recorder.update(status="failed", doing="failed", error=sentence, remaining=None)
            recorder.event("failed", error=sentence)
            return 2


def _jobs() -> dict[str, Callable[[Run, Recorder], int]]:
    from proxsparse.runs.export_job import export_run

    return {"learn": lambda run, recorder: LearnWorker(run, recorder).run_to_the_end(), "export": export_run}


def explain(error: Exception, run: Run) -> str:
    """One sentence about what ended a run, with the way out."""
    import torch

    if isinstance(error, ProxSparseError):
        return str(error)
    out_of_memory = isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(
        error
    )
    if out_of_memory and "job" in run.header():
        job = run.job()
        return (
            f"Memory ran out with {job.learn.batch} windows of {job.length} tokens in a pass: fork the run with a smaller batch "
            "and more accumulation, or choose shorter windows or a smaller model."
        )
    if _is_full_disk(error):
        return (
            f"The disk is full ({free_bytes(run.path) / 1e6:.0f} MB left at {run.path}): free some space and resume; the last "
            "checkpoint is kept."
        )
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}; see worker.log."


def _is_full_disk(error: Exception) -> bool:
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, SafetensorError):  # it only says so in words
        return any(f"os error {number})" in str(error) for number in numbers)
    return isinstance(error, OSError) and error.errno in numbers


class LearnWorker:
    """Learns a mask: load, measure, step, obey in between, checkpoint, measure again."""

    def __init__(self, run: Run, recorder: Recorder):
        self.run, self.recorder, self.job = run, recorder, run.job()
        self.paused, self.allowed, self.stopping = False, None, False
        self.learner = None
        self.elapsed_before = recorder.state.get("elapsed") or 0.0
        self.paused_seconds, self.began = 0.0, time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run_to_the_end(self) -> int:
        try:
            self.load()
            self.recorder.update(status="running", doing="measuring where it starts")
            self.learn()
            self.finish()
        except Stopped:
            self.stop()
        return 0

    # The story of a run

    def load(self) -> None:
        self.recorder.update(doing=f"loading {self.job.model}")
        from proxsparse.corpora import load_windows
        from proxsparse.layers import prunable_layers
        from proxsparse.learner import MaskLearner
        from proxsparse.methods import magnitude
        from proxsparse.models import load_model

        lm = load_model(self.job.model, self.job.device)
        self.recorder.update(doing=f"reading {self.job.corpus}", device=describe_device(lm.model.device))
        text = load_windows(self.job.corpus, lm.tokenizer, self.job.length, self.job.context, lm.context)
        self.heldout = text.heldout if self.job.windows == 0 else text.heldout[: self.job.windows]
        self.live = self.heldout[: self.job.live_windows]
        layers = prunable_layers(lm.model, self.job.learn.m)
        self._describe(layers, text)
        self.magnitude = magnitude(layers, self.job.learn.n, self.job.learn.m)
        self.model = lm.model
        self.learner = MaskLearner(lm.model, text.calibration, self.job.learn, layers, self.progress)
        checkpoint = self.recorder.load_checkpoint()
        if checkpoint:
            self.learner.load_state_dict(*checkpoint)
            parent = self.run.header().get("parent")
            if parent and parent["step"] == self.learner.step_index:  # a fork begins with the strength it was given
                self.learner.lambda1 = self.job.learn.lambda1
        self.replay = self._strengths_set_since(self.learner.step_index)
        self.recorder.forget_after(self.learner.step_index)
        self._show_position()
        self.recorder.event("resumed" if checkpoint else "started")

    def learn(self) -> None:
        self.steps_before, self.learning_since = self.learner.step_index, self.working_seconds
        while not self.learner.done:
            self._replay_strengths()
            self.obey()
            if self.paused and self.allowed is None:
                self._rest()
                continue
            if self.learner.phase == "gradient":
                self.measure_if_due()
                self.recorder.update(status="paused" if self.paused else "running", doing="gradient half")
                self.learner.gradient_step()
                self.allowed = None if self.allowed == "gradient" else self.allowed
                self._show_position()
            else:
                self.take_prox_half()
                self.allowed = None

    def take_prox_half(self) -> None:
        self.recorder.update(doing="prox half")
        report = self.learner.prox_step()
        self.recorder.record("layers", report.layer_record())
        self.recorder.record("steps", report.record() | {"time": time.time()})
        self._show_position()
        every = self.job.checkpoint_every
        if self.learner.done or (every and self.learner.step_index % every == 0):
            self.checkpoint()

    def measure_if_due(self) -> None:
        """Held-out perplexity while the run goes on; at step 0 also of the dense model and the magnitude mask."""
        step, every = self.learner.step_index, self.job.evaluate_every
        if step == 0:
            self.measure(("dense", "magnitude", "learned"), "live", self.live)
        elif every and step % every == 0:
            self.measure(("learned",), "live", self.live)

    def finish(self) -> None:
        self.measure_if_due()
        self.measure(("dense", "magnitude", "learned"), "final", self.heldout)
        self.recorder.update(status="done", doing="done", remaining=0, elapsed=self.total_elapsed)
        self.recorder.event("done")

    def stop(self) -> None:
        if self.learner is not None:
            if self.learner.phase == "prox":  # a checkpoint lies between two steps
                self.take_prox_half()
            self.checkpoint()
        self.recorder.update(status="stopped", doing="stopped on request", remaining=None, elapsed=self.total_elapsed)
        self.recorder.event("stopped")

    # Pieces

    def measure(self, masks: tuple[str, ...], scope: str, windows) -> None:
        from proxsparse.evaluate import perplexity

        step = self.learner.step_index
        table = self.run.table("perplexity")
        known = set() if table.empty else set(zip(table["step"], table["mask"], table["scope"], strict=True))
        for mask in masks:
            if (step, mask, scope) in known:
                continue

            def progress(done: int, total: int, _: str, mask: str = mask) -> None:
                self.progress(done, total, f"measuring perplexity, {mask}")

            opened = {
                "dense": self.learner.dense,
                "magnitude": lambda: self.learner.projected(self.magnitude),
                "learned": self.learner.projected,
            }[mask]
            with opened():
                found = perplexity(self.model, windows, precision=self.learner.precision, progress=progress)
            self.recorder.record(
                "perplexity",
                {
                    "step": step, "mask": mask, "scope": scope, "perplexity": found.value, "stderr": found.stderr,
                    "tokens": found.tokens, "windows": found.windows, "context": found.context, "seconds": found.seconds,
                },
            )  # fmt: skip
        self.recorder.save_masks(step, self.learner.masks())

    def checkpoint(self) -> None:
        self.recorder.update(doing="writing a checkpoint")
        self.recorder.save_checkpoint(*self.learner.state_dict())
        self.recorder.save_masks(self.learner.step_index, self.learner.masks())

    def progress(self, done: int, total: int, what: str) -> None:
        """Called from inside long work: says how far it is, and obeys."""
        self.recorder.update(doing=f"{what} {done + 1}/{total}", elapsed=self.total_elapsed)
        self.obey()
        while self.paused and self.allowed is None and self.learner is not None:
            self._rest()
            self.obey()

    def obey(self) -> None:
        """Carry out the commands that wait, in the order they were sent."""
        for path, command in self.run.commands():
            if self.learner is None and command["command"] != "stop":
                continue  # still loading: it waits
            path.unlink()
            self._carry_out(**command)
        if self.stopping:
            raise Stopped

    def _carry_out(self, command: str, **values) -> None:
        if command == "stop":
            self.stopping = True
        elif command == "pause" and not self.paused:
            self._pause()
        elif command == "resume" and self.paused:
            self.paused, self.allowed = False, None
            self.recorder.update(status="running", doing="going on")
            self.recorder.event("went on")
        elif command in ("step", "gradient", "prox"):
            if not self.paused:
                self._pause()
            if command not in ("step", self.learner.phase):
                self.recorder.event("ignored", command=command, phase=self.learner.phase)
            else:
                self.allowed = command
        elif command == "set":
            self.replay = []
            self._set_strength(values["lambda1"])

    def _set_strength(self, lambda1) -> None:
        try:
            self.learner.lambda1 = lambda1
        except ProxSparseError as error:
            self.recorder.event("ignored", command="set", error=str(error))
            return
        self.recorder.event("lambda1", lambda1=self.learner.lambda1, phase=self.learner.phase)
        self._show_position()

    def _pause(self) -> None:
        self.paused, self.allowed = True, None
        self.recorder.update(status="paused", doing="paused")
        self.recorder.event("paused")

    def _rest(self) -> None:
        self.recorder.update(status="paused", doing="paused")
        began = time.monotonic()
        time.sleep(POLL_SECONDS)
        self.paused_seconds += time.monotonic() - began

    def _strengths_set_since(self, step: int) -> list[dict]:
        events = self.run.table("events")
        if events.empty or "lambda1" not in events:
            return []
        chosen = events[(events["event"] == "lambda1") & (events["step"] >= step)]
        return chosen[["step", "phase", "lambda1"]].to_dict("records")

    def _replay_strengths(self) -> None:
        """A resumed run takes steps again: λ1 changes again where it changed before, or it would be another run."""
        here = (self.learner.step_index, self.learner.phase)
        while self.replay and (self.replay[0]["step"], self.replay[0]["phase"]) <= here:
            self.learner.lambda1 = float(self.replay.pop(0)["lambda1"])

    def _describe(self, layers, text) -> None:
        rows = [
            {
                "name": layer.name, "block": layer.block, "projection": layer.projection,
                "rows": layer.out_features, "columns": layer.in_features,
            }
            for layer in layers.values()
        ]  # fmt: skip
        about = {
            "name": text.name, "sha256": text.sha256, "calibration_tokens": text.calibration_tokens,
            "heldout_tokens": text.heldout_tokens,
        }  # fmt: skip
        write_json(self.run.path / "layers.json", {"layers": rows, "skipped": layers.skipped, "corpus": about})

    def _show_position(self) -> None:
        done = self.learner.step_index - getattr(self, "steps_before", self.learner.step_index)
        remaining = None
        if done > 0:
            pace = (self.working_seconds - self.learning_since) / done
            remaining = pace * (self.job.learn.steps - self.learner.step_index)
        self.recorder.update(
            step=self.learner.step_index, steps=self.job.learn.steps, phase=self.learner.phase,
            lambda1=self.learner.lambda1, elapsed=self.total_elapsed, remaining=remaining,
            peak_bytes=peak_bytes(self.learner.device),
        )  # fmt: skip
        self.recorder.flush()

    @property
    def working_seconds(self) -> float:
        return time.monotonic() - self.began - self.paused_seconds

    @property
    def total_elapsed(self) -> float:
        return self.elapsed_before + self.working_seconds

    def _on_signal(self, number, frame) -> None:
        self.stopping = True
