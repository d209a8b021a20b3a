"""A run in a process of its own: commands, crashes, bad luck. Real workers, real signals, a tiny model."""

import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from waiting import until

from proxsparse import LearnConfig, LearnJob, MaskSet, ProxSparseError, Run
from proxsparse.runs import start_export

ENDED = ("done", "stopped", "failed", "interrupted")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # identical sums in every worker
        patch.setenv("NUMBA_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def job(tiny_directory, text_file):
    def make(steps=12, **changes):
        learn = {"steps": steps, "learning_rate": 1e-2, "lambda1": 0.05, "ramp": 1.0, "metric_windows": 2}
        learn |= {name: changes.pop(name) for name in list(changes) if name in LearnConfig.__dataclass_fields__}
        around = {
            "length": 16,
            "context": 32,
            "windows": 6,
            "live_windows": 2,
            "evaluate_every": 5,
            "checkpoint_every": 4,
        }
        return LearnJob(str(tiny_directory), str(text_file), **(around | changes), learn=LearnConfig(**learn))

    return make


def finish(run, seconds=180):
    until(lambda: run.state()["status"] in ENDED, seconds)
    until(lambda: not run.is_alive())
    return run.state()


def assert_same_masks(run, other, *steps):
    for step in steps:
        flips = MaskSet.load(run.masks()[step]).flips(MaskSet.load(other.masks()[step]))
        assert set(flips.values()) == {0}


def events(run):
    return run.table("events")["event"].tolist()


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory):
    run = Run.create(job(), tmp_path_factory.mktemp("runs") / "undisturbed")
    run.start()
    state = finish(run)
    assert state["status"] == "done", (run.path / "worker.log").read_text()
    return run


def test_a_run_from_start_to_end(undisturbed):
    run = undisturbed
    assert run.table("steps")["step"].tolist() == list(range(1, 13))
    assert run.table("layers")["step"].tolist() == list(range(1, 13))
    assert len(run.layers()) == 14 == len(run.table("layers")["flips"].iloc[0]) and run.skipped() == {}
    measured = run.table("perplexity")
    live = measured[measured["scope"] == "live"]
    assert live[live["mask"] == "learned"]["step"].tolist() == [0, 5, 10]
    assert live[live["step"] == 0]["mask"].tolist() == ["dense", "magnitude", "learned"]
    final = measured[measured["scope"] == "final"]
    assert final["mask"].tolist() == ["dense", "magnitude", "learned"] and set(final["windows"]) == {6}
    assert set(live["windows"]) == {2} and set(measured["context"]) == {32}
    assert list(run.checkpoints()) == [8, 12] and list(run.masks()) == [0, 4, 5, 8, 10, 12]
    assert events(run)[0] == "started" and events(run)[-1] == "done"
    state = run.state()
    assert state["step"] == 12 and state["elapsed"] > 0 and state["error"] is None


def assert_history_is_that_of_the_masks(run):
    """At every step whose masks are on disk, each layer's mask is read back from the history."""
    history = run.history()
    for step, path in run.masks().items():
        for name, mask in MaskSet.load(path).items():
            assert np.array_equal(history.mask(name, step), mask.dense().numpy()), f"{name} at step {step}"


def test_the_history_leads_to_every_mask_on_disk(undisturbed):
    assert undisturbed.history().steps == list(range(13))
    assert_history_is_that_of_the_masks(undisturbed)


def test_killed_and_resumed_it_ends_with_the_same_masks(undisturbed, job, tmp_path):
    run = Run.create(job(), tmp_path / "killed")
    worker = run.start()
    until(lambda: run.state()["step"] >= 6)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert run.state()["status"] == "interrupted"
    run.start()
    assert finish(run)["status"] == "done"
    assert "resumed" in events(run)
    assert_same_masks(run, undisturbed, 8, 10, 12)
    assert run.table("steps")["step"].tolist() == list(range(1, 13)), "no step is missing and none is there twice"
    assert run.table("steps")["loss"].tolist() == undisturbed.table("steps")["loss"].tolist()
    assert run.history().steps == list(range(13))
    assert_history_is_that_of_the_masks(run)


