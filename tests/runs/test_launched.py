"""A run that several processes share: its records, commands, checkpoints, and what becomes of it when one is lost."""

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
from tiny_models import save_tiny_model, tiny_text
from waiting import until

from proxsparse import LearnConfig, Run
from proxsparse.cli import main
from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.files import read_json, temporaries_in, write_json
from proxsparse.layers.stored import is_stored
from proxsparse.runs.checkpoints.stored import opened
from proxsparse.runs.history.reader import History
from proxsparse.runs.launch import set_launch
from proxsparse.runs.manage import size_on_disk
from proxsparse.runs.prune import bytes_freed, prunable, prune
from proxsparse.runs.ranks.launched import lost
from proxsparse.runs.ranks.leading import LeadingJob
from proxsparse.runs.ranks.learner import device_of_rank, load_to_share
from proxsparse.runs.recorder import Recorder

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
    return worked_on(Run.create(job(1), tmp_path_factory.mktemp("alone") / "run"))


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


def assert_same_history(run: Run, other: Run) -> None:
    mine, its = run.history(), other.history()
    assert (mine.layers, mine.steps) == (its.layers, its.steps) == (tuple(other.layers()["name"]), list(range(13)))
    assert sum(len(its.flips(name)) for name in its.layers) > 100
    for name in its.layers:
        for table in (History.flips, History.patterns):
            pd.testing.assert_frame_equal(table(mine, name), table(its, name))
        for reference in ("start", "magnitude"):
            assert (mine.reference_mask(name, reference) == its.reference_mask(name, reference)).all()
        one, two = mine.tile(name), its.tile(name)
        assert list(one["weight"]) == pytest.approx(list(two["weight"]), rel=2e-3, abs=1e-6), "float16"
    for reference in ("start", "magnitude"):
        pd.testing.assert_frame_equal(mine.agreement(reference), its.agreement(reference))


def test_it_remembers_the_masks_that_one_process_remembers(shared, alone):
    assert_same_history(shared, alone)


def test_masks_are_remembered_where_a_process_has_no_expert(job, tmp_path):
    """Of four experts two processes have two each, and the third none; rows are shared out unevenly."""
    save_tiny_model(tmp_path / "model", "mixtral")
    one, three = (dataclasses.replace(job(launch), model=str(tmp_path / "model"), evaluate_on=()) for launch in (1, 3))
    alone, shared = (worked_on(Run.create(each, tmp_path / f"run-{each.launch}")) for each in (one, three))
    assert_same_history(shared, alone)


def test_its_mask_becomes_the_verified_model_of_one_process(shared, alone, tmp_path):
    for run in (shared, alone):
        assert main(["export", str(run.path), "--to", str(tmp_path / run.path.parent.name)]) == 0
    mine, its = (tmp_path / run.path.parent.name for run in (shared, alone))
    assert main(["verify", str(mine)]) == 0
    assert (mine / "model.safetensors").read_bytes() == (its / "model.safetensors").read_bytes()


def test_every_rank_says_that_there_are_fewer_gpus(job, monkeypatch):
    """Rank 0 too, whose sentence is the run's."""
    asked = dataclasses.replace(job(4), device=None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ProxSparseError, match="launch is 4 and this machine has 2 GPUs: resume with --launch 2"):
        device_of_rank(asked)


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


def stopped_after(run: Run, step: int) -> Run:
    run.start()
    run.send("pause")
    until(lambda: run.state()["status"] == "paused", SECONDS)
    while (before := run.state()["step"]) < step:
        run.send("step")
        until(lambda before=before: run.state()["step"] > before, SECONDS)
    run.send("stop")
    until(lambda: run.state()["status"] == "stopped", SECONDS)
    until(lambda: not run.is_alive(), SECONDS)
    return run


