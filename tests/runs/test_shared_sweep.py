"""Several workers on one study: who tries what, who takes over from the dead, and which storages are refused."""

import dataclasses
import json
import pickle
import threading

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, Sweep
from proxsparse.cli import main
from proxsparse.config import SweepPlan
from proxsparse.runs.jobs import study as studies
from proxsparse.runs.jobs.study import Journal, Study, asked_of, open_storage
from proxsparse.runs.jobs.sweep import SweepJobWorker
from proxsparse.runs.worker import work

pytestmark = pytest.mark.usefixtures("workers_inside")


@pytest.fixture(scope="module")
def job(tiny_directory, text_file):
    return LearnJob(
        str(tiny_directory), str(text_file), length=16, context=32, learn=LearnConfig(steps=4, metric_windows=2)
    )


@pytest.fixture
def create(job):
    def create(path, storage=None, **plan):
        plan = SweepPlan(**{"rungs": 2, "windows": 4, "lambdas": (0.01, 0.1), "learning_rates": (1e-3, 1e-2)} | plan)
        study = {"name": path.name, "storage": storage}
        return Run.create_kind("sweep", {"sweep": job.to_dict(), "plan": plan.to_dict(), "study": study}, path)

    return create


@pytest.fixture
def join(monkeypatch):
    def join(path, place, *arguments):
        monkeypatch.setattr("proxsparse.cli.commands.start", lambda run, arguments: 0)
        assert main(["sweep", "--join", str(place), "--out", str(path), *map(str, arguments)]) == 0
        return Run(path)

    return join


def values(run):
    return Sweep(run).table().drop(columns="seconds")


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_a_worker_that_joins_tries_what_nobody_tries(storage, create, join, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'studies.db'}" if storage == "sqlite" else None
    first = create(tmp_path / "first", url)
    measured = []

    def measure_then(self, config, measure=SweepJobWorker.losses_of):
        measured.append((self.run.id, config.lambda1, config.learning_rate, config.steps))
        if len(measured) == 1:  # when the first worker is in the middle of its trial, the other one joins
            second = join(tmp_path / "second", url or first.path)
            monkeypatch.setattr(studies, "GRACE_SECONDS", 1e9)
            joined.append(second)
            monkeypatch.setattr(SweepJobWorker, "progress", lambda *_: None)
            study = Study(Sweep(second))
            trial = study.next()
            assert trial.number == 1, "the first is being tried"
            joined.append(study.values_of(trial))
            study.report(trial, 2, 1.0, {"stderr": 0.1, "seconds": 1.0})  # the best of all
            assert not study.is_worse(trial)
            study.report(trial, 4, 1.0, {"stderr": 0.1, "seconds": 1.0})
            study.end(trial, 1.0)
        return measure(self, config)

    joined = []
    monkeypatch.setattr(SweepJobWorker, "losses_of", measure_then)
    assert work(first.path) == 0, first.state()["error"]
    second, setting = joined
    assert setting not in {entry[1:3] for entry in measured} and {entry[0] for entry in measured} == {"first"}
    assert Sweep(first).best()["perplexity"] == 1.0 and len(Sweep(first).trials()) == 4
    assert Sweep(second).plan == Sweep(first).plan and Sweep(second).base == Sweep(first).base
    assert work(second.path) == 0, second.state()["error"]
    pd.testing.assert_frame_equal(values(second), values(first))
    assert second.table("events")["event"].tolist()[-1] == "done" and Sweep(second).files() == Sweep(first).files()


def test_two_workers_at_once_take_each_trial_once(create, join, tmp_path):
    """Processes of their own: what `proxsparse worker` does."""
    first = create(tmp_path / "first" / "sweep", rungs=1, lambdas=(0.01, 0.02, 0.04, 0.1))
    Study(Sweep(first))
    second = join(tmp_path / "second" / "sweep", first.path)
    processes = [run.start() for run in (first, second)]  # of two folders: neither waits for the other
    assert [process.wait(240) for process in processes] == [0, 0], (first.state(), second.state())
    pd.testing.assert_frame_equal(values(first), values(second))
    trials = Sweep(first).trials()
    assert len(trials) == 8 and (trials["state"] == "complete").all()
    workers = {trial.user_attrs["worker"] for trial in Study(Sweep(first)).trials()}
    assert workers <= {first.header()["created"], second.header()["created"]}


