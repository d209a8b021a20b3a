"""Sweeps: which trials go on, what a resumed one repeats, what it writes, and what it never looks at."""

import dataclasses
import itertools
import json
import math

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, Sweep, load_model, load_windows, perplexity
from proxsparse.cli import main
from proxsparse.cli.main import build_parser
from proxsparse.cli.settings import job_from
from proxsparse.config import SweepPlan
from proxsparse.files import append_record
from proxsparse.methods import METHODS
from proxsparse.methods.result import Pruned
from proxsparse.runs.jobs.study import Study
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


def rungs_of(table):
    """{trial: perplexities at its rungs}, in the order of the trials."""
    return {trial: rows["perplexity"].tolist() for trial, rows in table.groupby("trial")}


def halved(rungs):
    """How many rungs each trial takes by asynchronous successive halving: on it goes when it is in the better half of all that came
    so far to where it stands."""
    reached, expected = [[] for _ in range(3)], []
    for values in rungs.values():
        for rung, value in enumerate(values):
            reached[rung].append(value)
            if sorted(reached[rung]).index(value) >= max(1, len(reached[rung]) // 2):
                break
        expected.append(rung + 1)
    return expected


def test_the_better_half_goes_on_with_twice_the_steps(swept):
    sweep = Sweep(swept)
    table, trials = sweep.table(), sweep.trials()
    rungs = rungs_of(table)
    assert len(trials) == sweep.plan.count == swept.state()["steps"] == swept.state()["step"] == 4
    assert sweep.steps() == [2, 4, 8] and table["steps"].eq(2 * 2 ** table["rung"]).all()
    settings = list(zip(trials["lambda1"], trials["learning_rate"], strict=True))
    assert sorted(settings) == [(lambda1, rate) for lambda1 in LAMBDAS for rate in RATES] != settings, "shuffled"
    assert [len(values) for values in rungs.values()] == halved(rungs)
    assert trials["state"].tolist() == ["complete" if len(values) == 3 else "pruned" for values in rungs.values()]
    assert {"complete", "pruned"} == set(trials["state"])
    assert trials["seconds"].sum() == pytest.approx(table["seconds"].sum())
    assert table["perplexity"].between(1, math.inf, inclusive="neither").all()
    assert sweep.best()["perplexity"] == min(values[2] for values in rungs.values() if len(values) == 3)
    pd.testing.assert_frame_equal(pd.read_csv(swept.path / "table.csv"), table)
    assert sweep.files() == ["table.csv", "figure.html", "parallel.html", "preset.json"]
    assert f"| 8       | {sweep.best()['lambda1']:g} " in sweep.markdown()


def test_optuna_itself_reads_the_study(swept):
    storage = JournalStorage(JournalFileBackend(str(swept.path / "study.log")))
    study = optuna.load_study(study_name="sweep", storage=storage)
    best = Sweep(swept).best()
    assert (study.best_trial.number, study.best_value) == (best["trial"], best["perplexity"])
    assert study.best_params == {"lambda1": best["lambda1"], "learning_rate": best["learning_rate"]}


def test_a_trial_is_a_run_of_its_own_judged_on_the_windows_set_apart(swept, base):
    lm = load_model(base.model)
    calibration = load_windows(base.corpus, lm.tokenizer, 16).calibration
    for _, trial in Sweep(swept).table().iloc[[0, 2]].iterrows():
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


def without_seconds(run):
    return Sweep(run).table().drop(columns="seconds")


def test_stopped_and_resumed_it_repeats_nothing_and_never_reads_the_held_out_text(create, swept, tmp_path, monkeypatch):
    def without_held_out(*arguments, **keywords):
        return dataclasses.replace(load_windows(*arguments, **keywords), heldout=None)

    run, measure = create(tmp_path / "resumed"), SweepJobWorker.losses_of
    taken = []

    def measure_then(self, config):
        taken.append((config.lambda1, config.learning_rate, config.steps))
        if len(taken) == limit:
            end()
        return measure(self, config)

    def crash():
        raise RuntimeError("the power fails")

    monkeypatch.setattr("proxsparse.text.load_windows", without_held_out)
    monkeypatch.setattr(SweepJobWorker, "losses_of", measure_then)
    limit, end = 2, lambda: run.send("stop")  # in the middle of a trial that has taken one rung
    assert work(run.path) == 0 and run.state()["status"] == "stopped"
    assert len(Sweep(run).table()) == 1 and Sweep(run).files() == []
    assert Sweep(run).table()["state"].tolist() == ["running"]
    limit, end = 6, crash
    assert work(run.path) == 2 and "the power fails" in run.state()["error"]
    assert len(Sweep(run).table()) == 4
    assert work(run.path) == 0 and run.state()["status"] == "done"
    assert len(taken) == len(set(taken)) + 2, "only the two that were cut off are taken again"
    pd.testing.assert_frame_equal(without_seconds(run), without_seconds(swept))


def test_killed_between_the_pruner_s_note_and_its_answer_it_decides_the_same(create, swept, tmp_path, monkeypatch):
    run, is_worse, lost = create(tmp_path / "killed"), Study.is_worse, set()

    def answer_lost(self, trial, cut_off):
        answer, asked = is_worse(self, trial, cut_off), (trial.number, len(self.known(trial)))
        if asked not in lost:
            lost.add(asked)
            raise RuntimeError("the power fails")
        return answer

    monkeypatch.setattr(Study, "is_worse", answer_lost)
    while run.state()["status"] != "done":
        work(run.path)
    assert len(lost) >= 4, "at every trial"
    pd.testing.assert_frame_equal(without_seconds(run), without_seconds(swept))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_sampler_stays_within_the_ranges_and_a_resumed_one_chooses_the_same(
    sampler, create, base, tmp_path, monkeypatch
):
    monkeypatch.setattr(SweepJobWorker, "losses_of", lambda self, config: [config.lambda1 + config.learning_rate] * 2)
    plan = {"sampler": sampler, "trials": 16, "pruner": "none", "rungs": 1}
    run, other = create(tmp_path / "first", **plan), create(tmp_path / "second", **plan)
    assert work(run.path) == 0, run.state()["error"]
    trials = Sweep(run).trials()
    assert len(trials) == 16 == trials[["lambda1", "learning_rate"]].drop_duplicates().shape[0]
    assert trials["lambda1"].between(*LAMBDAS).all() and trials["learning_rate"].between(*RATES).all()
    assert trials["lambda1"].median() < sum(LAMBDAS) / 2, "in the scale of logarithms"
    take, count = SweepJobWorker.take, itertools.count()

    def take_then(self, trial):
        yield from take(self, trial)
        if next(count) % 5 == 4:
            other.send("stop")

    monkeypatch.setattr(SweepJobWorker, "take", take_then)
    while other.state()["status"] != "done":
        assert work(other.path) == 0
    pd.testing.assert_frame_equal(without_seconds(other), without_seconds(run))


def test_pruners_of_optuna(create, tmp_path, monkeypatch):
    monkeypatch.setattr(SweepJobWorker, "losses_of", lambda self, config: [config.lambda1] * 2)
    shares = {}
    for pruner in ("halving", "hyperband", "none"):
        run = create(tmp_path / pruner, sampler="random", trials=24, pruner=pruner)
        assert work(run.path) == 0, run.state()["error"]
        table = Sweep(run).trials()
        shares[pruner] = (table["state"] == "complete").mean()
        assert table["lambda1"].idxmin() == table.loc[table["state"] == "complete", "perplexity"].idxmin()
    assert 0 < shares["halving"] < shares["hyperband"] < shares["none"] == 1


def test_a_setting_that_diverges_loses(create, base, tmp_path):
    job = dataclasses.replace(base, learn=dataclasses.replace(base.learn, loss_at="soft", clip=0.0))
    run = create(tmp_path / "diverging", job, rungs=2, lambdas=(0.02,), learning_rates=(1e30, 1e29, 1e-3))
    assert work(run.path) == 0, run.state()["error"]
    trials = Sweep(run).trials().set_index("learning_rate").sort_index(ascending=False)
    assert trials["state"].tolist() == ["pruned", "pruned", "complete"] and trials["rung"].tolist() == [0, 0, 1]
    assert trials["perplexity"].iloc[:2].eq(math.inf).all() and trials["perplexity"].iloc[2] < math.inf
    events = run.table("events")
    assert set(events.loc[events["event"] == "diverged", "learning_rate"]) == {1e30, 1e29}
    assert read_preset(run.path / "preset.json").learn.learning_rate == 1e-3
    assert "| inf " in Sweep(run).markdown()

    hopeless = create(tmp_path / "hopeless", job, rungs=1, lambdas=(0.02,), learning_rates=(1e30,))
    assert work(hopeless.path) == 2
    assert "1e+30: give lower learning rates" in hopeless.state()["error"]
    assert Sweep(hopeless).best() is None and Sweep(hopeless).files() == []


def test_a_sweep_of_before_optuna_is_read_and_not_gone_on_with(create, tmp_path):
    run = create(tmp_path / "former", rungs=2)
    values = [(0, 2, 0.005, 90.0), (0, 2, 0.1, 80.0), (1, 4, 0.1, 70.0)]
    for rung, steps, lambda1, value in values:
        row = {"rung": rung, "steps": steps, "lambda1": lambda1, "learning_rate": 1e-3, "perplexity": value}
        append_record(run.path / "trials.jsonl", row | {"stderr": 1.0, "seconds": 2.0})
    table = Sweep(run).table()
    assert table["trial"].tolist() == [0, 1, 1] and table["state"].tolist() == ["pruned", "complete", "complete"]
    assert Sweep(run).best()["perplexity"] == 70.0 and "| 4 " in Sweep(run).markdown()
    assert work(run.path) == 2
    assert "began with an earlier proxsparse" in run.state()["error"] and "start a new one" in run.state()["error"]


def test_without_optuna_one_sentence_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    for arguments in (["--storage", "sqlite:///a.db"], [], ["--join", "sqlite:///a.db"]):
        assert main(["sweep", "--out", str(tmp_path / "never"), *arguments]) == 2
        assert capsys.readouterr().err == "error: A sweep needs Optuna: pip install 'proxsparse[sweep]'.\n"
    assert not (tmp_path / "never").exists()


def test_from_the_command_line(base, tmp_path, capsys):
    command = [
        "sweep", "--model", base.model, "--corpus", base.corpus, "--length", 16, "--context", 32, "--steps", 2,
        "--metric-windows", 2, "--lambdas", 0.02, 0.02, 0.05, "--learning-rates", 1e-3, "--rungs", 1, "--set-apart", 4,
        "--out", tmp_path / "sweep", "--json",
    ]  # fmt: skip
    assert main([*map(str, command)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "done" and {trial["lambda1"] for trial in result["table"]} == {0.02, 0.05}
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
        (["sweep", "--sampler", "cmaes"], "invalid choice: 'cmaes'"),
        (["sweep", "--trials", "3"], "trials is 3 and the sampler grid, which tries every pair: leave trials out"),
        (["sweep", "--sampler", "tpe", "--trials", "0"], "trials is 0: give 1 or more"),
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
