"""Masks judged on texts that they were not made on: against perplexities computed here, stopped and resumed, and as it is shown."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
from made_runs import made_run
from tiny_models import tiny_text

from proxsparse import (
    CompareJob,
    Comparison,
    LearnConfig,
    LearnJob,
    MaskSet,
    ProxSparseError,
    Run,
    load_heldout,
    load_model,
    load_windows,
    perplexity,
    prunable_layers,
)
from proxsparse.cli import main
from proxsparse.files import append_record, read_json, write_json
from proxsparse.report.about import results
from proxsparse.report.curves import curves
from proxsparse.runs.jobs.compare import CompareJobWorker
from proxsparse.runs.jobs.learn import LearnJobWorker
from proxsparse.runs.manage import command_line
from proxsparse.runs.places import move
from proxsparse.runs.readers.judged import judged_table
from proxsparse.runs.worker import work

STEPS, WINDOWS = 3, 5
AROUND = {"length": 16, "context": 32, "windows": WINDOWS}


pytestmark = pytest.mark.usefixtures("workers_inside")


@pytest.fixture(scope="module")
def other_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "other.txt"
    path.write_text(tiny_text(seed=5), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def make_job(tiny_directory, text_file, other_file):
    def make(*texts, **changes):
        learn = LearnConfig(steps=STEPS, learning_rate=1e-2, metric_windows=2)
        around = AROUND | {"live_windows": 1, "evaluate_every": 0, "device": "cpu"} | changes
        return LearnJob(str(tiny_directory), str(text_file), **around, evaluate_on=texts or None, learn=learn)

    return make


@pytest.fixture(scope="module")
def learned(make_job, other_file, tmp_path_factory):
    """A finished run, judged on a file and on the bundled text of another kind."""
    run = Run.create(make_job(str(other_file), "bundled-other"), tmp_path_factory.mktemp("runs") / "learned")
    assert work(run.path) == 0, run.state()["error"]
    return run


@pytest.fixture(scope="module")
def compared(learned, tiny_directory, text_file, other_file, tmp_path_factory):
    job = CompareJob(
        str(tiny_directory), str(text_file), **AROUND, calibration=4, new_tokens=0, methods=("magnitude", "sparsegpt-update"),
        runs=(str(learned.path),), evaluate_on=("bundled-other", str(other_file)),
    )  # fmt: skip
    run = Run.create_kind("compare", {"compare": job.to_dict()}, tmp_path_factory.mktemp("compared") / "compared")
    assert work(run.path) == 0, run.state()["error"]
    return run


@pytest.fixture
def lm(tiny_directory):
    return load_model(str(tiny_directory), "cpu")


# The mathematics


def test_the_perplexities_are_those_of_the_masked_model_on_the_windows_of_each_text(learned, lm, text_file, other_file):
    table = judged_table(learned.table("judged").to_dict("records"))
    assert list(table["text"]) == ["other.txt"] * 2 + ["bundled-other"] * 2 and set(table["step"]) == {STEPS}
    corpus = load_windows(str(text_file), lm.tokenizer, 16, 32).corpus
    texts = {
        text.name: text.windows[:WINDOWS]
        for text in (
            load_heldout(str(other_file), lm.tokenizer, 32, learned_on=corpus),
            load_heldout("bundled-other", lm.tokenizer, 32),
        )
    }
    for mask in ("dense", "learned"):
        if mask == "learned":
            MaskSet.load(learned.masks()[STEPS]).apply_(prunable_layers(lm.model))
        for text, windows in texts.items():
            row = table[(table["text"] == text) & (table["mask"] == mask)].iloc[0]
            found = perplexity(lm.model, windows)
            assert (row["perplexity"], row["stderr"]) == pytest.approx((found.value, found.stderr), rel=1e-4)
            assert (row["windows"], row["context"]) == tuple(windows.shape) == (WINDOWS, 32)


def test_the_ratio_to_dense_is_paired():
    losses = {"dense": [3.0, 5.0, 4.0], "learned": [3.5, 5.7, 4.6]}
    record = {"step": 3, "text": "a", "sha256": "s", "context": 32}
    table = judged_table([record | {"mask": mask, "losses": values} for mask, values in losses.items()]).set_index(
        "mask"
    )
    difference = np.array(losses["learned"]) - losses["dense"]
    expected = math.exp(difference.mean())
    assert table.loc["learned", "ratio"] == pytest.approx(expected)
    assert table.loc["learned", "ratio_stderr"] == pytest.approx(expected * difference.std(ddof=1) / math.sqrt(3))
    assert table.loc["learned", "ratio_stderr"] < table.loc["learned", "stderr"] / table.loc["dense", "perplexity"]
    assert (table.loc["dense", "ratio"], table.loc["dense", "ratio_stderr"]) == (1, 0)


def test_of_a_text_that_became_another_one_and_of_a_mask_that_is_not_measured_yet_nothing_is_said():
    def record(mask, sha256):
        return {"step": 3, "text": "a", "mask": mask, "sha256": sha256, "context": 32, "losses": [1.0, 2.0]}

    assert judged_table([]).empty and judged_table([record("dense", "s")]).empty
    assert judged_table([record("dense", "s"), record("learned", "s"), record("dense", "t")]).empty
    newest = [record("dense", "s"), record("learned", "s"), record("dense", "t"), record("learned", "t")]
    assert list(judged_table(newest)["mask"]) == ["dense", "learned"]


def test_a_comparison_judges_every_method_and_pairs_it_with_ours(compared, learned):
    comparison = Comparison(compared)
    table, judged = comparison.table().set_index("method"), comparison.judged()
    assert list(judged) == ["bundled-other", "other.txt"] and comparison.ours == "learned"
    own = judged_table(learned.table("judged").to_dict("records")).set_index(["text", "mask"])
    for text, losses in judged.items():
        assert set(losses) == {"dense", "magnitude", "sparsegpt-update", "learned"}
        for name, values in losses.items():
            difference = np.array(values) - losses["learned"]
            ratio = math.exp(difference.mean())
            assert table.loc[name, f"perplexity on {text}"] == pytest.approx(math.exp(np.mean(values)))
            assert table.loc[name, f"ratio on {text}"] == pytest.approx(ratio)
            error = ratio * difference.std(ddof=1) / math.sqrt(WINDOWS)
            assert table.loc[name, f"ratio_stderr on {text}"] == pytest.approx(error)
        for name in ("dense", "learned"):  # the same windows and masks as in the run itself
            assert table.loc[name, f"perplexity on {text}"] == pytest.approx(
                own.loc[(text, name), "perplexity"], rel=1e-4
            )
    assert len({round(value, 3) for value in table["perplexity on other.txt"]}) == 4, "each under its own mask"


def test_of_a_text_that_changed_only_the_newest_counts(compared, tmp_path):
    run = Run(shutil.copytree(compared.path, tmp_path / "changed"))
    path = run.path / "results" / "dense" / "judged.json"
    newer = {"text": "other.txt", "sha256": "another", "context": 32, "losses": [1.0, 2.0]}
    write_json(path, [*read_json(path), newer])
    comparison = Comparison(run)
    assert comparison.judged()["other.txt"] == {"dense": [1.0, 2.0]}, "the others are not measured on it yet"
    table = comparison.table().set_index("method")
    assert table["perplexity on other.txt"].notna().to_dict()["dense"] and "ratio on other.txt" not in table
    assert "on other.txt" in comparison.markdown() and comparison.figures()["perplexity"]


# What is refused, and what is never judged on


@pytest.mark.parametrize("make", [LearnJob, CompareJob])
def test_nothing_learns_from_the_text_of_another_kind(make, learned):
    with pytest.raises(ProxSparseError, match=r"corpus is 'bundled-other', a text .* give mixed .*--evaluate-on"):
        make(corpus="bundled-other")
    before = read_json(learned.path / "run.json")
    with pytest.raises(ProxSparseError, match="nothing learns from"):
        move(learned, corpus="bundled-other")
    assert read_json(learned.path / "run.json") == before


def test_the_default_adds_the_text_of_another_kind_to_the_bundled_one_alone():
    for make in (LearnJob, CompareJob):
        assert make().judged_on == ("bundled-other",) and make(corpus="c4").judged_on == ()
        assert make(evaluate_on=()).judged_on == ()
        assert make(corpus="c4", evaluate_on=["bundled", "c4", "bundled"]).judged_on == ("bundled",), (
            "once, and not its own"
        )


def test_two_texts_of_one_name_and_too_many_are_refused():
    with pytest.raises(ProxSparseError, match=r"a/text.txt and b/text.txt have the same name: rename"):
        LearnJob(evaluate_on=("a/text.txt", "b/text.txt"))
    with pytest.raises(ProxSparseError, match="evaluate-on names 17 texts: give 16 or fewer"):
        LearnJob(evaluate_on=tuple(f"{number}.txt" for number in range(17)))
    with pytest.raises(ProxSparseError, match="have the same name"):
        CompareJob(corpus="a/text.txt", evaluate_on=("b/text.txt",))


def test_a_run_says_what_it_left_out(make_job, text_file, tmp_path):
    again = tmp_path / "again.txt"
    again.write_text(f"{text_file.read_text()}\n\n{tiny_text(2, seed=8)}", encoding="utf-8")
    run = Run.create(make_job(str(again)), tmp_path / "run")
    assert work(run.path) == 0, run.state()["error"]
    (event,) = run.table("events").query("event == 'not judged on what was learned on'").to_dict("records")
    assert event["text"] == "again.txt" and event["paragraphs"] == 16


def test_a_comparison_takes_only_what_none_of_its_runs_learned_on(
    tiny_directory, text_file, other_file, make_job, tmp_path
):
    run = Run.create(
        LearnJob(**make_job().to_dict() | {"corpus": str(other_file), "learn": make_job().learn}), tmp_path / "own"
    )
    assert work(run.path) == 0, run.state()["error"]
    job = CompareJob(
        str(tiny_directory), str(text_file), **AROUND | {"windows": 0}, new_tokens=0, methods=(), runs=(str(run.path),),
        evaluate_on=(str(other_file),),
    )  # fmt: skip
    compared = Run.create_kind("compare", {"compare": job.to_dict()}, tmp_path / "compared")
    assert work(compared.path) == 0, compared.state()["error"]
    (losses,) = Comparison(compared).judged().values()
    assert {len(values) for values in losses.values()} == {run.corpus()["heldout_tokens"] // 32}


# Stop, resume, and runs of before


def test_a_run_that_was_stopped_while_it_was_judged_does_not_measure_again(
    make_job, other_file, learned, tmp_path, monkeypatch
):
    run, measured = Run.create(make_job(str(other_file), "bundled-other"), tmp_path / "stopped"), []
    progress = LearnJobWorker.progress

    def stopping(self, done, total, what):
        if what.startswith("judging on other.txt, learned"):
            run.send("stop")
        if what.startswith("judging on"):
            measured.append(what)
        progress(self, done, total, what)

    with monkeypatch.context() as patch:
        patch.setattr(LearnJobWorker, "progress", stopping)
        assert work(run.path) == 0
    assert run.state()["status"] == "stopped"
    assert run.table("judged")[["text", "mask"]].to_numpy().tolist() == [["other.txt", "dense"]]
    assert judged_table(run.table("judged").to_dict("records")).empty
    measured.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            LearnJobWorker, "progress", lambda self, *about: measured.append(about[2]) or progress(self, *about)
        )
        assert work(run.path) == 0
    assert run.state()["status"] == "done"
    judging = list(dict.fromkeys(what for what in measured if what.startswith("judging")))
    assert judging == [
        f"judging on {name}, window"
        for name in ("other.txt, learned", "bundled-other, dense", "bundled-other, learned")
    ]
    assert not any("measuring perplexity" in what for what in measured), "nor what was measured before"
    tables = [judged_table(each.table("judged").to_dict("records")) for each in (run, learned)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)


def test_a_comparison_that_was_stopped_does_not_measure_again(compared, tmp_path, monkeypatch):
    run = Run.create_kind("compare", {"compare": compared.header()["compare"]}, tmp_path / "stopped")
    place, seen = CompareJobWorker.placed, []

    def placed(self, name):
        seen.append((name, len(read_json(self.directory(name) / "judged.json", default=[]))))
        if stop_at == seen[-1]:
            run.send("stop")
        return place(self, name)

    monkeypatch.setattr(CompareJobWorker, "placed", placed)
    stop_at = ("magnitude", 1)
    assert work(run.path) == 0 and run.state()["status"] == "stopped"
    before = {path: path.read_bytes() for path in run.path.glob("results/*/*.json")}
    assert seen == [("dense", 0), ("dense", 1), ("magnitude", 0), ("magnitude", 1)]
    seen.clear()
    stop_at = None
    assert work(run.path) == 0 and run.state()["status"] == "done"
    assert seen[0] == ("magnitude", 1) and ("dense", 0) not in seen and len(seen) == 5
    kept = run.path / "results" / "magnitude" / "judged.json"
    assert all(path.read_bytes() == content for path, content in before.items() if path != kept)
    drop = ["seconds", "memory_GB"]
    tables = [Comparison(each).table().drop(columns=drop) for each in (run, compared)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-3)


def test_runs_of_before_are_read(compared, tmp_path):
    run = made_run(tmp_path / "old", steps=2)
    header = read_json(run.path / "run.json")
    header["job"].pop("evaluate_on")
    write_json(run.path / "run.json", header)
    assert run.job().judged_on == ("bundled-other",) and run.table("judged").empty
    assert command_line(run).split()[:2] == ["proxsparse", "learn"] and "evaluate" not in command_line(run)
    assert [each.text for each in results(run)] == ["bundled, held-out part"] * 3
    job = {name: value for name, value in compared.header()["compare"].items() if name != "evaluate_on"}
    old = Run.create_kind("compare", {"compare": job | {"corpus": "bundled"}}, tmp_path / "compared")
    for name in ("dense", "magnitude"):
        result = read_json(compared.path / "results" / name / "result.json")
        write_json(old.path / "results" / name / "result.json", result)
    table = Comparison(old).table()
    assert len(table) == 2 and not [column for column in table if " on " in column]
    assert "on bundled-other" not in Comparison(old).markdown()


def test_a_damaged_line_is_left_out(learned, tmp_path):
    run = made_run(tmp_path / "run", steps=2)
    good = learned.table("judged").to_dict("records")[0]
    for record in (
        good | {"losses": []},
        good | {"losses": [1.0, None]},
        good | {"text": 3},
        good | {"context": None},
        good,
    ):
        append_record(run.path / "judged.jsonl", record)
    assert len(run.table("judged")) == 1


def test_a_text_that_is_gone_is_named_with_the_way_out(make_job, other_file, tmp_path, capsys):
    gone = tmp_path / "gone.txt"
    gone.write_text(tiny_text(seed=6), encoding="utf-8")
    run = Run.create(make_job(str(gone)), tmp_path / "run")
    gone.unlink()
    with pytest.raises(ProxSparseError, match=r"The text to judge on of run run is not at .*gone.txt, .*--evaluate-on"):
        run.start()
    move(run, [str(other_file)])
    assert run.job().judged_on == (str(other_file),)


def test_a_text_that_is_too_short_ends_the_run_before_it_learns(make_job, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("abc", encoding="utf-8")
    run = Run.create(make_job(str(short)), tmp_path / "run")
    assert work(run.path) == 2
    assert "short.txt has 3 tokens, too few for one window of 32" in run.state()["error"]
    assert run.table("steps").empty


# What is shown


def test_the_command_line_learns_and_says_on_which_text(
    learned, tiny_directory, text_file, other_file, tmp_path, capsys
):
    flags = ["--model", tiny_directory, "--corpus", text_file, "--length", 16, "--context", 32, "--windows", WINDOWS]
    flags += [
        "--steps",
        2,
        "--metric-windows",
        2,
        "--device",
        "cpu",
        "--evaluate-on",
        other_file,
        "--out",
        tmp_path / "run",
    ]
    assert main(["learn", *map(str, flags)]) == 0
    said = capsys.readouterr().out
    table = judged_table(Run(tmp_path / "run").table("judged").to_dict("records")).set_index("mask")
    row = table.loc["learned"]
    assert f"on {WINDOWS} held-out windows of 32 tokens of text.txt; the mask was learned on none of them" in said
    assert f"perplexity {row['perplexity']:>9.2f} ± {row['stderr']:.2f}, {row['ratio']:.2f} ± " in said
    assert f"on {WINDOWS} windows of 32 tokens of other.txt" in said and "bundled" not in said
    assert main(["eval", str(tiny_directory), "--corpus", "bundled-other", "--context", "32", "--windows", "2"]) == 0
    assert "on bundled-other: perplexity" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["learn", "compare"])
def test_bad_texts_are_one_sentence(verb, tiny_directory, text_file, tmp_path, capsys):
    for flags, words in (
        (["--corpus", "bundled-other"], "a text that masks are judged on and nothing learns from"),
        (["--evaluate-on", str(tmp_path / "missing.txt")], "missing.txt': check the path"),
    ):
        assert main([verb, "--model", str(tiny_directory), *flags, "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_the_card_names_the_text_learned_on_and_the_one_judged_on(learned, compared, tmp_path, capsys):
    def rows(*arguments):
        target = tmp_path / f"sparse-{len(arguments)}"
        assert main(["export", *map(str, arguments), "--to", str(target)]) == 0
        lines = (target / "README.md").read_text(encoding="utf-8").splitlines()
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]

    size = f"{WINDOWS} × 32 tokens"
    found = rows(learned.path)
    assert found[0] == ["mask", "made on", "judged on", "windows", "perplexity"]
    assert [row[:4] for row in found[1:]] == [
        ["dense", "no text", "text.txt, held-out part", size],
        ["magnitude", "no text", "text.txt, held-out part", size],
        ["learned", "text.txt", "text.txt, held-out part", size],
        ["dense", "no text", "other.txt", size],
        ["learned", "text.txt", "other.txt", size],
        ["dense", "no text", "bundled-other", size],
        ["learned", "text.txt", "bundled-other", size],
    ]
    table = judged_table(learned.table("judged").to_dict("records")).set_index(["text", "mask"])
    assert found[5][4].startswith(f"{table.loc[('other.txt', 'learned'), 'perplexity']:.2f} ± ")
    found = rows(compared.path, "--method", "learned")
    assert [row[:3] for row in found[1:]] == [
        [mask, made_on, text]
        for text in ("text.txt, held-out part", "bundled-other", "other.txt")
        for mask, made_on in (("dense", "no text"), ("learned", "text.txt"))
    ]


def test_the_report_has_a_row_for_each_text(learned):
    found = [(each.mask, each.text) for each in results(learned)]
    own = "text.txt, held-out part"
    assert found == [("dense", own), ("magnitude", own), ("learned", own)] + [
        (mask, text) for text in ("other.txt", "bundled-other") for mask in ("dense", "learned")
    ]


def test_the_files_of_a_comparison_have_the_texts(compared):
    comparison = Comparison(compared)
    table = pd.read_csv(compared.path / "table.csv")
    pd.testing.assert_frame_equal(table, comparison.table())
    words = (compared.path / "table.md").read_text(encoding="utf-8")
    header = next(line for line in words.splitlines() if line.startswith("|"))
    assert all(f"{name}on {text}" in header for text in comparison.judged() for name in ("", "over ours "))
    assert f"On other.txt: the same on {WINDOWS} windows of that text." in words
    drawn = {trace.name: trace for trace in comparison.figures()["perplexity"].data}
    for text in comparison.judged():
        assert list(drawn[f"on {text}"].x) == list(table[f"perplexity on {text}"])


def test_the_learning_curve_marks_the_further_texts_at_its_end(learned):
    (curve,) = (each for each in curves(learned) if each.id == "learning-curve")
    marks = {trace["name"]: trace for trace in curve.figure["data"] if " on " in trace["name"]}
    table = judged_table(learned.table("judged").to_dict("records"))
    assert list(marks) == [
        f"{name} on {text}" for text in ("other.txt", "bundled-other") for name in ("dense", "learned mask")
    ]
    for row, trace in zip(table.itertuples(), marks.values(), strict=True):
        assert trace["x"] == [STEPS] and trace["y"] == [pytest.approx(row.perplexity)]
    assert "Open marks: the mask at the end" in curve.reading
