"""Keeping a folder of runs in order: rename, delete, size, and the command that makes a run again."""

import os
import shlex

import pytest
from filelock import FileLock

from proxsparse import CompareJob, LearnConfig, LearnJob, ProxSparseError, Run, list_runs
from proxsparse.cli import commands
from proxsparse.cli.main import build_parser
from proxsparse.cli.settings import job_from
from proxsparse.config import PRESETS, SweepPlan
from proxsparse.files import read_json, write_json
from proxsparse.runs.directory import numbered_file
from proxsparse.runs.manage import command_line, delete, rename, size_on_disk


def parsed(line):
    program, *words = shlex.split(line)
    assert program == "proxsparse"
    return build_parser().parse_args(words)


@pytest.fixture
def run(tmp_path):
    run = Run.create(LearnJob(learn=LearnConfig(steps=9)), tmp_path / "runs" / "first")
    write_json(run.path / "state.json", {"status": "stopped", "step": 4, "doing": "stopped"})
    checkpoint = numbered_file(run.path / "checkpoints", 4)
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"state" * 1000)
    return run


def work_on(run):
    """Hold the run as its worker does."""
    write_json(run.path / "state.json", {"status": "running", "step": 3, "doing": "prox half", "updated": 0})
    return FileLock(run.path / "lock")


@pytest.mark.parametrize(
    "job",
    [
        LearnJob(),
        LearnJob(model="org/some model; rm -rf $HOME", corpus="c4", device="cpu", evaluate_every=0),
        LearnJob(learn=LearnConfig(lambda1=0.123456789012345, learning_rate=1 / 3000, epsilon=1e-7, steps=123456)),
        LearnJob(learn=LearnConfig(relative=False, metric="weight", n=4, m=8, decay="none", warmup=0)),
        *PRESETS.values(),
    ],
)
def test_the_command_line_of_a_run_makes_the_same_job(tmp_path, job):
    run = Run.create(job, tmp_path / "run")
    assert job_from(parsed(command_line(run))) == job


def test_settings_at_their_default_are_left_out(tmp_path):
    assert command_line(Run.create(LearnJob(), tmp_path / "plain")) == "proxsparse learn"
    run = Run.create(LearnJob(learn=LearnConfig(steps=7, relative=False)), tmp_path / "changed")
    assert command_line(run) == "proxsparse learn --steps 7 --no-relative"


def test_the_command_line_of_a_fork_makes_the_same_fork(run, tmp_path):
    child = run.fork(tmp_path / "runs" / "second", steps=20, lambda1=0.123456789, learning_rate=1 / 3000)
    arguments = parsed(command_line(child))
    assert arguments.verb == "fork" and arguments.step == 4 and Run(arguments.directory).id == "first"
    given = {name: value for name, value in vars(arguments).items() if hasattr(LearnConfig(), name)}
    again = run.fork(tmp_path / "runs" / "third", arguments.step, **given)
    assert again.job() == child.job() and again.header()["parent"] == child.header()["parent"]


@pytest.mark.parametrize(
    "job",
    [
        CompareJob(),
        CompareJob(methods=("wanda", "magnitude"), windows=7, prompts=("Bridges are", 'It\'s $5 "each"')),
        CompareJob(methods=("random",), tasks=("piqa",), n=1, m=4),
    ],
)
def test_the_command_line_of_a_comparison_makes_the_same_one(tmp_path, monkeypatch, job):
    run = Run.create_kind("compare", {"compare": job.to_dict()}, tmp_path / "compared")
    assert made_by(command_line(run), monkeypatch, tmp_path)["compare"] == run.header()["compare"]


def test_the_command_line_of_a_comparison_of_runs(run, tmp_path, monkeypatch):
    numbered_file(run.path / "masks", 4).parent.mkdir()
    numbered_file(run.path / "masks", 4).write_bytes(b"masks")
    for methods in ((), ("wanda",)):
        job = CompareJob(methods=methods, runs=(str(run.path),))
        compared = Run.create_kind("compare", {"compare": job.to_dict()}, tmp_path / f"compared-{len(methods)}")
        assert made_by(command_line(compared), monkeypatch, tmp_path)["compare"] == compared.header()["compare"]


