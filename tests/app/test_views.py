"""What screens show: whole snapshots whatever is written meanwhile, bounded memory and charts, and no chart for a clock."""

import json
import shutil
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.operator import Operator
from app.shell import Shell
from app.views.listing import Listing
from app.views.run import RunView, snapshot_of
from proxsparse import LearnConfig, LearnJob, Run
from proxsparse.config import CompareJob, SweepPlan
from proxsparse.files import Tail, append_record, keep_records, read_json, write_json
from proxsparse.runs.manage import delete
from proxsparse.runs.readers.records import BINS, LineIndex, thinned

EXAMPLE = Path("assets/example-run")
STEP = json.loads((EXAMPLE / "steps.jsonl").read_text().splitlines()[0])
LAYERS = read_json(EXAMPLE / "layers.json")
MEASURED = json.loads((EXAMPLE / "perplexity.jsonl").read_text().splitlines()[0])


def make(root, name="run", steps=0):
    run = Run.create(LearnJob(learn=LearnConfig(steps=max(steps, 1))), root / name)
    write_json(run.path / "layers.json", LAYERS)
    write_json(
        run.path / "state.json", {"status": "running", "step": steps, "doing": "gradient half", "updated": time.time()}
    )
    lock = open(run.path / "lock", "ab")  # noqa: SIM115  (a worker's, held as long as the test)
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX)
    run.kept_alive = lock
    return run


def layer_line(step, count):
    row = {
        "step": step,
        **{f"nonzeros_{k}": [0.25] * count for k in (4, 3, 2, 1)},
        "regularizer": [1.5 + step] * count, "flips": [step] * count, "flips_from_start": [step] * count, "drift": [0.01] * count,
    }  # fmt: skip
    return json.dumps(row) + "\n"


@pytest.fixture
def long_run(tmp_path):
    """5,000 steps of 210 layers, written as a worker writes them."""
    run = make(tmp_path, steps=5000)
    count = len(LAYERS["layers"])
    assert count == 210
    with open(run.path / "layers.jsonl", "w") as file:
        file.writelines(layer_line(step, count) for step in range(1, 5001))
    generator = np.random.default_rng(0)
    with open(run.path / "steps.jsonl", "w") as file:
        for step in range(1, 5001):
            file.write(json.dumps(STEP | {"step": step, "loss": 4 + generator.normal()}) + "\n")
    append_record(run.path / "perplexity.jsonl", MEASURED | {"step": 0})
    return run


def test_a_table_is_never_read_while_it_grows(tmp_path):
    run, view, stop, problems = make(tmp_path), None, threading.Event(), []
    view = RunView(run.path)

    def look():
        while not stop.is_set():
            try:
                shown = view.snapshot()
                if len(shown.steps):
                    assert len(set(map(len, (shown.steps[name] for name in shown.steps)))) == 1
                    assert shown.steps["step"].tolist() == list(range(1, len(shown.steps) + 1))
                    assert shown.last["step"] == len(shown.steps) == shown.newest
                    assert shown.layer_record(shown.newest) is not None
                shown.curves()
            except Exception as error:
                problems.append(error)
                return

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(1, 151):
        append_record(run.path / "layers.jsonl", json.loads(layer_line(step, 210)))
        append_record(run.path / "steps.jsonl", STEP | {"step": step})
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(view.snapshot().steps) == 150


def test_a_snapshot_does_not_change(tmp_path):
    run = make(tmp_path)
    append_record(run.path / "steps.jsonl", STEP | {"step": 1})
    before = snapshot_of(run)
    append_record(run.path / "steps.jsonl", STEP | {"step": 2})
    after = snapshot_of(run)
    assert (len(before.steps), before.newest, len(after.steps), after.newest) == (1, 1, 2, 2)
    assert snapshot_of(run) is after, "nothing happened"


def test_a_run_made_anew_under_the_same_name_is_another_one(tmp_path):
    run = make(tmp_path)
    append_record(run.path / "steps.jsonl", STEP | {"step": 1})
    assert len(snapshot_of(run).steps) == 1
    run.kept_alive.close()
    write_json(run.path / "state.json", {"status": "stopped", "step": 1, "doing": "", "updated": 0})
    delete(run)
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    assert len(snapshot_of(make(tmp_path)).steps) == 0


def test_records_that_were_cut_back_are_read_again(tmp_path):
    run = make(tmp_path)
    for step in range(1, 6):
        append_record(run.path / "steps.jsonl", STEP | {"step": step})
        append_record(run.path / "layers.jsonl", json.loads(layer_line(step, 210)))
    assert snapshot_of(run).newest == 5
    for name in ("steps", "layers"):
        keep_records(Tail(run.path / f"{name}.jsonl"), lambda record: record["step"] <= 2)
    shown = snapshot_of(run)
    assert shown.newest == 2 and shown.layer_record(5)["step"] == 2


def test_the_layers_of_a_long_run_stay_on_disk(long_run):
    tracemalloc.start()
    shown = snapshot_of(long_run)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 40e6 < (long_run.path / "layers.jsonl").stat().st_size
    assert shown.layer_record(1234)["step"] == 1234
    assert shown.limits["flips"][1] == 5000 * max(
        pd.DataFrame(LAYERS["layers"]).groupby(["block", "projection"]).size()
    )


