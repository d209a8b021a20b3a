"""Comparisons: tables against numbers computed here, commands, crashes, and what is said about bad input."""

import dataclasses
import json
import math
import re
import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from waiting import until

from proxsparse import (
    CompareJob,
    Comparison,
    LearnConfig,
    LearnJob,
    MaskSet,
    ProxSparseError,
    Run,
    export_model,
    list_runs,
    load_model,
    load_windows,
    magnitude,
    prunable_layers,
    random_mask,
    sparsegpt,
    verify,
)
from proxsparse.cli import main
from proxsparse.evaluation.output_error import output_errors
from proxsparse.files import read_json, write_json
from proxsparse.models.forward import autocast
from proxsparse.runs import start_export
from proxsparse.runs.jobs.compare import CompareJobWorker
from proxsparse.runs.lock import held
from proxsparse.runs.manage import require_unused
from proxsparse.runs.readers.zero_shot import about_accuracies
from proxsparse.runs.recorder import Recorder
from proxsparse.runs.worker import work

NAMES = ("dense", "magnitude", "sparsegpt-update", "proxsparse", "first")
PROMPTS = ("abc", "hello")


pytestmark = pytest.mark.usefixtures("workers_inside")


@pytest.fixture(scope="module")
def lm(tiny_directory):
    return load_model(str(tiny_directory))


@pytest.fixture(scope="module")
def text(lm, text_file):
    return load_windows(str(text_file), lm.tokenizer, 16, 32)


@pytest.fixture(scope="module")
def learned_run(lm, tiny_directory, text_file, tmp_path_factory):
    """A run with masks; how they came about does not matter here."""

    def make(name, n=2, m=4, masks=True):
        job = LearnJob(str(tiny_directory), str(text_file), learn=LearnConfig(n=n, m=m))
        run = Run.create(job, tmp_path_factory.mktemp("runs") / name)
        if masks:
            Recorder(run).save_masks(3, random_mask(lm.model, None, n, m, seed=1).masks)
            Recorder(run).save_masks(4, random_mask(lm.model, None, n, m, seed=2).masks)
        return run

    return make


@pytest.fixture(scope="module")
def make_job(tiny_directory, text_file, learned_run):
    first = str(learned_run("first").path)

    def make(**changes):
        values = {
            "length": 16, "context": 32, "windows": 6, "calibration": 8, "steps": 40, "new_tokens": 5, "runs": (first,),
            "prompts": PROMPTS, "methods": ("magnitude", "sparsegpt-update", "proxsparse"),
        }  # fmt: skip
        return CompareJob(str(tiny_directory), str(text_file), **values | changes)

    return make


def create(job, path):
    return Run.create_kind("compare", {"compare": job.to_dict()}, path)


@pytest.fixture(scope="module")
def compared(make_job, tmp_path_factory):
    run = create(make_job(), tmp_path_factory.mktemp("compared") / "compared")
    assert work(run.path) == 0, run.state()["error"]
    return run


@pytest.fixture(scope="module")
def pruned(compared, lm, text):
    """{name: {layer: weight (out, in)}}, put together here from the masks on disk and the original weights."""
    layers = prunable_layers(lm.model)
    updated = sparsegpt(lm.model, text.calibration[:8], layers=layers).weights
    found = {"dense": {name: layer.matrix.clone() for name, layer in layers.items()}}
    for name in NAMES[1:]:
        masks = MaskSet.load(compared.path / "results" / name / "masks.safetensors")
        found[name] = {layer: found["dense"][layer] * mask.dense() for layer, mask in masks.items()}
    found["sparsegpt-update"] = updated
    return found


@pytest.fixture
def placed(lm):
    def place(weights):
        for name, layer in prunable_layers(lm.model).items():
            layer.matrix.copy_(weights[name])

    layers = prunable_layers(lm.model)
    before = {name: layer.matrix.clone() for name, layer in layers.items()}
    yield place
    place(before)


@torch.inference_mode()
def losses_of(model, windows):
    """float64 (count,), batches of four as `window_losses` takes."""
    means = []
    for batch in windows.split(4):
        with autocast(model.device, "auto"):
            logits = model(input_ids=batch).logits[:, :-1].float()
        likely = logits.log_softmax(-1).gather(-1, batch[:, 1:, None]).squeeze(-1)
        means.append(-likely.double().mean(1))
    return torch.cat(means).numpy()


