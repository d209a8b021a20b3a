"""A run that several processes share: its records, commands, checkpoints, and what becomes of it when one is lost."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from tiny_models import save_tiny_model, tiny_text
from waiting import until

from proxsparse import LearnConfig, Run
from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.layers.stored import is_stored
from proxsparse.runs.jobs.launched import lost
from proxsparse.runs.jobs.ranks import LeadingJob, load_to_share
from proxsparse.runs.launch import set_launch

EXACT = ("flips", "flips_from_start", "nonzeros_4", "nonzeros_2", "learning_rate", "lambda1")
ROUNDED = ("loss", "gradient_norm", "regularizer", "drift")
SECONDS = 240


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Settings → a job on a tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_model(folder / "model")
    (folder / "text.txt").write_text(tiny_text())
    (folder / "other.txt").write_text(tiny_text(seed=5))

    def made(launch: int, steps: int = 12, **settings) -> LearnJob:
        learn = LearnConfig(steps=steps, precision="fp32", learning_rate=3e-3, metric_windows=8)
        return LearnJob(
            model=str(folder / "model"), corpus=str(folder / "text.txt"), length=16, context=32, windows=10, live_windows=3,
            evaluate_every=4, checkpoint_every=4, evaluate_on=(str(folder / "other.txt"),), device="cpu", launch=launch,
            learn=learn, **settings,
        )  # fmt: skip

    return made


def worked_on(run: Run, status: str = "done") -> Run:
    run.start()
    until(lambda: run.state()["status"] in ("done", "failed", "stopped"), SECONDS)
    assert run.state()["status"] == status, run.state()
    return run


@pytest.fixture(scope="module")
def alone(job, tmp_path_factory):
    return worked_on(Run.create(job(1, history=0), tmp_path_factory.mktemp("alone") / "run"))


@pytest.fixture(scope="module")
def shared(job, tmp_path_factory):
    return worked_on(Run.create(job(2), tmp_path_factory.mktemp("shared") / "run"))


def assert_same_steps(run: Run, other: Run) -> None:
    mine, its = run.table("steps"), other.table("steps")
    assert list(mine["step"]) == list(its["step"])
    for name in EXACT:
        assert list(mine[name]) == list(its[name]), name
    for name in ROUNDED:
        assert list(mine[name]) == pytest.approx(list(its[name]), rel=1e-6), name


def same_masks(run: Run, other: Run, step: int) -> bool:
    from proxsparse import MaskSet

    mine, its = (MaskSet.load(each.masks()[step]) for each in (run, other))
    return mine.keys() == its.keys() and not sum(mine.flips(its).values())


def test_it_records_what_one_process_records(shared, alone):
    assert_same_steps(shared, alone)
    assert alone.table("steps")["flips"].sum() > 0
    assert shared.masks().keys() == alone.masks().keys()
    assert all(same_masks(shared, alone, step) for step in alone.masks())
    assert list(shared.layers()["rows"]) == list(alone.layers()["rows"])
    assert shared.state()["device"].startswith("2 × cpu")


def test_it_measures_what_one_process_measures(shared, alone):
    mine, its = shared.table("perplexity"), alone.table("perplexity")
    for name in ("step", "mask", "scope", "windows", "tokens"):
        assert list(mine[name]) == list(its[name]), name
    assert list(mine["perplexity"]) == pytest.approx(list(its["perplexity"]), rel=1e-5)
    for one, other in zip(shared.table("judged")["losses"], alone.table("judged")["losses"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_it_says_that_it_keeps_no_history_of_masks(shared):
    events = shared.table("events")
    assert "2 processes share the model" in set(events[events["event"] == "no history of masks"]["why"])


WHOLE = "every process loads the whole model"


def test_weights_stay_in_their_files_until_they_are_shared_out(job, shared):
    lm, why_whole = load_to_share(job(2))
    assert is_stored(lm.model) and why_whole is None
    assert WHOLE not in set(shared.table("events")["event"])


def test_a_model_that_cannot_be_streamed_is_loaded_whole_and_the_run_says_so(job, monkeypatch):
    monkeypatch.setattr("proxsparse.models.streamed.find_spec", lambda name: None)
    events = []
    recorder = SimpleNamespace(event=lambda name, **about: events.append((name, about["why"])))
    lm = LeadingJob.load_model(SimpleNamespace(job=job(2), recorder=recorder))
    assert not is_stored(lm.model)
    assert events == [(WHOLE, "Streaming a model needs the package accelerate: pip install 'proxsparse[stream]'.")]


def test_stopped_and_gone_on_with_by_one_process(job, alone, tmp_path):
    run = Run.create(job(2), tmp_path / "run")
    run.start()
    run.send("pause")
    until(lambda: run.state()["status"] == "paused", SECONDS)
    for _ in range(5):
        before = run.state()["step"]
        run.send("step")
        until(lambda before=before: run.state()["step"] > before, SECONDS)
    run.send("stop")
    until(lambda: run.state()["status"] == "stopped", SECONDS)
    until(lambda: not run.is_alive(), SECONDS)
    assert max(run.checkpoints()) == 5, "stopped between two checkpoints, it leaves one"
    set_launch(run, 1)
    worked_on(run)
    assert_same_steps(run, alone)
    assert same_masks(run, alone, 12)


def test_a_process_that_is_killed_ends_the_run_with_one_sentence_and_resume_goes_on(job, alone, tmp_path):
    run = Run.create(job(2), tmp_path / "run")
    run.start()
    run.send("pause")
    until(lambda: run.state()["status"] == "paused", SECONDS)
    run.send("delay", seconds=0.3)
    run.send("resume")
    until(lambda: run.state()["step"] >= 5, SECONDS)
    os.kill(follower_of(run.state()["pid"]), signal.SIGKILL)
    until(lambda: run.state()["status"] == "failed", SECONDS)
    assert "Process 1 of 2 (from 0) was killed (SIGKILL)" in run.state()["error"]
    assert "resume goes on from the last checkpoint" in run.state()["error"]
    until(lambda: not run.is_alive(), SECONDS)
    assert_same_steps(worked_on(run), alone)


def test_torchrun_starts_the_processes_as_well(job, alone, tmp_path):
    wanted = job(2)
    learn = ["--steps", wanted.learn.steps, "--precision", "fp32", "--learning-rate", "3e-3", "--metric-windows", 8]
    flags = {name: getattr(wanted, name) for name in ("model", "corpus", "length", "context", "windows", "device")}
    flags |= {"live-windows": 3, "evaluate-every": 4, "checkpoint-every": 4, "evaluate-on": wanted.evaluate_on[0]}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        2,
        "-m",
        "proxsparse",
        "learn",
    ]
    command += [
        *learn,
        *(word for name, value in flags.items() for word in (f"--{name}", value)),
        "--out",
        tmp_path / "run",
    ]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "done at step 12 of 12" in ended.stdout
    run = Run(tmp_path / "run")
    assert run.job().launch == 2
    assert_same_steps(run, alone)


def follower_of(leader: int) -> int:
    """The other process that the leader's parent started."""
    processes = psutil.Process(leader).parent().children()
    (other,) = {each.pid for each in processes if "spawn_main" in " ".join(each.cmdline())} - {leader}
    return other


@pytest.mark.parametrize(
    ("exit_codes", "sentence"),
    [
        ({0: 1, 3: -9}, "Process 3 of 4 (from 0) was killed (SIGKILL)"),
        ({2: 1, 1: -15}, "Process 2 of 4 (from 0) ended with exit code 1"),  # the launcher ends the others so
        ({2: 1}, "Process 2 of 4 (from 0) ended with exit code 1"),
    ],
)
def test_the_process_that_was_lost_first_is_named(exit_codes, sentence):
    assert lost(4, exit_codes).startswith(sentence)


@pytest.mark.parametrize("launch", [0, -1, 2000])
def test_a_number_of_processes_that_cannot_be_is_refused(launch):
    with pytest.raises(ProxSparseError, match=f"launch is {launch}: give from 1 to 1024"):
        LearnJob(launch=launch)


def test_lean_memory_is_for_one_process():
    with pytest.raises(ProxSparseError, match="memory lean is for one process"):
        LearnJob(launch=2, learn=LearnConfig(memory="lean"))