def test_pause_steps_halves_strength_and_stop(job, tmp_path):
    run = Run.create(job(steps=500, evaluate_every=0), tmp_path / "driven")
    run.start()
    until(lambda: run.state()["step"] >= 2)
    run.send("pause")
    until(lambda: run.state()["status"] == "paused" and not run.commands())
    if run.state()["phase"] == "prox":  # paused in mid-step: complete it
        run.send("prox")
        until(lambda: run.state()["phase"] == "gradient")
    at = run.state()["step"]
    time.sleep(0.4)
    assert run.state()["step"] == at, "it rests"
    run.send("step")
    until(lambda: run.state()["step"] == at + 1)
    run.send("gradient")
    until(lambda: run.state()["phase"] == "prox")
    assert run.state()["step"] == at + 1
    run.send("gradient")  # it is the other half's turn
    until(lambda: "ignored" in events(run))
    run.send("set", lambda1=0.5)
    until(lambda: run.state()["lambda1"] == 0.5)
    run.send("prox")
    until(lambda: run.state()["step"] == at + 2)
    assert run.state()["status"] == "paused"
    steps = run.table("steps").set_index("step")["lambda1"]
    assert steps[at + 1] == 0.05 and steps[at + 2] == 0.5
    run.send("resume")
    until(lambda: run.state()["step"] >= at + 5)
    run.send("stop")
    state = finish(run)
    assert state["status"] == "stopped" and max(run.checkpoints()) == state["step"] == max(run.masks())


def test_slow_motion_rests_between_two_halves_and_ends_when_it_is_told(job, tmp_path):
    run = Run.create(job(steps=500, evaluate_every=0), tmp_path / "slow")
    run.start()
    until(lambda: run.state()["step"] >= 2)
    run.send("delay", seconds=60)
    until(lambda: run.state().get("delay") == 60 and "half comes next" in run.state()["doing"])
    state = run.state()
    assert state["status"] == "running" and f"the {state['phase']} half comes next" in state["doing"]
    at = state["step"]
    time.sleep(0.4)
    assert run.state()["step"] == at, "it rests"
    run.send("set", lambda1=0.5)  # it hears while it rests
    until(lambda: run.state()["lambda1"] == 0.5)
    run.send("step")  # what is asked for by hand does not wait
    until(lambda: run.state()["step"] == at + 1 and run.state()["status"] == "paused")
    run.send("resume")
    until(lambda: "half comes next" in run.state()["doing"])
    assert run.state()["remaining"] > 2 * 60 * 400, "the rest of the way is as slow"
    run.send("stop")
    assert finish(run)["status"] == "stopped"

    run.start()  # it goes on as slowly as it was
    until(lambda: "half comes next" in run.state()["doing"])
    at = run.state()["step"]
    run.send("delay", seconds=0)
    until(lambda: run.state()["step"] > at + 3)
    assert run.state()["delay"] == 0
    run.send("stop")
    assert finish(run)["status"] == "stopped"


def test_a_strength_set_by_hand_is_set_again_when_steps_are_taken_again(job, tmp_path):
    """Killed after the change but before a checkpoint: the steps before the change keep the old strength."""
    run = Run.create(job(steps=60, checkpoint_every=0, evaluate_every=0), tmp_path / "replayed")
    worker = run.start()
    until(lambda: run.state()["step"] >= 3)
    run.send("set", lambda1=0.9)
    until(lambda: len(run.table("steps")) and run.table("steps")["lambda1"].iloc[-1] == 0.9)
    worker.kill()
    worker.wait()
    before = run.table("steps").set_index("step")
    run.start()
    assert finish(run)["status"] == "done"
    after = run.table("steps").set_index("step").loc[before.index]
    assert after["lambda1"].tolist() == before["lambda1"].tolist() and after["loss"].tolist() == before["loss"].tolist()