def test_four_begin_two_go_on_and_one_ends_it(job, alone, tmp_path):
    run = stopped_after(Run.create(job(4), tmp_path / "run"), 5)
    assert list(run.checkpoints()) == [4, 5], "stopped between two checkpoints, it leaves one"
    with_another_value(shutil.copytree(run.checkpoints()[5], run.path / "checkpoints" / "step-000006"))
    set_launch(run, 2)
    stopped_after(run, 7)
    (unreadable,) = told(run, "unreadable checkpoint")
    assert unreadable["checkpoint"] == 6 and "are not those that were written" in unreadable["error"]
    assert [told(run, "resumed")[0]["step"], *run.checkpoints()] == [5, 5, 7]
    set_launch(run, 1)
    worked_on(run)
    assert_same_steps(run, alone)
    assert same_masks(run, alone, 12)
    assert_same_history(run, alone)
    assert [path.name for path in run.checkpoints().values()] == ["step-000008.safetensors", "step-000012.safetensors"]


def told(run: Run, event: str) -> list[dict]:
    events = run.table("events")
    return events[events["event"] == event].to_dict("records")


FAULTY_DISK = """
import os, time

fsync = os.fsync

def faulty(descriptor):
    at_fault = os.path.join(os.path.dirname(__file__), "fault")
    if "/checkpoints/.step-000008." in os.readlink(f"/proc/self/fd/{descriptor}") and os.path.exists(at_fault):
        if open(at_fault).read() == "full" and os.environ["RANK"] == "1":
            raise OSError(28, "No space left on device")
        while open(at_fault).read() == "slow":
            time.sleep(0.01)
    fsync(descriptor)

os.fsync = faulty
"""  # which every process of the run imports when it starts


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks up what a file descriptor is")
def test_a_checkpoint_that_cannot_be_written_whole_leaves_the_one_before_and_resume_goes_on(
    job, alone, tmp_path, monkeypatch
):
    """Once a process has no room for its part, once one is killed while it writes."""
    (tmp_path / "sitecustomize.py").write_text(FAULTY_DISK)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fault").write_text("full")
    run = worked_on(Run.create(job(2), tmp_path / "run"), "failed")
    assert "Process 1 of 2 (from 0) cannot write its part of a checkpoint (the disk is full)" in run.state()["error"]
    assert list(run.checkpoints()) == [4]
    until(lambda: not run.is_alive(), SECONDS)

    (tmp_path / "fault").write_text("slow")
    run.start()
    until(lambda: run.state()["step"] == 12, SECONDS)  # steps go on, up to the next checkpoint, which waits
    assert list(run.checkpoints()) == [4] and temporaries_in(run.path / "checkpoints")
    os.kill(follower_of(run.state()["pid"]), signal.SIGKILL)
    (tmp_path / "fault").write_text("none")
    until(lambda: run.state()["status"] == "failed", SECONDS)
    assert "Process 1 of 2 (from 0) was killed (SIGKILL)" in run.state()["error"]
    assert "resume goes on from the last checkpoint" in run.state()["error"]
    until(lambda: not run.is_alive(), SECONDS)
    assert list(run.checkpoints()) == [4]

    assert_same_steps(worked_on(run), alone)
    assert same_masks(run, alone, 12)
    assert [event["step"] for event in told(run, "checkpoint")] == [4, 8, 12]
    assert [path.name for path in sorted((run.path / "checkpoints").iterdir())] == ["step-000008", "step-000012"]


def with_another_value(checkpoint: Path) -> None:
    with open(sorted(checkpoint.glob("*.safetensors"))[-1], "r+b") as file:
        file.seek(-1, os.SEEK_END)
        (last,) = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def cut_off(checkpoint: Path) -> None:
    file = min(checkpoint.glob("*.safetensors"))
    os.truncate(file, file.stat().st_size - 1)


def with_rows_elsewhere(checkpoint: Path) -> None:
    """Both files read well, and lie about whose rows they hold."""
    first, second = sorted(checkpoint.glob("*.safetensors"))
    first.rename(checkpoint / "moved")
    second.rename(first)
    (checkpoint / "moved").rename(second)


def with_other_numbers(checkpoint: Path) -> None:
    index = read_json(checkpoint / "checkpoint.json")
    index["learner"]["lambda1"] += 1
    write_json(checkpoint / "checkpoint.json", index)


