"""Renaming, deleting, sizes, and the command that makes a run again."""

import shlex

import pytest

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, list_runs
from proxsparse.cli.main import build_parser
from proxsparse.cli.settings import job_from
from proxsparse.config import CompareJob, SweepPlan
from proxsparse.files import write_json
from proxsparse.runs.lock import held
from proxsparse.runs.manage import command_line, delete, rename, size_on_disk


@pytest.fixture
def run(tmp_path):
    return Run.create(LearnJob(), tmp_path / "first")


def parsed(run):
    words = shlex.split(command_line(run))
    assert words[0] == "proxsparse"
    return build_parser().parse_args(words[1:])


def test_rename(run):
    second = rename(run, "second")
    assert [each.id for each in list_runs(second.path.parent)] == ["second"]
    Run.create(LearnJob(), second.path.parent / "third")
    with pytest.raises(ProxSparseError, match="already something named 'third'"):
        rename(second, "third")


@pytest.mark.parametrize("name", ["", ".", "..", "../else", "a/b", "/etc", ".hidden", "-x", "a" * 200, "a\n"])
def test_a_name_that_leads_elsewhere_is_refused(run, name):
    with pytest.raises(ProxSparseError, match="is no name of a run"):
        rename(run, name)
    assert run.path.is_dir()


def test_delete(run):
    (run.path / "masks").mkdir()
    (run.path / "masks" / "step-000001.safetensors").write_bytes(b"x" * 1000)
    assert size_on_disk(run) > 1000
    delete(run)
    assert list(run.path.parent.iterdir()) == []


@pytest.mark.parametrize("action", [lambda run: rename(run, "other"), delete])
def test_what_is_worked_on_is_neither_renamed_nor_deleted(run, action):
    write_json(run.path / "state.json", {"status": "running", "step": 1, "updated": 0})
    with held(run.path / "lock"), pytest.raises(ProxSparseError, match="is running: stop it first"):
        action(run)
    export = Run.create_kind("export", {"run": str(run.path), "step": 1, "format": "dense"}, run.path / "export")
    write_json(run.path / "state.json", {"status": "stopped", "step": 1, "updated": 0})
    with held(export.path / "lock"), pytest.raises(ProxSparseError, match="An export of run first is being written"):
        delete(run)
    write_json(run.path / "run.json", run.header() | {"recorded": True})
    with pytest.raises(ProxSparseError, match="is a recorded example"):
        action(run)
    assert run.path.is_dir()


@pytest.mark.parametrize(
    "job",
    [
        LearnJob(),
        LearnJob(
            "org/model",
            "my text.txt",
            windows=0,
            learn=LearnConfig(steps=7, lambda1=0.123456, relative=False, metric="weight"),
        ),
        LearnJob(evaluate_on=()),
        LearnJob("org/model", "my text.txt", evaluate_on=("bundled-other", "c4")),
        LearnJob(device="cpu", learn=LearnConfig(n=1, m=4, loss_at="soft", learning_rate=5e-5)),
    ],
)
def test_the_command_makes_the_same_job(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my text.txt").write_text("text")
    run = Run.create(job, tmp_path / "run")
    found = job_from(parsed(run))
    assert found.to_dict() | {"corpus": job.corpus} == job.to_dict()


def test_the_command_of_a_comparison_a_sweep_and_a_fork(tmp_path):
    job = CompareJob(methods=("wanda", "ria"), windows=3, prompts=("a b", "c"), evaluate_on=("bundled-other", "c4"))
    arguments = parsed(Run.create_kind("compare", {"compare": job.to_dict()}, tmp_path / "compared"))
    assert arguments.methods == ["wanda", "ria"] and arguments.windows == "3" and arguments.prompts == ["a b", "c"]
    assert arguments.evaluate_on == ["bundled-other", "c4"]
    plan, base = SweepPlan(lambdas=(0.1, 0.2), rungs=2), LearnJob(learn=LearnConfig(steps=8))
    content = {"sweep": base.to_dict(), "plan": plan.to_dict()}
    arguments = parsed(Run.create_kind("sweep", content, tmp_path / "swept"))
    assert arguments.lambdas == ["0.1", "0.2"] and arguments.rungs == "2" and job_from(arguments).learn.steps == 8
    parent = {"run": "parent", "step": 40, "changed": ["lambda1", "steps"]}
    job = LearnJob(learn=LearnConfig(lambda1=0.5, steps=99))
    fork = Run.create_kind("learn", {"job": job.to_dict(), "parent": parent}, tmp_path / "fork")
    assert "evaluate_on" not in parsed(fork)
    arguments = parsed(fork)
    assert (arguments.directory, arguments.step) == (str(tmp_path / "parent"), 40)
    assert (arguments.lambda1, arguments.steps) == ("0.5", "99")