def test_after_two_crashes_the_strength_that_was_set_last_wins(job, tmp_path):
    """0.9 at a later step, then, after a crash, 0.5 at an earlier one: there is one history, in which 0.9 never was."""
    run = Run.create(job(steps=80, checkpoint_every=0, evaluate_every=0), tmp_path / "twice")

    def drive(step, strength):
        """Take steps one by one, set λ1 when `step` are taken, take three more, and crash."""
        worker = run.start()
        until(lambda: run.state().get("phase") and run.state()["status"] == "running")
        run.send("pause")
        until(lambda: run.state()["status"] == "paused" and not run.commands())
        if run.state()["phase"] == "prox":
            run.send("prox")
            until(lambda: run.state()["phase"] == "gradient")
        first = run.state()["step"]
        assert first <= step, "the machine was too fast for this test"
        for target in range(first + 1, step + 1):
            run.send("step")
            until(lambda target=target: run.state()["step"] == target)
        run.send("set", lambda1=strength)
        for target in range(step + 1, step + 4):
            run.send("step")
            until(lambda target=target: run.state()["step"] == target)
        worker.kill()
        worker.wait()

    drive(40, 0.9)
    drive(30, 0.5)
    chosen = run.table("events").query("event == 'lambda1'")
    assert chosen[["step", "lambda1"]].values.tolist() == [[30, 0.5]]
    run.start()
    assert finish(run)["status"] == "done"
    steps = run.table("steps").set_index("step")["lambda1"]
    assert set(steps[:30]) == {0.05} and set(steps[31:]) == {0.5}
    assert (run.table("events")["event"] == "lambda1").sum() == 1


def test_a_damaged_checkpoint_gives_way_to_the_one_before(undisturbed, job, tmp_path):
    run = Run.create(job(), tmp_path / "damaged")
    worker = run.start()
    until(lambda: 8 in run.checkpoints())
    worker.kill()
    worker.wait()
    newest = max(run.checkpoints())
    run.checkpoints()[newest].write_bytes(b"torn")
    run.start()
    assert finish(run)["status"] == "done"
    assert "unreadable checkpoint" in events(run)
    assert_same_masks(run, undisturbed, 12)


def test_a_fork_goes_on_with_its_own_strength(undisturbed, tmp_path):
    child = undisturbed.fork(tmp_path / "child", step=8, lambda1=0.4, steps=11)
    child.start()
    assert finish(child)["status"] == "done"
    steps = child.table("steps").set_index("step")
    assert steps.index.tolist() == list(range(1, 12))
    assert steps["lambda1"].tolist() == [0.05] * 8 + [0.4] * 3
    assert steps["loss"].tolist()[:9] == undisturbed.table("steps")["loss"].tolist()[:9]
    assert child.history().steps == list(range(12)) and undisturbed.history().steps == list(range(13))
    assert_history_is_that_of_the_masks(child)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ramp": 16.0, "lambda1": 0.4, "steps": 13}, [0.4 / 16 ** (4 / 12), 0.4 / 16 ** (3 / 12)]),
        ({"ramp": 16.0, "steps": 13}, [0.05 / 16 ** (4 / 12), 0.05 / 16 ** (3 / 12)]),
        ({"lambda1": 0.4}, [0.4, 0.4]),
        ({"relative": False}, [0.05, 0.05]),
    ],
)
def test_a_fork_s_strength_and_ramp_take_effect(undisturbed, tmp_path, changes, expected):
    """The parent's strength is constant; a new ramp goes on where it would be at step 8, and ends at lambda1."""
    child = undisturbed.fork(tmp_path / "fork", 8, **changes)
    child.start()
    assert finish(child)["status"] == "done"
    strengths = child.table("steps")["lambda1"].tolist()[8:]
    assert strengths[:2] == pytest.approx(expected) and strengths[-1] == pytest.approx(changes.get("lambda1", 0.05))


