"""Sweeps: which settings go on, what a resumed one repeats, what it writes, and what it never looks at."""

import dataclasses
import itertools
import json
import math

import pandas as pd
import pytest

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, Sweep, load_model, load_windows, perplexity
from proxsparse.cli import main
from proxsparse.cli.main import build_parser
from proxsparse.cli.settings import job_from
from proxsparse.config import SweepPlan
from proxsparse.methods import METHODS
from proxsparse.methods.result import Pruned
from proxsparse.runs.jobs.sweep import SweepJobWorker
from proxsparse.runs.presets import read_preset
from proxsparse.runs.worker import work

LAMBDAS, RATES, SET_APART = (0.005, 0.1), (1e-3, 1e-2), 6


pytestmark = pytest.mark.usefixtures("workers_inside")


@pytest.fixture(scope="module")
def base(tiny_directory, text_file):
    learn = LearnConfig(steps=8, metric_windows=2)
    return LearnJob(str(tiny_directory), str(text_file), length=16, context=32, learn=learn)


@pytest.fixture(scope="module")
def create(base):
    def create(path, job=base, **plan):
        values = {"rungs": 3, "windows": SET_APART, "lambdas": LAMBDAS, "learning_rates": RATES} | plan
        return Run.create_kind("sweep", {"sweep": job.to_dict(), "plan": SweepPlan(**values).to_dict()}, path)

    return create


@pytest.fixture(scope="module")
def swept(create, tmp_path_factory):
    run = create(tmp_path_factory.mktemp("sweeps") / "swept")
    assert work(run.path) == 0, run.state()["error"]
    return run


def settings(trials):
    return list(zip(trials["lambda1"], trials["learning_rate"], strict=True))


def test_the_better_half_goes_on_with_twice_the_steps(swept):
    sweep = Sweep(swept)
    trials = sweep.table()
    rungs = [trials[trials["rung"] == rung] for rung in range(3)]
    assert [len(rung) for rung in rungs] == [4, 2, 1] and len(trials) == sweep.total() == swept.state()["steps"]
    assert [rung["steps"].unique().tolist() for rung in rungs] == [[2], [4], [8]]
    assert settings(rungs[0]) == [(lambda1, rate) for lambda1 in LAMBDAS for rate in RATES]
    for below, rung in itertools.pairwise(rungs):
        assert settings(rung) == settings(below.sort_values("perplexity"))[: len(rung)]
    assert trials["perplexity"].between(1, math.inf, inclusive="neither").all()
    assert settings(rungs[2]) == [(sweep.best()["lambda1"], sweep.best()["learning_rate"])]
    pd.testing.assert_frame_equal(pd.read_csv(swept.path / "table.csv"), trials)
    assert sweep.files() == ["table.csv", "figure.html", "preset.json"]
    assert f"| 8       | {sweep.best()['lambda1']:g} " in sweep.markdown()


def test_a_trial_is_a_run_of_its_own_judged_on_the_windows_set_apart(swept, base):
    lm = load_model(base.model)
    calibration = load_windows(base.corpus, lm.tokenizer, 16).calibration
    for _, trial in Sweep(swept).table().iloc[[1, 6]].iterrows():
        config = dataclasses.replace(
            base.learn, steps=int(trial["steps"]), lambda1=trial["lambda1"], learning_rate=trial["learning_rate"]
        )
        found = METHODS["proxsparse"](lm.model, calibration[:-SET_APART], budget=config)
        assert isinstance(found, Pruned)
        found.masks.apply_(lm.model)
        measured = perplexity(lm.model, calibration[-SET_APART:])
        assert (trial["perplexity"], trial["stderr"]) == pytest.approx((measured.value, measured.stderr), rel=1e-3)
        lm = load_model(base.model)


def test_the_best_setting_is_a_preset_that_learn_reads(swept, base):
    best, path = Sweep(swept).best(), str(swept.path / "preset.json")
    learn = dataclasses.replace(base.learn, lambda1=best["lambda1"], learning_rate=best["learning_rate"])
    assert read_preset(path) == dataclasses.replace(base, learn=learn)
    arguments = build_parser().parse_args(["learn", "--preset", path, "--steps", "99", "--windows", "7"])
    expected = dataclasses.replace(base, learn=dataclasses.replace(learn, steps=99), windows=7)
    assert job_from(arguments) == expected


def test_stopped_and_resumed_it_repeats_nothing_and_never_reads_the_held_out_text(create, swept, tmp_path, monkeypatch):
    def without_held_out(*arguments, **keywords):
        return dataclasses.replace(load_windows(*arguments, **keywords), heldout=None)

    run, take = create(tmp_path / "resumed"), SweepJobWorker.take

    def take_then(self, *setting):
        if len(Sweep(run).table()) == limit and setting not in done:
            end()
        take(self, *setting)
        done.append(setting)

    def crash():
        raise RuntimeError("the power fails")

    monkeypatch.setattr("proxsparse.text.load_windows", without_held_out)
    with monkeypatch.context() as patch:
        patch.setattr(SweepJobWorker, "take", take_then)
        done, limit, end = [], 2, lambda: run.send("stop")
        assert work(run.path) == 0 and run.state()["status"] == "stopped"
        assert len(Sweep(run).table()) == 2 and Sweep(run).files() == []
        done, limit, end = [], 5, crash
        assert work(run.path) == 2 and "the power fails" in run.state()["error"]
        assert len(Sweep(run).table()) == 5
    before = (run.path / "trials.jsonl").read_bytes()
    assert work(run.path) == 0 and run.state()["status"] == "done"
    assert (run.path / "trials.jsonl").read_bytes().startswith(before)
    table, undisturbed = (Sweep(each).table().drop(columns="seconds") for each in (run, swept))
    pd.testing.assert_frame_equal(table, undisturbed)