def test_whoever_is_not_heard_of_is_replaced_and_whoever_is_is_waited_for(create, join, tmp_path, monkeypatch):
    first = create(tmp_path / "first")
    dead = Study(Sweep(first))
    lost = dead.next()
    setting = dead.values_of(lost)
    dead.report(lost, 2, 50.0, {"stderr": 1.0, "seconds": 1.0})
    second = join(tmp_path / "second", first.path)
    other = Study(Sweep(second))
    taken = other.next()
    assert taken.number == 1 and other.next().number == 1, "its own, which was cut off, before any other"
    monkeypatch.setattr(studies, "GRACE_SECONDS", 0.0)
    beats = iter(range(5))
    for _ in range(4):
        lost.set_user_attr("beat", next(beats))
        assert not any(other._is_dead(trial) for trial in other.trials() if trial.number == 0)
    assert other._is_dead(other.trials()[0])
    other.end(taken, None)
    again = other.next()
    assert again.number == 0 and other.values_of(again) == setting and other.known(again) == {2: 50.0}
    assert other.is_mine(again) and not dead.is_mine(lost), "who comes back learns that it is no longer its trial"
    other.release(again)
    assert dead.next().number == 0, "what was let go anybody takes at once"


def test_a_worker_is_heard_of_while_it_works_and_while_it_is_paused(create, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "BEAT_SECONDS", 0.01)
    study = Study(Sweep(create(tmp_path / "run")))
    trial = study.next()
    with study.heard_of(trial):
        for wanted in (1, 3):
            while study.trials()[0].user_attrs.get("beat", 0) < wanted:
                threading.Event().wait(0.01)
    count = study.trials()[0].user_attrs["beat"]
    threading.Event().wait(0.1)
    assert study.trials()[0].user_attrs["beat"] == count, "and not afterwards"


def test_a_line_that_a_crash_has_torn_costs_nothing(create, tmp_path):
    run = create(tmp_path / "run")
    Study(Sweep(run))
    journal = run.path / "study.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"work')
    study = Study(Sweep(run))
    assert study.next().number == 0 and len(study.trials()) == 4
    lines = journal.read_bytes()
    assert lines.startswith(whole) and all(map(json.loads, lines.splitlines()))


def test_trials_that_were_not_all_enqueued_are_the_next_time(create, tmp_path):
    run = create(tmp_path / "run")
    whole = Sweep(run).settings()
    study = Study(Sweep(run)).study
    fixed = [trial.system_attrs["fixed_params"] for trial in study.get_trials()]
    assert fixed == whole
    lines = (run.path / "study.log").read_bytes().splitlines(keepends=True)
    (run.path / "study.log").write_bytes(b"".join(lines[:-2]))
    assert [trial.system_attrs["fixed_params"] for trial in Study(Sweep(run)).trials()] == whole


def test_nothing_is_unpickled(create, join, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    url = f"sqlite:///{tmp_path / 'studies.db'}"
    runs = [create(tmp_path / "journal"), create(tmp_path / "database", url)]
    with monkeypatch.context() as patch:
        patch.setattr(pickle, "loads", refuse)
        patch.setattr(pickle, "load", refuse)
        for run in runs:
            Study(Sweep(run)).next()
            assert asked_of(Sweep(run).storage, None)[0] == run.id
    with pytest.raises(ProxSparseError, match="in Redis, whose snapshots Optuna unpickles"):
        open_storage("redis://host:6379")


def test_other_weights_or_another_text_are_refused(create, join, job, tmp_path, text_file):
    first = create(tmp_path / "first", rungs=1, lambdas=(0.1,))
    assert work(first.path) == 0, first.state()["error"]
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text().swapcase())
    second = join(tmp_path / "second", first.path, "--corpus", other)
    assert Sweep(second).base == dataclasses.replace(job, corpus=str(other))
    assert work(second.path) == 2
    assert "The corpus here is not the one that the sweep began with" in second.state()["error"]