def standard_error(values):
    return values.std(ddof=1) / math.sqrt(len(values))


def test_table_is_what_the_losses_say(compared, pruned, placed, lm, text):
    comparison = Comparison(compared)
    table, heldout, losses = comparison.table(), text.heldout[:6], {}
    for name, weights in pruned.items():
        placed(weights)
        losses[name] = losses_of(lm.model, heldout)
    assert comparison.ours == "first" and set(table["method"]) == set(NAMES)
    assert table["perplexity"].is_monotonic_increasing, "best first"
    for row in table.itertuples():
        mean, difference = losses[row.method].mean(), losses[row.method] - losses["first"]
        assert row.perplexity == pytest.approx(math.exp(mean), rel=1e-4)
        assert row.stderr == pytest.approx(math.exp(mean) * standard_error(losses[row.method]), rel=1e-3)
        assert row.ratio == pytest.approx(math.exp(difference.mean()), rel=1e-4)
        expected = math.exp(difference.mean()) * standard_error(difference)
        assert row.ratio_stderr == pytest.approx(expected, rel=1e-2, abs=1e-9)
        assert row.weights_changed == (row.method == "sparsegpt-update")
    by_name = table.set_index("method")
    assert by_name["seconds"][["magnitude", "sparsegpt-update", "proxsparse"]].gt(0).all()
    assert np.isnan(by_name["seconds"]["dense"]) and np.isnan(by_name["overlap"]["dense"])


def test_overlaps_are_those_of_the_dense_masks(compared):
    masks = {name: MaskSet.load(compared.path / "results" / name / "masks.safetensors") for name in NAMES[1:]}
    comparison, dense = Comparison(compared), {}
    for name, found in masks.items():
        dense[name] = {layer: mask.dense() for layer, mask in found.items()}
    overlaps, layers = comparison.overlaps(), comparison.layers().set_index(["method", "name"])
    for first in masks:
        for second in masks:
            shared = sum(int((dense[first][name] & dense[second][name]).sum()) for name in dense[first])
            kept = sum(int(dense[first][name].sum()) for name in dense[first])
            assert overlaps.loc[first, second] == pytest.approx(shared / kept)
        for name in dense[first]:
            shared = (dense[first][name] & dense["first"][name]).sum() / dense[first][name].sum()
            assert layers.loc[(first, name), "overlap"] == pytest.approx(shared.item())
    assert MaskSet.load(Run(comparison.job.runs[0]).masks()[4]).flips(masks["first"]) == dict.fromkeys(
        masks["first"], 0
    )


@torch.no_grad()
def test_output_errors_are_those_of_a_forward_pass(compared, pruned, lm, text):
    inputs = {}
    handles = [
        lm.model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: inputs.update({name: given[0].flatten(0, -2)})
        )
        for name in pruned["dense"]
    ]
    lm.model(input_ids=text.heldout[:6])
    for handle in handles:
        handle.remove()
    found, comparison = Comparison(compared).layers(), Comparison(compared)
    assert len(found) == (len(NAMES) - 1) * len(inputs)
    for row in found.itertuples():
        whole = inputs[row.name] @ pruned["dense"][row.name].t()
        error = inputs[row.name] @ (pruned["dense"][row.name] - pruned[row.method][row.name]).t()
        assert row.output_error == pytest.approx((error.norm() / whole.norm()).item(), rel=1e-2)
    means = found.groupby("method")["output_error"].mean()
    table = comparison.table().set_index("method")
    assert table["output_error"].drop("dense").to_dict() == pytest.approx(means.to_dict())
    assert found.groupby("block").size().tolist() == [28, 28]


def test_a_layer_of_zeros_has_no_output_error(text, tiny_directory):
    model = load_model(str(tiny_directory)).model
    layers = prunable_layers(model)
    name = next(iter(layers))
    layers[name].matrix.zero_()
    errors = output_errors(model, text.heldout[:2], layers, {"magnitude": magnitude(model, layers=layers)})["magnitude"]
    assert math.isnan(errors[0]) and all(0 < error < 1 for error in errors[1:])


