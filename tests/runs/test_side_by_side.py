"""Sweeps and comparisons by several processes, each with the whole model: the table of one, and nothing lost with a process."""

import shutil
import signal

import pandas as pd
import psutil
import pytest
from tiny_models import save_tiny_model, tiny_text
from waiting import until

from proxsparse import CompareJob, Comparison, LearnConfig, LearnJob, MaskSet, ProxSparseError, Run, Sweep
from proxsparse.cli import main
from proxsparse.config import SweepPlan
from proxsparse.files import write_json
from proxsparse.runs.jobs.side_by_side import answered, one
from proxsparse.runs.jobs.study import Study
from proxsparse.runs.launch import set_launch
from proxsparse.runs.readers.comparison import stages
from proxsparse.runs.worker import work

SECONDS = 500  # on a machine that does much else
COSTS = ["seconds", "memory_GB"]  # and no result


pytestmark = pytest.mark.usefixtures("workers_inside")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_model(folder / "model")
    for name, seed in (("text", 0), ("other", 5)):
        (folder / f"{name}.txt").write_text(tiny_text(seed=seed))
    return {
        name: str(folder / file) for name, file in (("model", "model"), ("corpus", "text.txt"), ("other", "other.txt"))
    }


@pytest.fixture(scope="module")
def sweep(places):
    """(directory, processes) → a new sweep of four trials."""

    def made(path, launch):
        learn = LearnConfig(steps=80, metric_windows=2)
        job = LearnJob(places["model"], places["corpus"], length=16, context=32, device="cpu", learn=learn)
        plan = SweepPlan(
            rungs=1, pruner="none", windows=4, lambdas=(0.01, 0.1), learning_rates=(1e-3, 1e-2), launch=launch
        )
        return Run.create_kind("sweep", {"sweep": job.to_dict(), "plan": plan.to_dict()}, path)

    return made


@pytest.fixture(scope="module")
def comparison(places):
    """(directory, processes) → a new comparison."""

    def made(path, launch):
        job = CompareJob(
            places["model"], places["corpus"], length=16, context=32, windows=6, calibration=8, steps=80, new_tokens=3,
            device="cpu", evaluate_on=(places["other"],), methods=("proxsparse", "proxsparse-paper", "magnitude", "wanda"),
            launch=launch,
        )  # fmt: skip
        return Run.create_kind("compare", {"compare": job.to_dict()}, path)

    return made


def ended(run, status="done"):
    until(lambda: run.state()["status"] in ("done", "failed", "stopped", "interrupted"), SECONDS)
    assert run.state()["status"] == status, run.state()
    until(lambda: not run.is_alive(), SECONDS)
    return run


def worked_on(run):
    """In this process."""
    assert work(run.path) == 0, run.state()["error"]
    return run


@pytest.fixture(scope="module")
def swept(sweep, tmp_path_factory):
    return worked_on(sweep(tmp_path_factory.mktemp("alone") / "sweep", 1))


@pytest.fixture(scope="module")
def compared(comparison, tmp_path_factory):
    return worked_on(comparison(tmp_path_factory.mktemp("alone") / "comparison", 1))


def helpers_of(run):
    """The processes beside the worker of a run, in the order in which it started them."""
    processes = psutil.Process(run.state()["pid"]).children()
    return sorted(
        (each for each in processes if "spawn_main" in " ".join(each.cmdline())), key=psutil.Process.create_time
    )


def held(run, at):
    """Wait until a run of two processes says what its second one is at, hold both there, and find them."""
    until(lambda: f"1: {at}" in run.state()["doing"], SECONDS)
    run.send("pause")
    until(lambda: run.state()["status"] == "paused", SECONDS)
    return helpers_of(run)


def assert_same_trials(run, other):
    pd.testing.assert_frame_equal(
        *(Sweep(each).table().drop(columns="seconds") for each in (run, other)), check_exact=True
    )
    assert Sweep(run).files() == Sweep(other).files()