def test_what_a_viewer_is_sent_does_not_grow_with_the_run(long_run):
    shell = Shell(Operator(long_run.path.parent))
    shell.build()
    answer, values = tick(shell, long_run.id)
    charts = {part.elem_id: value for part, value in answer.items() if (part.elem_id or "").startswith("chart-")}
    assert len(charts) == 5 and sum(map(len, charts.values())) < 150_000
    # One step more of 5,000 moves no curve by a pixel.
    append_record(long_run.path / "steps.jsonl", STEP | {"step": 5001})
    append_record(long_run.path / "layers.jsonl", json.loads(layer_line(5001, 210)))
    answer, _ = tick(shell, long_run.id, values)
    assert sum(len(value) for value in answer.values() if isinstance(value, str)) < 6_000


def tick(shell, id, values=None, screen="learn"):
    """One tick of a page: what is sent, and what the page holds afterwards."""
    values = values or {part: part.value for part in shell.looking()["inputs"]}
    values |= {shell.id: id, shell.screen: screen, shell.filling: "[0, {}]", shell.asked: "[0, {}]"}
    answer = shell.show(values)
    answer = answer if isinstance(answer, dict) and "__type__" not in answer else {}
    held = {
        part: value["value"] if isinstance(value, dict) and "value" in value else value
        for part, value in answer.items()
    }
    return answer, values | {part: value for part, value in held.items() if part in values and part is not None}


def test_a_tick_in_which_only_the_clock_moved_redraws_nothing_but_the_banner(tmp_path):
    run = make(tmp_path, steps=3)
    for step in range(1, 4):
        append_record(run.path / "steps.jsonl", STEP | {"step": step})
        append_record(run.path / "layers.jsonl", json.loads(layer_line(step, 210)))
    shell = Shell(Operator(tmp_path))
    shell.build()
    first, values = tick(shell, run.id)
    assert sum((part.elem_id or "").startswith("chart-") for part in first) == 5
    answer, values = tick(shell, run.id, values)
    assert set(answer) <= {shell.seen}, "the slider has arrived where it was sent, and that is remembered"
    answer, values = tick(shell, run.id, values)
    assert answer == {}, "nothing happened"
    state = read_json(run.path / "state.json")
    write_json(run.path / "state.json", state | {"elapsed": 12.0, "remaining": 3.0, "updated": time.time()})
    answer, _ = tick(shell, run.id, values)
    kinds = {part.elem_id for part in answer if part.elem_id}
    assert "banner" in kinds and not any(name.startswith("chart-") for name in kinds)
    assert not kinds & {"tiles", "result", "log", "scrubber", "lambda-now", "setting-steps"}


def test_only_the_screen_in_sight_is_rendered(tmp_path):
    run = make(tmp_path)
    shell = Shell(Operator(tmp_path))
    shell.build()
    for screen in shell.screens:
        answer, _ = tick(shell, run.id, screen=screen.name)
        assert set(answer) <= {shell.seen, shell.runs, shell.address, shell.pulse, *screen.outputs} and set(
            answer
        ) & set(screen.outputs)


def test_thinning_leaves_rows_out_and_keeps_the_extremes():
    table = pd.DataFrame({"step": range(1, 10_001), "loss": np.sin(np.arange(10_000))})
    table.loc[7777, "loss"] = 99.0
    thin = thinned(table, "loss")
    assert len(thin) <= 3 * BINS + 1 and thin["loss"].max() == 99 and thin["step"].iloc[[0, -1]].tolist() == [1, 10_000]
    assert set(thin["step"]) <= set(table["step"]) and thin["step"].is_monotonic_increasing
    short = table.head(600)
    assert thinned(short, "loss")["step"].tolist() == short["step"].tolist()


def test_an_index_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "layers.jsonl"
    index = LineIndex(path)
    assert not index.refresh() and index.nearest(3) is None
    path.write_bytes(b'{"step": 1, "flips": [1]}\n{"step": 2, "flips"')
    assert not index.refresh() and index.steps == [1] and index.nearest(2) == {"step": 1, "flips": [1]}
    with open(path, "ab") as file:
        file.write(b': [2]}\n{\n{"step": 3, "flips": 3}\n')
    index.refresh()
    assert index.steps == [1, 2, 3] and index.left_out == 1
    assert index.nearest(9) == {"step": 2, "flips": [2]}, "a damaged line gives way to the nearest good one"
    path.unlink()
    assert index.refresh() and index.steps == []


def test_every_kind_of_run_is_listed(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "learned")
    Run.create_kind("compare", {"compare": CompareJob().to_dict()}, tmp_path / "compared")
    Run.create_kind("sweep", {"sweep": LearnJob().to_dict(), "plan": SweepPlan().to_dict()}, tmp_path / "swept")
    listing = Listing(tmp_path)
    rows = {row.id: row for row in listing.rows()}
    assert {row.kind for row in rows.values()} == {"learn", "compare", "sweep"}
    assert rows["learned"].result.startswith("perplexity ") and "22 windows" in rows["learned"].result
    assert rows["learned"].bytes == sum(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file())
    assert rows["swept"].command.startswith("proxsparse sweep --lambdas 0.05") and rows["compared"].result == ""
    again = {row.id: row for row in listing.rows()}
    assert all(again[id] is row for id, row in rows.items()), "what did not change is not read again"


def test_a_run_that_cannot_be_read_is_listed_with_the_reason(tmp_path):
    for name in ("good", "torn"):
        shutil.copytree(EXAMPLE, tmp_path / name)
    (tmp_path / "torn" / "run.json").write_text('{"kind": "le')
    rows = {row.id: row for row in Listing(tmp_path).rows()}
    assert rows["good"].kind == "learn" and rows["torn"].status == "unreadable"
    assert rows["torn"].result.startswith("run.json is damaged")