def without_a_part(checkpoint: Path) -> None:
    min(checkpoint.glob("*.safetensors")).unlink()


def with_another_part(checkpoint: Path) -> None:
    shutil.copy(min(checkpoint.glob("*.safetensors")), checkpoint / "shard-00003-model-00001-of-00001.safetensors")


@pytest.mark.parametrize(
    "damage",
    [with_another_value, cut_off, with_rows_elsewhere, with_other_numbers, without_a_part, with_another_part],
)
def test_a_damaged_part_is_found_and_the_checkpoint_before_is_taken(shared, tmp_path, damage):
    run = Run(shutil.copytree(shared.path, tmp_path / "run"))
    damage(run.checkpoints()[12])
    assert Recorder(run).load_checkpoint()[1]["step"] == 8
    assert [event["checkpoint"] for event in told(run, "unreadable checkpoint")] == [12]
    assert [path.name for path in sorted((run.path / "checkpoints").iterdir())] == [
        "step-000008", "step-000012.unreadable"
    ]  # fmt: skip


def test_a_part_of_a_newer_format_is_refused(shared, tmp_path):
    run = Run(shutil.copytree(shared.path, tmp_path / "run"))
    index = run.checkpoints()[12] / "checkpoint.json"
    write_json(index, read_json(index) | {"version": 2})
    with pytest.raises(ProxSparseError, match="step-000012 has the format version 2"):
        Recorder(run).load_checkpoint()


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_no_pickle_is_written_or_read(shared, tmp_path):
    """torch's own layout of such a directory has its metadata in a pickle of this name."""
    run = Run(shutil.copytree(shared.path, tmp_path / "run"))
    checkpoint = run.checkpoints()[12]
    assert {path.suffix for path in checkpoint.iterdir()} == {".safetensors", ".json"}
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Trap()))
    tensors, _ = Recorder(run).load_checkpoint()
    assert all(tensors[name][:].shape == tensors[name].shape for name in tensors)


def test_a_fork_shares_the_parts_and_prune_removes_them(shared, tmp_path):
    run = Run(shutil.copytree(shared.path, tmp_path / "run"))
    fork = run.fork(tmp_path / "fork", 8, steps=20, launch=1)
    parts = sorted(run.checkpoints()[8].iterdir())
    assert all(os.path.samefile(part, fork.checkpoints()[8] / part.name) for part in parts)
    assert Recorder(fork).load_checkpoint()[1]["step"] == 8
    found = prunable(tmp_path)
    assert [each.path for each in found] == [run.checkpoints()[8]] and bytes_freed(found) == 0
    shutil.rmtree(fork.path)
    size = sum(part.stat().st_size for part in parts)
    assert size_on_disk(run) > 2 * size and prune(found) == (size, [])
    without_a_part(run.checkpoints()[12])
    shutil.copytree(run.checkpoints()[12], run.path / "checkpoints" / "step-000010")
    assert prunable(tmp_path) == [], "the last one is damaged"


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


def test_processes_share_the_lean_plan_too(job, shared, tmp_path):
    """Also where nothing says that matrices are multiplied in bf16."""
    learn = dataclasses.replace(shared.job().learn, memory="lean", precision="auto")
    lean = worked_on(Run.create(dataclasses.replace(job(2), learn=learn), tmp_path / "lean"))
    assert opened(lean.checkpoints()[12]).rest["memory"] == "lean"
    assert list(lean.table("steps")["loss"]) == pytest.approx(list(shared.table("steps")["loss"]), rel=0.01)


def test_offloading_is_refused_where_one_process_works(job, tmp_path, capsys):
    said = "offload is for several processes that share a model, and launch is 1"
    assert main(["learn", "--offload", "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()
    run = Run.create(dataclasses.replace(job(2), learn=LearnConfig(offload=True)), tmp_path / "several")
    set_launch(run, 1)
    with pytest.raises(ProxSparseError, match=said):
        run.start()