def test_what_cannot_be_joined_or_used_is_one_sentence(create, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///studies.db"
    run = create(tmp_path / "run", url)
    Study(Sweep(run))
    optuna.create_study(study_name="foreign", storage=url)
    (tmp_path / "text.log").write_text("no journal\nat all\n")
    (tmp_path / "odd.log").write_text('{"op_code": 0}\n[]\n')
    Journal(str(tmp_path / "empty.log"))
    secret = "postgresql://me:secret@host/studies"
    for arguments, words in (
        (["--join", str(tmp_path / "none")], "There is no study at"),
        (["--join", "text.log"], "is no journal of Optuna's that can be read"),
        (["--join", "odd.log"], "is no journal of Optuna's that can be read"),
        (["--join", "empty.log"], "There is no sweep in that storage: start one first"),
        (["--join", url], "That storage holds 2 studies: give --study, one of foreign, run"),
        (["--join", url, "--study", "foreign"], "The study 'foreign' is no sweep of proxsparse"),
        (["--join", url, "--study", "gone"], "There is no sweep 'gone' in that storage"),
        (["--join", url, "--study", "run", "--steps", "3", "--lambdas", "1"], "--lambdas, --steps: with --join these"),
        (["--join", "nonsense://host/x"], "check its URL|give the URL of a database"),
        (["--storage", "://"], "storage is '://': give the URL of a database"),
        (["--storage", secret], "holds a password, which would be written into the run: leave it out, and set $PROX"),
        (["--storage", "redis://host"], "storage is in Redis"),
    ):
        assert main(["sweep", "--out", str(tmp_path / "never"), *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert any(part in error for part in words.split("|")) and error.count("\n") == 1, error
        assert "secret" not in error and not (tmp_path / "never").exists()
    taken = create(tmp_path / "elsewhere" / "run", url)
    assert work(taken.path) == 2
    assert "There is a study 'run' in that storage already: give --join to work on it" in taken.state()["error"]
    unreachable = create(tmp_path / "unreachable", "postgresql://me@127.0.0.1:9/studies")
    assert work(unreachable.path) == 2 and "cannot be used" in unreachable.state()["error"]


def test_a_password_is_in_the_environment_and_in_no_file_or_message(create, tmp_path, monkeypatch):
    monkeypatch.setenv("PROXSPARSE_STORAGE_PASSWORD", "s3cret")
    opened = []

    def refuse(url):
        opened.append(url)
        raise RuntimeError(f"cannot connect to {url}")

    monkeypatch.setattr("proxsparse.runs.jobs.database.RDBStorage", refuse)
    run = create(tmp_path / "run", "postgresql://me@host/studies")
    assert work(run.path) == 2 and opened == ["postgresql://me:s3cret@host/studies"]
    assert "***" in run.state()["error"]
    assert not any(b"s3cret" in path.read_bytes() for path in run.path.rglob("*") if path.is_file())


def test_a_trial_that_a_worker_came_too_late_for_does_not_count(create, tmp_path):
    run = create(tmp_path / "run", rungs=1, lambdas=(0.1,))
    study = Study(Sweep(run))
    for _ in range(2):
        trial = study.next()
        study.values_of(trial)
        study.report(trial, 4, 9.0, {"stderr": 1.0, "seconds": 1.0})
        study.end(trial, 9.0)
    study.study.tell(study.study.ask(), state=TrialState.FAIL)  # as Optuna makes one where none waits any more
    assert study.next() is None and study.finished() == 2 == len(study.rows())