def test_sigterm_is_a_stop_with_a_checkpoint(job, tmp_path):
    run = Run.create(job(steps=500), tmp_path / "terminated")
    worker = run.start()
    until(lambda: run.state()["step"] >= 1)
    worker.terminate()
    assert finish(run)["status"] == "stopped" and max(run.checkpoints()) >= 1


def test_two_workers_never_share_a_run(job, tmp_path):
    run = Run.create(job(steps=500), tmp_path / "shared")
    worker = run.start()
    until(run.is_alive)
    with pytest.raises(ProxSparseError, match="is being worked on already"):
        run.start()
    worker.terminate()
    finish(run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"length": 4096}, "length is 4096 and the model reads at most 64"),
        ({"batch": 5000}, "one step takes 5000"),
        ({"learning_rate": 1e30, "clip": 0.0, "loss_at": "soft"}, "lower the learning rate"),
    ],
)
def test_what_goes_wrong_is_one_sentence_in_the_state(job, tmp_path, changes, words):
    run = Run.create(job(**changes), tmp_path / "failing")
    run.start()
    state = finish(run)
    assert state["status"] == "failed" and words in state["error"] and "\n" not in state["error"]


@pytest.mark.parametrize(("name", "place"), [("corpus", "missing.txt"), ("model", "/nowhere/at/all")])
def test_a_run_whose_model_or_text_is_gone_is_not_started(job, tmp_path, name, place):
    run = Run.create(LearnJob.from_dict(job().to_dict() | {name: place}), tmp_path / "failing")
    with pytest.raises(ProxSparseError, match=f"The {name} of run failing is not at {place}"):
        run.start()
    assert run.state()["status"] == "new" and not run.is_alive()


def test_a_full_disk_loses_nothing(job, tmp_path):
    """A limit on the size of files stands for a full disk: a checkpoint cannot be written, the ones before are
    whole."""
    run = Run.create(job(steps=200, checkpoint_every=3, evaluate_every=0), tmp_path / "full")
    script = "import sys; from proxsparse.runs.worker import work; sys.exit(work(sys.argv[1]))"
    worker = subprocess.Popen([sys.executable, "-c", script, str(run.path)], stderr=subprocess.DEVNULL)
    until(lambda: 3 in run.checkpoints())
    size = run.checkpoints()[3].stat().st_size
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    worker.wait(180)
    state = run.state()
    assert state["status"] == "failed" and "disk is full" in state["error"]
    assert run.checkpoints()
    run.start()
    until(lambda: run.state()["step"] > state["step"])
    run.send("stop")
    assert finish(run)["status"] == "stopped"


def test_an_export_is_a_job_of_its_own(undisturbed):
    job = start_export(undisturbed)
    assert finish(job)["status"] == "done", (job.path / "worker.log").read_text()
    assert undisturbed.export().path == job.path
    assert (job.path / "model" / "model.safetensors").is_file() and (job.path / "report.json").is_file()
    again = start_export(undisturbed)
    assert finish(again)["status"] == "done", "an earlier export is replaced"


def test_a_run_without_masks_cannot_be_exported(job, tmp_path):
    with pytest.raises(ProxSparseError, match="has no masks yet"):
        start_export(Run.create(job(), tmp_path / "empty"))


def test_half_a_line_does_not_stop_a_resumed_run(job, tmp_path):
    run = Run.create(job(), tmp_path / "torn")
    worker = run.start()
    until(lambda: run.state()["step"] >= 5)
    worker.kill()
    worker.wait()
    with open(run.path / "steps.jsonl", "ab") as file:
        file.write(b'{"step": 99, "lo')
    run.start()
    assert finish(run)["status"] == "done"
    assert run.table("steps")["step"].tolist() == list(range(1, 13))