def assert_same_results(run, other):
    mine, its = Comparison(run), Comparison(other)
    pd.testing.assert_frame_equal(*(each.table().drop(columns=COSTS) for each in (mine, its)), check_exact=True)
    pd.testing.assert_frame_equal(mine.layers(), its.layers(), check_exact=True)
    pd.testing.assert_frame_equal(mine.completions(), its.completions())
    assert mine.judged() == its.judged() and len(mine.judged()) == 1
    for name in mine.job.methods:
        masks, others = (MaskSet.load(each.masks_file(name)) for each in (mine, its))
        assert masks.keys() == others.keys() and not sum(masks.flips(others).values())


def test_a_sweep_finds_what_one_process_finds_though_a_process_is_killed(sweep, swept, tmp_path):
    run = sweep(tmp_path / "run", 2)
    run.start()
    helpers = held(run, at="trial")
    helpers[1].kill()
    run.send("resume")
    ended(run)
    assert_same_trials(run, swept)
    assert len(Sweep(run).table()) == 4 and Sweep(run).table()["perplexity"].nunique() == 4
    events = run.table("events")
    assert events["event"].tolist().count("process lost") == 1
    (why,) = events["why"].dropna()
    assert why.startswith("process 1 of 2 (from 0) was killed (SIGKILL) at '") and "another one does again" in why
    assert run.state()["device"].startswith("2 × cpu") and not any(each.is_running() for each in helpers)


def test_a_sweep_goes_on_after_all_processes_were_lost_after_its_worker_was_and_after_a_stop(sweep, swept, tmp_path):
    run = sweep(tmp_path / "run", 2)
    run.start()
    for helper in held(run, at=""):
        helper.kill()
    run.send("resume")
    error = ended(run, "failed").state()["error"]
    assert (
        "All 2 processes were lost, the last one at " in error and "was killed (SIGKILL)" in error and "\n" not in error
    )
    assert "resume goes on with what is not done" in error

    run.start()
    helpers = held(run, at="")
    psutil.Process(run.state()["pid"]).send_signal(signal.SIGKILL)
    ended(run, "interrupted")
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in helpers), SECONDS)

    run.start()
    helpers = held(run, at="")
    run.send("stop")
    ended(run, "stopped")
    assert len(helpers) == 2 and not any(each.is_running() for each in helpers)
    set_launch(run, 1)
    assert_same_trials(worked_on(run), swept)


def test_a_comparison_gives_what_one_process_gives_though_a_process_is_killed_and_it_is_stopped(
    comparison, compared, tmp_path
):
    run = comparison(tmp_path / "run", 2)
    run.start()
    helpers = held(run, at="proxsparse")
    assert list(Comparison(run).progress().values()).count("working") == 2
    helpers[1].kill()
    run.send("resume")
    until(lambda: "process lost" in run.table("events")["event"].tolist() and Comparison(run).results(), SECONDS)
    run.send("stop")
    ended(run, "stopped")
    kept = {path: path.read_bytes() for path in run.path.glob("results/*/result.json")}
    assert 1 <= len(kept) < 5 and not (run.path / "table.csv").exists()
    run.start()
    ended(run)
    assert_same_results(run, compared)
    assert all(path.read_bytes() == content for path, content in kept.items())
    events = run.table("events")
    assert sorted(events["method"].dropna()) == sorted(compared.table("events")["method"].dropna()), "each once"
    assert events["event"].tolist().count("process lost") == 1


def test_what_ends_one_process_ends_the_run_with_its_sentence(comparison, tmp_path):
    run = comparison(tmp_path / "run", 2)
    header = run.header()
    header["compare"]["methods"] = ["magnitude"]
    write_json(run.path / "run.json", header)
    (run.path / "results" / "magnitude" / "masks.safetensors" / "in the way").mkdir(parents=True)
    run.start()
    error = ended(run, "failed").state()["error"]
    assert "masks.safetensors" in error and "of run run cannot be read or written (Is a directory)" in error


def test_a_work_is_its_calls_and_is_sent_what_each_returned():
    def work():
        found.append((yield "first", 1))
        found.append((yield ("second",)))

    found, asked = [], work()
    assert answered(asked) == ("first", 1) and answered(asked, "a") == ("second",)
    assert answered(asked, "b") is None and found == ["a", "b"]
    assert answered(one("only", 1, 2)) == ("only", 1, 2)


