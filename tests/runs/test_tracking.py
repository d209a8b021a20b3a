"""What a tracker is told is what the records say, once, also across a crash; and no tracker ends a run."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import add_steps, made_run
from waiting import until

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run
from proxsparse.cli.main import main
from proxsparse.files import keep_records, read_json
from proxsparse.runs import tracking
from proxsparse.runs.manage import command_line
from proxsparse.runs.recorder import Recorder
from proxsparse.runs.records import tail_of
from proxsparse.runs.tracking import Tracking


def in_tensorboard(run):
    """{tag: [(step, value)]} as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tracking" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def recorded(run):
    """The same of the run's records."""
    found = {}
    for record in tail_of(run.path, "steps").read():
        for name, value in record.items():
            if name not in ("step", "time") and value is not None:
                found.setdefault(name, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    for record in tail_of(run.path, "perplexity").read():
        for name in ("perplexity", "stderr", "tokens", "windows", "context", "seconds"):
            tag = f"{name}/{record['scope']}/{record['mask']}"
            found.setdefault(tag, []).append((record["step"], pytest.approx(record[name], rel=1e-6)))
    return found


def follow(run, *more):
    """One process's life with a tracker: begin, and after each of `more` look at what is new."""
    run.path.joinpath("lock").touch()
    with Tracking(run, Recorder(run)) as tracked:
        tracked.open()
        for write in more:
            write()
            tracked.follow()


def cut_back(run, step):
    """As a run does that goes on from a checkpoint."""
    for name in ("steps", "layers", "perplexity"):
        keep_records(tail_of(run.path, name), lambda record: record["step"] <= step)


def test_a_killed_run_goes_on_in_tensorboard_where_it_goes_on(tiny_directory, text_file, tmp_path):
    learn = LearnConfig(steps=9, metric_windows=2, distill=0.0)
    job = LearnJob(
        str(tiny_directory), str(text_file), length=16, context=32, windows=2, evaluate_every=2, checkpoint_every=3, evaluate_on=(),
        track="tensorboard", learn=learn,
    )  # fmt: skip
    run = Run.create(job, tmp_path / "run")
    process = run.start()
    run.send("delay", seconds=0.3)
    until(lambda: len(run.table("steps")) >= 5, 120)
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not run.is_alive())
    run.start()
    run.send("delay", seconds=0)
    until(lambda: not run.is_alive(), 120)
    assert run.state()["status"] == "done", (run.path / "worker.log").read_text()
    found, expected = in_tensorboard(run), recorded(run)
    assert (
        found.keys()
        == expected.keys()
        >= {"loss", "lambda1", "flips", "perplexity/final/learned", "perplexity/live/dense"}
    )
    for tag, values in expected.items():
        assert found[tag] == values, tag
    assert [step for step, _ in found["loss"]] == [*range(1, 10)]
    assert "stopped tracking" not in run.table("events")["event"].tolist()


def test_tensorboard_forgets_steps_that_came_out_otherwise(tmp_path):
    run = made_run(tmp_path / "run", steps=4, track="tensorboard")
    follow(run, lambda: add_steps(run, 5, 8))
    cut_back(run, 5)
    follow(run, lambda: add_steps(run, 6, 7))
    assert in_tensorboard(run)["loss"] == recorded(run)["loss"] and len(recorded(run)["loss"]) == 7


def test_trackio_has_every_step_once_in_its_local_database(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    run = made_run(tmp_path / "tracked", steps=4, track="trackio")
    program = (
        "import json; from proxsparse import Run; from test_tracking import follow, cut_back, add_steps, Path;"
        f"run = Run({str(run.path)!r}); follow(run, lambda: add_steps(run, 5, 8)); cut_back(run, 6);"
        "follow(run, lambda: add_steps(run, 7, 10));"
        "from trackio.sqlite_storage import SQLiteStorage as S;"
        "print(json.dumps(S.get_logs('proxsparse', run.id)))"
    )
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    logs = json.loads(done.stdout.splitlines()[-1])
    losses = [(each["step"], each["loss"]) for each in logs if "loss" in each]
    assert [step for step, _ in losses] == [*range(1, 11)]
    assert [value for _, value in losses[:6]] == [value for _, value in recorded(run)["loss"][:6]]
    assert next(each for each in logs if "perplexity/live/dense" in each)["step"] == 0


def in_leveldb_log(content):
    """The records of a .wandb file: seven bytes of its own, then LevelDB's log of blocks of 32 KiB, in which a record may go on."""
    at, record, block = 7, b"", 32 * 1024
    while at + 7 <= len(content):
        if block - at % block < 7:  # no room for a header: the next block
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield record
            record = b""


def test_weights_and_biases_writes_offline_files(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = made_run(tmp_path / "tracked", steps=3, track="wandb")
    follow(run, lambda: add_steps(run, 4, 5))
    (path,) = (run.path / "tracking" / "wandb").glob("offline-run-*/*.wandb")
    assert read_json(run.path / "tracking" / "position.json") == {"steps": 5, "perplexity": 3}
    rows, config = [], {}
    for data in in_leveldb_log(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
        if record.WhichOneof("record_type") == "run":
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]
    assert [row["loss"] for row in rows if "loss" in row] == [value for _, value in recorded(run)["loss"]]
    assert {"perplexity/live/dense", "perplexity/live/learned"} <= {key for row in rows for key in row}
    assert config["model"] == "embedded" and config["learn"]["steps"] == 5000


def test_a_tracker_that_fails_is_given_up_and_the_run_says_why(tmp_path, monkeypatch):
    told = []

    class Failing:
        can_take_back, keeps_at_once = False, True

        def __init__(self, *_, **__):
            pass

        def log(self, step, values, time):
            if step == 3:
                raise OSError("the disk\nis full")
            told.append(step)

        def flush(self):
            pass

        def close(self):
            told.append("closed")

    monkeypatch.setitem(tracking.CLIENTS, "wandb", Failing)
    monkeypatch.setattr(tracking, "require_tracker", lambda name: None)
    run = made_run(tmp_path / "run", steps=2, track="wandb")
    follow(run, lambda: add_steps(run, 3, 4), lambda: add_steps(run, 5, 6))
    assert told == [1, 2, 0, 0, 0]
    event = run.table("events").iloc[-1]
    assert (event["event"], event["tracker"], event["error"]) == ("stopped tracking", "wandb", "the disk is full")


def test_a_tracker_that_is_not_there_is_said_before_anything_is_made(tiny_directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "run"
    assert main(["learn", "--model", str(tiny_directory), "--track", "wandb", "--out", str(out)]) == 2
    assert "needs its package: pip install 'proxsparse[wandb]'" in capsys.readouterr().err and not out.exists()
    run = made_run(tmp_path / "elsewhere", steps=2, track="wandb")
    follow(run)
    assert "proxsparse[wandb]" in run.table("events").iloc[-1]["error"], (
        "a run that goes on elsewhere goes on without it"
    )


def test_the_choice_is_part_of_the_job(tmp_path):
    with pytest.raises(ProxSparseError, match="track is 'mlflow': choose one of trackio, tensorboard, wandb"):
        LearnJob(track="mlflow")
    run = made_run(tmp_path / "run", steps=2, track="trackio")
    assert Run(run.path).job().track == "trackio" and "--track trackio" in command_line(run)
    assert made_run(Path(tmp_path / "plain")).job().track is None