def test_the_command_line_of_a_sweep_makes_the_same_one(tmp_path, monkeypatch):
    plan = SweepPlan(rungs=2, windows=8, lambdas=(0.123456789, 1.0), learning_rates=(1 / 3000,))
    job = LearnJob(length=128, learn=LearnConfig(steps=40, batch=1))
    run = Run.create_kind("sweep", {"sweep": job.to_dict(), "plan": plan.to_dict()}, tmp_path / "sweep")
    made = made_by(command_line(run), monkeypatch, tmp_path)
    assert (made["sweep"], made["plan"]) == (run.header()["sweep"], run.header()["plan"])


def made_by(line, monkeypatch, tmp_path):
    """The header of the run that a command would start."""
    made = []
    monkeypatch.setattr(commands, "start", lambda run, arguments: made.append(run.header()) or 0)
    arguments = parsed(line)
    arguments.out = tmp_path / f"again-{len(list(tmp_path.iterdir()))}"
    arguments.run(arguments)
    return made[0]


def test_a_run_is_renamed(run):
    renamed = rename(run, "better.name_2")
    assert renamed.job().learn.steps == 9 and [each.id for each in list_runs(renamed.path.parent)] == ["better.name_2"]


@pytest.mark.parametrize(
    "name", ["", ".hidden", "..", "../up", "a/b", "/etc/x", "a\n", "-flag", "é", "a" * 129, "first"]
)
def test_a_name_that_is_taken_or_leads_elsewhere_is_refused(run, name):
    with pytest.raises(ProxSparseError):
        rename(run, name)
    assert run.path.is_dir() and os.listdir(run.path.parent) == ["first"]


def test_a_deleted_run_is_gone_and_its_forks_stay(run, tmp_path):
    child = run.fork(tmp_path / "runs" / "second", steps=20)
    delete(run)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["second"]
    assert child.checkpoints()[4].read_bytes() == b"state" * 1000


@pytest.mark.parametrize("act", [delete, lambda run: rename(run, "other")])
def test_a_run_that_is_worked_on_is_neither_renamed_nor_deleted(run, act):
    with work_on(run), pytest.raises(ProxSparseError, match="stop it first"):
        act(run)
    assert Run(run.path).id == "first"


@pytest.mark.parametrize("act", [delete, lambda run: rename(run, "other")])
def test_nor_is_one_whose_export_is_being_written(run, act):
    export = Run.create_kind("export", {"run": str(run.path), "step": 4, "format": "dense"}, run.path / "export")
    with work_on(export), pytest.raises(ProxSparseError, match="export"):
        act(run)
    assert Run(run.path).export().path == export.path


@pytest.mark.parametrize("act", [delete, lambda run: rename(run, "other")])
def test_nor_is_the_recorded_example(run, act):
    write_json(run.path / "run.json", read_json(run.path / "run.json") | {"recorded": True})
    with pytest.raises(ProxSparseError, match="recorded example"):
        act(run)
    assert Run(run.path).id == "first"


def test_a_run_is_not_listed_while_it_is_being_deleted(run, monkeypatch):
    listed = []

    def remove(path, **_):
        if not run.path.exists():
            listed.append([each.path.name for each in list_runs(run.path.parent)])

    monkeypatch.setattr("shutil.rmtree", remove)
    delete(run)
    assert listed == [[]]


def test_a_run_is_as_large_as_its_files(run):
    before = size_on_disk(run)
    (run.path / "masks").mkdir()
    (run.path / "masks" / "more").write_bytes(b"x" * 500)
    assert size_on_disk(run) == before + 500
    os.link(run.path / "masks" / "more", run.path / "masks" / "linked")
    os.symlink("/", run.path / "masks" / "elsewhere")
    assert size_on_disk(run) == before + 500, "one file under two names takes its room once"