@torch.no_grad()
def test_completions_are_greedy(compared, pruned, placed, lm):
    completions = Comparison(compared).completions()
    assert list(completions.columns) == list(NAMES) and list(completions.index) == list(PROMPTS)
    for name in ("dense", "proxsparse", "sparsegpt-update"):
        placed(pruned[name])
        for prompt in PROMPTS:
            ids = lm.tokenizer(prompt, return_tensors="pt")["input_ids"]
            begin = ids.shape[1]
            while ids.shape[1] < begin + 5 and ids[0, -1] != lm.tokenizer.eos_token_id:
                ids = torch.cat([ids, lm.model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
            assert completions.loc[prompt, name] == lm.tokenizer.decode(ids[0, begin:], skip_special_tokens=True)


def test_files_agree_with_the_tables(compared):
    comparison, path = Comparison(compared), compared.path
    table = comparison.table()
    assert comparison.files() == ["table.csv", "table.md", "table.parquet", "layers.csv", "figures"]
    pd.testing.assert_frame_equal(pd.read_csv(path / "table.csv"), table)
    pd.testing.assert_frame_equal(pd.read_parquet(path / "table.parquet"), table, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_csv(path / "layers.csv"), comparison.layers())
    words = (path / "table.md").read_text()
    best = table.iloc[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in words.splitlines() if line.startswith("|")]
    assert cells[0][:2] == ["method", "perplexity"] and {len(row) for row in cells} == {len(cells[0])}
    assert cells[2][:2] == [best["method"], f"{best['perplexity']:.1f} ± {best['stderr']:.1f}"]
    assert "2:4; perplexity on 6 held-out windows of 32 tokens of text.txt" in words and "**hello …**" in words
    figures = {"perplexity", "cost", "overlap", "output_error", "error_and_perplexity", "overlap_by_layer"}
    assert {file.stem for file in (path / "figures").glob("*.html")} == figures == set(comparison.figures())
    assert (path / "figures" / "plotly.min.js").is_file(), "the figures open without a network"


def test_a_comparison_is_no_run_that_learned(compared, learned_run, capsys):
    root = compared.path.parent
    assert [run.id for run in list_runs(root)] == ["compared"] and list_runs(root, kind="learn") == []
    with pytest.raises(ProxSparseError, match=r"Run compared learned no mask .*'compare'.*: choose another run"):
        compared.job()
    with pytest.raises(ProxSparseError, match="Run single compares nothing"):
        Comparison(learned_run("single"))
    path = str(compared.path)
    assert main(["fork", path, "--out", f"{path}-fork"]) == 2
    assert "learned no mask" in capsys.readouterr().err
    assert main(["resume", path]) == 2
    assert "is done" in capsys.readouterr().err
    assert main(["runs", "--root", str(root)]) == 0
    assert "compare" in capsys.readouterr().out


def test_a_method_is_exported_into_the_comparison_s_directory(compared):
    export = start_export(compared, "compact", "magnitude")
    assert export.path == compared.path / "exports" / "magnitude"
    until(lambda: not export.is_alive(), 120)
    assert export.state()["status"] == "done", (export.path / "worker.log").read_text()
    report, proof = read_json(export.path / "report.json"), verify(export.path / "model")
    assert report["format"] == "compact" and report["verification"]["ok"] and proof.ok
    provenance = read_json(export.path / "model" / "provenance.json")
    assert (provenance["run"], provenance["mask"], provenance["method"]) == (compared.id, "magnitude", "magnitude")
    assert compared.export() is None and compared.export("magnitude").path == export.path
    assert [each.path for each in compared.exports()] == [export.path]
    write_json(export.path / "state.json", export.state() | {"status": "running"})
    with held(export.path / "lock"), pytest.raises(ProxSparseError, match=r"export of run .* is being written"):
        require_unused(compared, "delete")
    write_json(export.path / "state.json", export.state() | {"status": "done"})
    for method, words in (
        (None, "none was given: give --method"), ("sparsegpt-update", "no mask on the original weights here"),
        ("../magnitude", "no mask on the original weights here"),
    ):  # fmt: skip
        with pytest.raises(ProxSparseError, match=words):
            start_export(compared, method=method)
    with pytest.raises(ProxSparseError, match="There is no method"):
        compared.export("../../elsewhere")


def test_the_mask_of_a_method_is_exported(compared, tmp_path, lm, capsys):
    export = ["export", str(compared.path), "--to", str(tmp_path / "sparse")]
    assert main([*export, "--method", "magnitude"]) == 0
    assert "Proven" in capsys.readouterr().out and verify(tmp_path / "sparse").ok
    masks, layers = magnitude(lm.model, None).masks, prunable_layers(load_model(str(tmp_path / "sparse")).model)
    for name, layer in prunable_layers(lm.model).items():
        assert torch.equal(layers[name].matrix, layer.matrix * masks[name].dense())
    card = (tmp_path / "sparse" / "README.md").read_text()
    row = Comparison(compared).table().set_index("method").loc["magnitude"]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if line.startswith("| ")]
    written = f"{row['perplexity']:.2f} ± {row['stderr']:.2f}"
    assert ["magnitude", "no text", "text.txt, held-out part", "6 × 32 tokens", written] in cells
    assert "made with magnitude" in card and len(cells) == 3, "a header, dense, and the method"

    assert main(["export", str(compared.path), "--to", str(tmp_path / "ours"), "--method", "first"]) == 0
    assert "made with ProxSparse (Liu" in (tmp_path / "ours" / "README.md").read_text()
    capsys.readouterr()
    for flags, words in (
        ((), "compares methods, and none was given: give --method and one of magnitude"),
        (
            ("--method", "sparsegpt-update"),
            "'sparsegpt-update' has no mask on the original weights here: give --method and one of magnitude, proxsparse, first.",
        ),
        (("--method", "magnitude", "--step", "3"), "have no steps: give --method instead"),
    ):
        assert main(["export", str(compared.path), "--to", str(tmp_path / "never"), *flags]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not (tmp_path / "never").exists()
    assert main(["export", Comparison(compared).job.runs[0], "--to", str(tmp_path / "never"), "--method", "wanda"]) == 2
    assert "leave --method out" in capsys.readouterr().err


def test_pause_resume_and_stop_then_nothing_is_measured_twice(make_job, tmp_path, monkeypatch, compared):
    run, seen = create(make_job(steps=3), tmp_path / "driven"), []
    measure = CompareJobWorker.measure

    def measure_then_pause(self, name, make):
        measure(self, name, make)
        if name == "magnitude":
            with pytest.raises(ProxSparseError, match="it takes no 'step'"):
                run.send("step")
            write_json(run.path / "commands" / "0.json", {"command": "step"})  # from elsewhere: ignored
            run.send("pause")

    def drive():
        until(lambda: run.state()["status"] == "paused" and not run.commands())
        measured = len(list((run.path / "results").glob("*/result.json")))
        time.sleep(0.3)
        seen.append((measured, len(list((run.path / "results").glob("*/result.json")))))
        run.send("resume")
        run.send("stop")

    helper = threading.Thread(target=drive)
    with monkeypatch.context() as patch:
        patch.setattr(CompareJobWorker, "measure", measure_then_pause)
        helper.start()
        assert work(run.path) == 0
    helper.join(60)
    assert seen == [(2, 2)], "it rests"
    assert run.state()["status"] == "stopped" and not (run.path / "table.csv").exists()
    events = run.table("events")["event"].tolist()
    assert events == ["measured", "measured", "ignored", "paused", "went on", "stopped"]
    comparison = Comparison(run)
    assert set(comparison.table()["method"]) == {"dense", "magnitude"} and comparison.ours is None
    assert "ratio" not in comparison.table() and "magnitude" in comparison.markdown()
    kept = (run.path / "results" / "magnitude" / "result.json").read_bytes()
    assert work(run.path) == 0 and run.state()["status"] == "done"
    assert (run.path / "results" / "magnitude" / "result.json").read_bytes() == kept
    assert run.table("events")["method"].dropna().tolist() == list(NAMES), "each once"


def test_killed_and_resumed_it_ends_with_the_same_table(make_job, tmp_path, compared):
    run = create(make_job(), tmp_path / "killed")
    worker = run.start()
    until(lambda: (run.path / "results" / "magnitude" / "result.json").is_file())
    worker.kill()
    worker.wait()
    assert run.state()["status"] == "interrupted"
    finished = {path: path.read_bytes() for path in (run.path / "results").glob("*/result.json")}
    assert 2 <= len(finished) < len(NAMES)
    assert work(run.path) == 0 and run.state()["status"] == "done"
    assert all(path.read_bytes() == content for path, content in finished.items())
    columns = ["seconds", "memory_GB"]
    table, undisturbed = (Comparison(each).table().drop(columns=columns) for each in (run, compared))
    pd.testing.assert_frame_equal(table, undisturbed, rtol=1e-3)


@pytest.fixture
def checkpoints(lm, tmp_path, text):
    """What other tools leave: a model with zeros, and one whose kept weights were updated as well."""
    export_model(lm, magnitude(lm.model).masks, tmp_path / "zeros", format="compact")
    layers = prunable_layers(lm.model)
    with sparsegpt(lm.model, text.calibration[:8], layers=layers).placed_in(layers):
        lm.model.save_pretrained(tmp_path / "updated")
    lm.tokenizer.save_pretrained(tmp_path / "updated")
    return tmp_path / "zeros", tmp_path / "updated"


def test_checkpoints_of_other_tools_join_the_table(make_job, checkpoints, compared, tmp_path, capsys):
    job, out = make_job(), tmp_path / "joined"
    command = [
        "compare", "--model", job.model, "--corpus", job.corpus, "--length", 16, "--context", 32, "--windows", 6,
        "--new-tokens", 5, "--prompts", *PROMPTS, "--masks", *checkpoints, "--out", out,
    ]  # fmt: skip
    assert main(list(map(str, command))) == 0
    said, comparison = capsys.readouterr().out, Comparison(out)
    table = comparison.table().set_index("method")
    assert set(table.index) == {"dense", "zeros", "updated"} and comparison.ours is None
    assert table["weights_changed"].to_dict() == {"dense": False, "zeros": False, "updated": True}
    expected = Comparison(compared).table().set_index("method")
    for name, method in (("zeros", "magnitude"), ("updated", "sparsegpt-update")):
        assert table.loc[name, "perplexity"] == pytest.approx(expected.loc[method, "perplexity"], rel=1e-4)
        assert table.loc[name, "output_error"] == pytest.approx(expected.loc[method, "output_error"], rel=1e-3)
        assert pd.isna(table.loc[name, "seconds"])
        assert set(completed := comparison.completions()[name]) and len(completed) == len(PROMPTS)
    assert f"zeros: the zeros of the checkpoint {checkpoints[0]}, proven to be 2:4 in all 14 layers." in said
    assert comparison.overlaps().loc["zeros", "updated"] == pytest.approx(
        Comparison(compared).overlaps().loc["magnitude", "sparsegpt-update"]
    )
    assert main(["export", str(out), "--method", "zeros", "--to", str(tmp_path / "again")]) == 0
    assert verify(tmp_path / "again").ok


def test_a_checkpoint_that_is_read_is_not_needed_any_more(make_job, checkpoints, tmp_path):
    run = create(make_job(methods=("magnitude",), runs=(), masks=tuple(map(str, checkpoints))), tmp_path / "resumed")
    assert work(run.path) == 0, run.state()["error"]
    columns = ["seconds", "memory_GB"]
    before = Comparison(run).table().drop(columns=columns)
    for directory in checkpoints:
        shutil.rmtree(directory)
    for name in ("zeros", "magnitude"):
        (run.path / "results" / name / "result.json").unlink()
    assert work(run.path) == 0, run.state()["error"]
    pd.testing.assert_frame_equal(Comparison(run).table().drop(columns=columns), before)


def test_a_checkpoint_that_is_no_mask_of_the_model_ends_the_comparison_at_once(make_job, tiny_directory, tmp_path):
    run = create(make_job(runs=(), masks=(str(tiny_directory),)), tmp_path / "ended")
    assert work(run.path) == 2
    assert run.state()["error"].startswith(f"{tiny_directory} is not sparse (0.0% of its weights are zero)")
    assert Comparison(run).results() == {}, "nothing was measured before"


def test_a_sparse_model_is_not_called_dense(make_job, lm, tmp_path, capsys, monkeypatch):
    export_model(lm, magnitude(lm.model).masks, tmp_path / "sparse")
    job = dataclasses.replace(make_job(methods=("magnitude",), runs=()), model=str(tmp_path / "sparse"))
    run = create(job, tmp_path / "compared")
    assert work(run.path) == 0, run.state()["error"]
    comparison, label = Comparison(run), "sparse (2:4 in 14 of 14 layers)"
    assert comparison.base == label and set(comparison.table()["method"]) == {label, "magnitude"}
    assert label in comparison.completions() and f"| {label} |" in comparison.markdown()
    assert "dense" not in comparison.markdown()
    assert main(["export", str(run.path), "--method", "magnitude", "--to", str(tmp_path / "again")]) == 0
    assert f"| {label} |" in (tmp_path / "again" / "README.md").read_text()
    capsys.readouterr()
    measure = ["eval", str(tmp_path / "sparse"), "--corpus", job.corpus, "--context", "32", "--windows", "2"]
    assert main(measure) == 0 and f"is {label}.\n" in capsys.readouterr().out
    assert main([*measure, "--json"]) == 0 and json.loads(capsys.readouterr().out)["sparsity"] == label

    def nothing_to_prune(model, m):
        raise ProxSparseError("It has no layers: choose another.")

    monkeypatch.setattr("proxsparse.layers.prunable_layers", nothing_to_prune)
    assert main(measure) == 0
    assert "is of unknown sparsity (It has no layers: choose another).\n" in capsys.readouterr().out


def test_tasks_are_asked_of_every_sparse_model(make_job, tmp_path, monkeypatch):
    def share_of_zeros(lm, tasks, progress):
        progress(0, 1, f"asking {tasks[0]}")
        zeros = [float((layer.matrix == 0).float().mean()) for layer in prunable_layers(lm.model).values()]
        share = sum(zeros) / len(zeros)
        plain, normalized = ({"accuracy": value, "stderr": None} for value in (share, share / 2))
        return {"letters": {"acc": plain, "acc_norm": normalized}, "plain": {"acc": plain}}

    monkeypatch.setattr("proxsparse.evaluation.zero_shot.accuracies", share_of_zeros)
    monkeypatch.setattr("proxsparse.evaluation.zero_shot.check_data", lambda tasks: None)
    run = create(make_job(methods=("magnitude", "sparsegpt-update"), runs=(), tasks=("letters",)), tmp_path / "asked")
    assert work(run.path) == 0, run.state()["error"]
    table, written = Comparison(run).table().set_index("method"), (run.path / "table.md").read_text()
    for column, sparse in {
        "acc on letters": 0.5, "acc_norm on letters": 0.25, "acc on plain": 0.5, "mean acc": 0.5, "mean acc_norm": 0.375,
    }.items():  # fmt: skip
        expected = {"dense": 0, "magnitude": sparse, "sparsegpt-update": sparse}
        assert table[column].to_dict() == pytest.approx(expected, abs=0.01)
        assert re.search(rf"\| {column} +\|", written)
    assert about_accuracies(["letters"]) in written


def test_from_the_command_line(make_job, tmp_path, command):
    job, out = make_job(), tmp_path / "from-cli"
    found = command(
        "compare", "--model", job.model, "--corpus", job.corpus, "--length", 16, "--context", 32, "--windows", 3,
        "--new-tokens", 0, "--run", job.runs[0], "--out", out, "--json",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result["status"] == "done" and {row["method"] for row in result["table"]} == {"dense", "first"}
    assert Comparison(out).completions().empty and Comparison(out).ours == "first"


def test_bad_input_is_one_sentence_and_exit_code_2(learned_run, make_job, tmp_path, tiny_directory, capsys):
    first, model = make_job().runs[0], ["--model", str(tiny_directory)]
    foreign = Run.create(LearnJob(), tmp_path / "foreign")
    Recorder(foreign).save_masks(1, random_mask(load_model(str(tiny_directory)).model, None).masks)
    for arguments, words in (
        (["--methods", "wander"], "There is no method 'wander': choose among random, magnitude"),
        (["--run", tmp_path / "nothing"], "There is no run at"),
        (["--run", learned_run("bare", masks=False).path], "Run bare has no masks yet: wait for"),
        (
            ["--run", learned_run("other", 1, 4).path],
            "The masks of run other are 1:4 and this comparison is 2:4: give its",
        ),
        (
            ["--run", foreign.path],
            f"Run foreign learned on the model embedded and this comparison is of {tiny_directory}",
        ),
        (["--methods", "maskllm", "--n", 8, "--m", 16], "8:16 has 12,870 patterns a group and maskllm"),
        (["--run", first, learned_run("first").path], "Two of the runs and checkpoints have the same name"),
        (["--run", learned_run("wanda").path], "has the name of a method: rename its directory"),
        (["--masks", tmp_path / "nothing"], "There is no directory"),
        (["--masks", tmp_path], "has no config.json: give --masks that of a sparse model"),
        (["--masks", first], "is a run: give it with --run, or export it"),
        (["--run", first, "--masks", tmp_path / "first"], "Two of the runs and checkpoints have the same name"),
        (["--methods", "magnitude", "--n", 4], "n is 4 and m is 4"),
        (["--methods", "magnitude", "--tasks", "./none.yaml"], "none.yaml': check the path"),
        (["--windows", -1], "windows is -1: give 0 or more"),
    ):
        out = tmp_path / "never"
        assert main(["compare", *model, *map(str, arguments), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not out.exists()


def test_what_gives_no_result_says_why_and_the_others_go_on(make_job, learned_run, tmp_path, lm):
    run = learned_run("foreign")
    masks = MaskSet.load(run.masks()[4])
    masks.pop(next(iter(masks)))
    Recorder(run).save_masks(5, masks)
    job = make_job(methods=("magnitude",), runs=(str(run.path), *make_job().runs))
    comparison = create(job, tmp_path / "foreign")
    assert work(comparison.path) == 0, comparison.state()["error"]
    found = Comparison(comparison)
    assert set(found.table()["method"]) == {"dense", "magnitude", "first"} and found.ours == "first"
    assert set(found.layers()["method"]) == {"magnitude", "first"}
    why = "Run foreign has masks of 13 layers and this comparison prunes 14"
    assert list(found.failures()) == ["foreign"] and why in found.failures()["foreign"]
    assert f"foreign gave no result. {why}" in (comparison.path / "table.md").read_text()


def test_a_run_that_is_measured_is_not_needed_any_more(make_job, learned_run, tmp_path):
    run = learned_run("gone")
    comparison = create(make_job(methods=("magnitude",), runs=(str(run.path),)), tmp_path / "resumed")
    assert work(comparison.path) == 0, comparison.state()["error"]
    columns = ["seconds", "memory_GB"]
    before = Comparison(comparison).table().drop(columns=columns)
    shutil.rmtree(run.path)
    shutil.rmtree(comparison.path / "results" / "magnitude")
    assert work(comparison.path) == 0, comparison.state()["error"]
    pd.testing.assert_frame_equal(Comparison(comparison).table().drop(columns=columns), before)


def test_the_text_has_to_be_the_one_it_began_with(make_job, tmp_path, text_file):
    text = tmp_path / "mine.txt"
    text.write_text(text_file.read_text())
    job = dataclasses.replace(make_job(methods=("magnitude",), runs=()), corpus=str(text))
    run = create(job, tmp_path / "changed")
    assert work(run.path) == 0, run.state()["error"]
    shutil.rmtree(run.path / "results" / "magnitude")
    text.write_text(text_file.read_text()[:-1])
    assert work(run.path) == 2
    assert run.state()["error"] == (
        "The text mine.txt is not the one that run changed began with: put that one back, or start anew."
    )


def test_a_run_that_learned_on_another_text_is_named(make_job, tmp_path, tiny_directory, text_file):
    text = tmp_path / "other.txt"
    text.write_text(text_file.read_text()[::-1])
    learn = LearnConfig(steps=2, metric_windows=2)
    run = Run.create(LearnJob(str(tiny_directory), str(text), length=16, context=32, learn=learn), tmp_path / "abroad")
    assert work(run.path) == 0, run.state()["error"]
    comparison = create(make_job(methods=(), runs=(str(run.path),)), tmp_path / "texts")
    assert work(comparison.path) == 0, comparison.state()["error"]
    found = Comparison(comparison)
    assert found.other_texts() == {"abroad": "other.txt"}
    assert "abroad learned on another text: other.txt." in found.markdown()
    row = found.table().set_index("method").loc["abroad"]
    assert row["seconds"] == pytest.approx(run.table("steps")["seconds"].sum())