@pytest.mark.parametrize(("launch", "working"), [(1, ["b"]), (2, ["b", "d"]), (9, ["b", "d", "e"])])
def test_which_methods_are_worked_on(launch, working):
    found = stages("abcde", {"a": "measured", "c": "failed"}, "running", launch)
    assert [name for name, word in found.items() if word == "working"] == working
    assert "working" not in stages("abcde", {"a": "measured"}, "stopped", launch).values()


def test_bad_input_is_one_sentence(places, sweep, comparison, tmp_path, capsys):
    for arguments, words in (
        (["--launch", "0"], "launch is 0: give from 1 to 1024 processes"),
        (["--launch", "-1"], "launch is -1: give from 1 to"),
        (["--launch", "4000"], "launch is 4000: give from 1 to"),
        (["--launch", "two"], "invalid int value: 'two'"),
        (["--launch", "2", "--device", "cuda:1"], "launch is 2 and device cuda:1, a single one: give cuda"),
    ):
        for verb in ("compare", "sweep"):
            assert main([verb, "--out", str(tmp_path / "never"), *arguments]) == 2, arguments
            error = capsys.readouterr().err
            assert words in error and error.count("\n") == 1 and not (tmp_path / "never").exists()
    for run in (sweep(tmp_path / "sweep", 2), comparison(tmp_path / "comparison", 2)):
        with pytest.raises(ProxSparseError, match="launch is 0: give from 1"):
            set_launch(run, 0)
        set_launch(run, 3)
    assert Sweep(Run(tmp_path / "sweep")).plan.launch == 3 and Sweep(Run(tmp_path / "sweep")).base.launch == 1
    assert Comparison(Run(tmp_path / "comparison")).job.launch == 3


def test_the_command_line_sets_it_for_the_whole_run_and_for_one_machine(
    places, compared, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("proxsparse.cli.commands.start", lambda run, arguments: 0)
    here = ["--model", places["model"], "--corpus", places["corpus"]]
    assert main(["sweep", *here, "--launch", "2", "--out", str(tmp_path / "first")]) == 0
    first = Sweep(tmp_path / "first")
    assert (first.plan.launch, first.base.launch) == (2, 1), "one process works on a trial"
    Study(first)
    for launch, flags in ((1, []), (3, ["--launch", "3"])):
        joined = tmp_path / f"joined-{launch}"
        assert main(["sweep", "--join", str(tmp_path / "first"), *flags, "--out", str(joined)]) == 0
        assert Sweep(joined).plan.launch == launch and Sweep(joined).base.launch == 1
    assert main(["sweep", "--join", str(tmp_path / "first"), "--launch", "0", "--out", str(tmp_path / "never")]) == 2
    assert "launch is 0" in capsys.readouterr().err

    assert main(["compare", *here, "--launch", "2", "--out", str(tmp_path / "compared")]) == 0
    assert Comparison(tmp_path / "compared").job.launch == 2
    added = shutil.copytree(compared.path, tmp_path / "added")
    assert main(["compare", "--add-to", str(added), "--methods", "ria", "--launch", "2"]) == 0
    assert Comparison(added).job.launch == 2 and "ria" in Comparison(added).job.methods
    export = Run.create_kind("export", {}, tmp_path / "export")
    with pytest.raises(ProxSparseError, match="One process works on run export, which is of the kind 'export'"):
        set_launch(export, 2)


@pytest.mark.parametrize("kind", ["sweep", "comparison"])
def test_more_processes_than_gpus_are_refused_before_anything_is_loaded(kind, request, places, tmp_path, monkeypatch):
    run = request.getfixturevalue(kind)(tmp_path / "run", 4)
    header = run.header()
    for name in {"sweep", "compare"} & header.keys():
        header[name]["device"] = "cuda"
    write_json(run.path / "run.json", header)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("proxsparse.models.load.load_model", None)
    assert work(run.path) == 2
    assert run.state()["error"] == "launch is 4 and this machine has 2 GPUs: resume with --launch 2, or fewer."
