"""Kills workers at random moments, lets them go on, and looks whether anything was lost.

    python tests/attack/kills.py --kills 100 --seed 0

Each job is done once undisturbed, and then again and again with workers that are killed (SIGKILL) once or more before they may
finish. What comes out has to be the same. Prints a table; exit code 1 where anything was lost or left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import torch
from counted import counted
from safetensors import safe_open
from tiny_models import save_tiny_model, tiny_text
from waiting import until

from proxsparse import LearnConfig, LearnJob, Run
from proxsparse.config import CompareJob, SweepPlan
from proxsparse.runs import queue, start_export

AT_ONCE = 3  # times that a worker is killed, at most, before it may finish
TIMED = (
    "seconds",
    "time",
    "tokens_per_second",
    "peak",
    "created",
    "run",
    "directory",
)  # so begins what differs from run to run
WHERE_THEY_LEAVE = (".*", "*.part")  # names of temporary files and folders


# What is done


class Learning:
    """Steps, measurements, checkpoints and a history, of a model that takes a step in some hundredths of a second."""

    name, steps, every, model = "learning", 60, 7, {}

    def make(self, folder: Path) -> Run:
        return Run.create(self.job(folder.parent), folder / "run")

    def job(self, place: Path) -> LearnJob:
        # 32 tokens a step: with 48, bf16 products round differently from process to process on CPUs with AMX
        learn = LearnConfig(steps=self.steps, ramp=10.0, metric_windows=2, batch=2)
        around = {"length": 16, "context": 32, "windows": 4, "live_windows": 2, "evaluate_every": 10}
        model, text = self.given(place)
        return LearnJob(str(model), str(text), **around, checkpoint_every=self.every, device="cpu", learn=learn)

    def given(self, place: Path) -> tuple[Path, Path]:
        """The model and the text, which all runs of this kind share."""
        model, text = place / f"model-{self.name}", place / "text.txt"
        if not model.exists():
            save_tiny_model(model, **self.model)
        text.write_text(tiny_text(), encoding="utf-8")
        return model, text

    def start(self, run: Run) -> None:
        run.start()

    def worker(self, run: Run) -> Run | None:
        """The run directory that the worker works in."""
        return run

    def moment(self, run: Run, chance: random.Random) -> None:
        """Let some time pass: while it starts, or while it works."""
        if chance.random() < 0.25:
            time.sleep(chance.uniform(0, 4))
            return
        until(lambda: self.has_begun(run) or is_over(self.worker(run)))
        time.sleep(chance.uniform(0, 1.5))

    def has_begun(self, run: Run) -> bool:
        return self.worker(run).state()["status"] in ("running", "paused")

    def result(self, run: Run) -> dict:
        """What must be the same whoever was killed on the way."""
        records = {name: lines(run.path / f"{name}.jsonl") for name in ("steps", "layers", "perplexity")}
        masks = tensors_in(run.masks()[self.steps])
        history = run.history()
        remembered = {name: history.mask(name, step).tobytes() for name in history.layers for step in history.steps}
        return records | {"masks": masks, "history": remembered, "checkpoints": len(run.checkpoints())}


class Checkpointing(Learning):
    """The same, of a model whose checkpoint takes long enough to be killed while it is written: after every step."""

    name, steps, every = "checkpoint", 12, 1
    model = {"hidden_size": 256, "intermediate_size": 512}  # noqa: RUF012

    def moment(self, run: Run, chance: random.Random) -> None:
        folder, wanted = run.path / "checkpoints", chance.randint(1, 3)
        seen: set[str] = set()
        while len(seen) < wanted and not is_over(run):
            seen |= {name for name in (os.listdir(folder) if folder.exists() else []) if name.endswith(".part")}
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.03))


class Exporting(Learning):
    """The export of a run that is done."""

    name, steps = "export", 4

    def make(self, folder: Path) -> Run:
        run = super().make(folder)
        run.start()
        until(lambda: is_over(run))
        assert run.state()["status"] == "done", run.state()
        return run

    def start(self, run: Run) -> None:
        start_export(run)

    def worker(self, run: Run) -> Run | None:
        return run.export()

    def result(self, run: Run) -> dict:
        model = run.path / "export" / "model"
        weights = {path.name: tensors_in(path) for path in sorted(model.glob("*.safetensors"))}
        report = json.loads((run.path / "export" / "report.json").read_text(encoding="utf-8"))
        return {"weights": weights, "verification": report["verification"], "files": sorted(os.listdir(model))}


class Comparing(Learning):
    """A comparison of methods that do not learn."""

    name = "comparison"

    def make(self, folder: Path) -> Run:
        model, text = self.given(folder.parent)
        methods = ("random", "magnitude", "wanda", "ria", "sparsegpt", "sparsegpt-update")
        values = {"length": 16, "context": 32, "windows": 4, "calibration": 16, "new_tokens": 4}
        job = CompareJob(str(model), str(text), **values, device="cpu", methods=methods, prompts=("abc",))
        return Run.create_kind("compare", {"compare": job.to_dict()}, folder / "run")

    def result(self, run: Run) -> dict:
        found = {}
        for folder in sorted((run.path / "results").iterdir()):
            found[folder.name] = without_times(json.loads((folder / "result.json").read_text(encoding="utf-8")))
            found[folder.name]["files"] = {path.name: tensors_in(path) for path in folder.glob("*.safetensors")}
        return found


class Sweeping(Learning):
    """Four settings on two rungs."""

    name, steps = "sweep", 8

    def make(self, folder: Path) -> Run:
        plan = SweepPlan(rungs=2, windows=4, lambdas=(0.05, 0.2), learning_rates=(1e-3, 2e-3))
        content = {"sweep": self.job(folder.parent).to_dict(), "plan": plan.to_dict()}
        return Run.create_kind("sweep", content, folder / "run")

    def result(self, run: Run) -> dict:
        trials = json.loads((run.path / "trials.json").read_text(encoding="utf-8"))
        return {"trials": without_times(trials), "preset": (run.path / "preset.json").read_bytes()}


class Queueing(Learning):
    """A run that waits for its turn while another has the device."""

    name, steps = "queue", 4

    def start(self, run: Run) -> None:
        """Somebody else works when it is started, and is done a little later."""
        self.other = queue.turn(run, lambda ahead: time.sleep(0.05))
        self.other.__enter__()
        try:
            run.start()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        if self.other is not None:
            self.other.__exit__(None, None, None)
            self.other = None

    def moment(self, run: Run, chance: random.Random) -> None:
        until(lambda: run.state()["status"] == "waiting" or is_over(run))
        time.sleep(chance.uniform(0, 0.5))
        if chance.random() < 0.3:
            self.release()  # and it begins
            time.sleep(chance.uniform(0, 0.5))

    other = None


JOBS = (Learning, Checkpointing, Exporting, Comparing, Sweeping, Queueing)


# What is looked at


def lines(path: Path) -> list[dict]:
    """A record without what a clock says."""
    return [without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def tensors_in(path: Path) -> dict[str, bytes]:
    """Without the order in which a file names them."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).view(torch.uint8).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