def test_a_setting_that_diverges_loses(create, base, tmp_path):
    job = dataclasses.replace(base, learn=dataclasses.replace(base.learn, loss_at="soft", clip=0.0))
    run = create(tmp_path / "diverging", job, rungs=2, lambdas=(0.02,), learning_rates=(1e30, 1e29, 1e-3))
    assert work(run.path) == 0, run.state()["error"]
    trials = Sweep(run).table()
    assert trials["learning_rate"].tolist() == [1e30, 1e29, 1e-3, 1e-3], "of the better half, what has a loss"
    assert trials["perplexity"].iloc[:2].eq(math.inf).all() and trials["perplexity"].iloc[2:].lt(math.inf).all()
    event = run.table("events").iloc[0]
    assert event["event"] == "diverged" and event["learning_rate"] == 1e30
    assert read_preset(run.path / "preset.json").learn.learning_rate == 1e-3
    assert "| inf " in Sweep(run).markdown()

    hopeless = create(tmp_path / "hopeless", job, rungs=1, lambdas=(0.02,), learning_rates=(1e30,))
    assert work(hopeless.path) == 2
    assert "1e+30: give lower learning rates" in hopeless.state()["error"]
    assert Sweep(hopeless).best() is None and Sweep(hopeless).files() == []


def test_from_the_command_line(base, tmp_path, capsys):
    command = [
        "sweep", "--model", base.model, "--corpus", base.corpus, "--length", 16, "--context", 32, "--steps", 2,
        "--metric-windows", 2, "--lambdas", 0.02, 0.02, 0.05, "--learning-rates", 1e-3, "--rungs", 1, "--set-apart", 4,
        "--out", tmp_path / "sweep", "--json",
    ]  # fmt: skip
    assert main([*map(str, command)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "done" and [trial["lambda1"] for trial in result["table"]] == [0.02, 0.05]
    with pytest.raises(ProxSparseError, match=r"Run sweep learned no mask \(it is of the kind 'sweep'\)"):
        Run(tmp_path / "sweep").job()


def test_bad_input_is_one_sentence(create, base, tmp_path, capsys):
    presets = {
        "list.json": "[]", "pairs.json": '[["length", 16]]', "text.json": "λ", "unknown.json": '{"colour": 1}',
        "number.json": '{"learn": 3}', "bound.json": '{"learn": {"lambda1": -2}}',
        "future.json": '{"version": 2}',
    }  # fmt: skip
    for name, content in presets.items():
        (tmp_path / name).write_text(content)
    for arguments, words in (
        (["sweep", "--lambdas"], "expected at least one argument"),
        (["sweep", "--lambdas", "-1"], "lambda1 is -1: give 0 or more"),
        (["sweep", "--learning-rates", "0"], "learning_rate is 0|learning-rate is 0"),
        (["sweep", "--lambdas", "x"], "lambdas is 'x': give a number"),
        (["sweep", "--rungs", "0"], "rungs is 0: give 1 or more"),
        (["sweep", "--set-apart", "1"], "windows is 1: give 2 or more"),
        (
            ["sweep", "--steps", "3"],
            "steps is 3 and rungs 3, each of which takes half the steps of the next: give 4 steps",
        ),
        (["learn", "--preset", str(tmp_path / "none.json")], "There is no preset"),
        (["learn", "--preset", str(tmp_path)], "is no preset"),
        (["learn", "--preset", str(tmp_path / "bound.json")], "lambda1 is -2"),
        (["learn", "--preset", str(tmp_path / "unknown.json")], "There is no setting 'colour'"),
        (["learn", "--preset", str(tmp_path / "number.json")], "learn is 3: give the settings of the learner by name"),
        (
            ["learn", "--preset", str(tmp_path / "future.json")],
            "has the format version 2 and this proxsparse reads versions up to 1",
        ),
        *(
            (["learn", "--preset", str(tmp_path / name)], "is no preset")
            for name in ("list.json", "pairs.json", "text.json")
        ),
    ):
        out = tmp_path / "never"
        assert main([*arguments, "--out", str(out)]) == 2, arguments
        error = capsys.readouterr().err
        assert any(part in error for part in words.split("|")) and error.count("\n") == 1 and not out.exists()
    for changes in ({"lambdas": ()}, {"learning_rates": ()}):
        with pytest.raises(ProxSparseError, match="There is nothing to try: give at least one of"):
            SweepPlan(**changes)
    run = create(tmp_path / "long", windows=5000)
    assert work(run.path) == 2
    error = run.state()["error"]
    assert "too few to set 5000 apart: give more text or set fewer apart" in error and "\n" not in error
    with pytest.raises(ProxSparseError, match="is no sweep"):
        Sweep(Run.create(base, tmp_path / "learner"))