def without_times(value):
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if not name.startswith(TIMED)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def workers_of(run: Run) -> list[int]:
    """The processes that work on a run, or in a directory of it; zombies too, which no longer say on what."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        works_on_it = any(os.fsencode(run.path.resolve()) in word for word in words) and int(entry.name) != os.getpid()
        if works_on_it or (words == [b""] and parent == os.getpid()):
            found.append(int(entry.name))
    return found


def is_over(run: Run | None) -> bool:
    return run is not None and not run.is_alive()


@dataclass
class Found:
    """What became of one job. lost, left: sentences."""

    job: str
    kills: int = 0
    lives: int = 0
    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def attack(job: Learning, place: Path, kills: int, chance: random.Random) -> Found:
    """Kill workers of a job until so many were killed, and compare what comes out with what comes out undisturbed."""
    found = Found(job.name)
    undisturbed = finish(job, job.make(place / f"{job.name}-undisturbed"), found)
    while found.kills < kills:
        found.lives += 1
        run = job.make(place / f"{job.name}-{found.lives}")
        for _ in range(min(kills - found.kills, chance.randint(1, AT_ONCE))):
            kill_one(job, run, chance, found)
        result = finish(job, run, found)
        different = [name for name in undisturbed if result.get(name) != undisturbed[name]]
        if different:
            found.lost.append(f"{run.path}: {', '.join(different)}")
    return found


def kill_one(job: Learning, run: Run, chance: random.Random, found: Found) -> None:
    """Start a worker, kill it at some moment, and look at what it leaves."""
    if job.worker(run) is not None and job.worker(run).state()["status"] == "done":
        return
    job.start(run)
    job.moment(run, chance)
    state, workers = job.worker(run).state(), workers_of(run)
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has just ended by itself
    if workers and state["status"] != "done":
        found.kills += 1
    look_for_what_is_left(job, run, found)
    if isinstance(job, Queueing):
        job.release()


def finish(job: Learning, run: Run, found: Found) -> dict:
    """Let it go on to its end; returns what came out."""
    worker = job.worker(run)
    if worker is None or worker.state()["status"] != "done":
        job.start(run)
        if isinstance(job, Queueing):
            until(lambda: run.state()["status"] == "waiting")
            job.release()
        until(lambda: is_over(job.worker(run)))
    state = job.worker(run).state()
    if state["status"] != "done":
        found.lost.append(f"{run.path} ended as {state['status']}: {state.get('error') or state['doing']}")
        return {}
    look_for_what_is_left(job, run, found)
    kept = [path for pattern in WHERE_THEY_LEAVE for path in run.path.rglob(pattern)]
    found.left += [f"temporary {path}" for path in kept]
    return job.result(run)


def look_for_what_is_left(job: Learning, run: Run, found: Found) -> None:
    """No process, no zombie, no lock, nobody who waits."""
    for what, is_gone in (
        ("process", lambda: not workers_of(run)), ("lock", lambda: not run.is_alive() and is_over(job.worker(run))),
        ("ticket", lambda: not queue.waiting_behind(run)),
    ):  # fmt: skip
        try:
            until(is_gone, 20)
        except AssertionError:
            found.left.append(f"{what} of {run.path}")


def table(results: list[Found]) -> str:
    rows = [(each.job, each.kills, each.lives, len(each.lost), len(each.left)) for each in results]
    return counted(("job", "kills", "runs", "lost", "orphans, locks, temporaries left"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, results = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        for index, job in enumerate(JOBS):
            share = options.kills // len(JOBS) + (index < options.kills % len(JOBS))
            results.append(attack(job(), Path(folder), share, chance))
            for sentence in results[-1].lost + results[-1].left:
                print(sentence, file=sys.stderr, flush=True)
    print(table(results))
    return int(any(each.lost or each.left for each in results))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums are the same in every process
    sys.exit(main())
