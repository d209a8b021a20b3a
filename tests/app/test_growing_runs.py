"""Snapshots of growing, cut and recreated runs, and what they cost."""

import json
import threading
import tracemalloc

import pytest
from made_runs import add_steps, made_run, measurement, set_state

from app import status
from app.live_plot import as_value
from app.views.listing import Listing
from app.views.run import RunView, snapshot_of
from proxsparse import figures
from proxsparse.files import Tail, append_record, keep_records
from proxsparse.runs.manage import delete
from proxsparse.runs.readers.records import BINS, LineIndex

STEPS, BLOCKS = 5000, 30  # 210 layers


def complete(snapshot):
    """Whether a snapshot fits together: every table has whole rows, up to the step it says."""
    table = snapshot.steps
    return (
        all(len(table[name]) == len(table) for name in table)
        and table["step"].tolist() == list(range(1, len(table) + 1))
        and not table.isna().any().any()
        and snapshot.newest == len(table)
    )


def test_many_readers_beside_a_run_that_grows(tmp_path):
    run = made_run(tmp_path / "growing", steps=1)
    stop, faults, looks = threading.Event(), [], []

    def write():
        for step in range(2, 400):
            add_steps(run, step, step)
            set_state(run, "running", step)
        stop.set()

    def read():
        try:
            while not stop.is_set():
                snapshot = snapshot_of(run)
                looks.append(len(snapshot.steps))
                assert complete(snapshot)
                assert snapshot.layer_record(snapshot.newest) is not None
                figures.composition(snapshot.curves())
        except Exception as error:  # a thread's exception would only be printed
            faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]
    assert len(set(looks)) > 5, "it was looked at while it grew"
    assert len(snapshot_of(run).steps) == 399


def test_a_snapshot_does_not_change_when_the_run_goes_on(tmp_path):
    run = made_run(tmp_path / "growing", steps=3)
    before = snapshot_of(run)
    add_steps(run, 4, 9)
    after = snapshot_of(run)
    assert (len(before.steps), before.newest) == (3, 3) and complete(before)
    assert (len(after.steps), after.newest) == (9, 9) and after.records > before.records


def test_a_run_that_was_cut_back_is_read_anew(tmp_path):
    run = made_run(tmp_path / "cut", steps=9)
    assert snapshot_of(run).newest == 9
    for name in ("steps", "layers"):
        keep_records(Tail(run.path / f"{name}.jsonl"), lambda record: record["step"] <= 4)
    snapshot = snapshot_of(run)
    assert snapshot.newest == 4 and complete(snapshot) and snapshot.layer_record(9)["step"] == 4


def test_readers_of_layers_beside_a_record_that_is_cut_back(tmp_path):
    run = made_run(tmp_path / "cut", steps=30)
    index, stop, faults = LineIndex(run.path / "layers.jsonl"), threading.Event(), []
    index.refresh()

    def cut_and_grow():
        try:
            for _ in range(150):
                keep_records(Tail(run.path / "layers.jsonl"), lambda record: record["step"] <= 2)
                index.refresh()
                add_steps(run, 3, 30)
                index.refresh()
        except Exception as error:
            faults.append(error)
        finally:
            stop.set()

    def read():
        try:
            while not stop.is_set():
                record = index.nearest(30)
                assert record is None or len(record["flips"]) == 14
        except Exception as error:  # a thread's exception would only be printed
            faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)] + [threading.Thread(target=cut_and_grow)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, repr(faults[0])


def test_a_torn_last_line_waits_until_it_is_whole(tmp_path):
    run = made_run(tmp_path / "torn", steps=3)
    index = LineIndex(run.path / "layers.jsonl")
    index.refresh()
    with open(run.path / "layers.jsonl", "a") as file:
        file.write('{"step": 4, "flips": [1')
        file.flush()
        index.refresh()
        assert index.nearest(4)["step"] == 3
        file.write(", 2]}\n")
    index.refresh()
    assert index.nearest(4) == {"step": 4, "flips": [1, 2]}


def test_a_run_made_anew_under_the_same_name_is_another(tmp_path):
    old = made_run(tmp_path / "same", steps=9)
    assert snapshot_of(old).newest == 9
    delete(old)
    new = made_run(tmp_path / "same", steps=2, total=77)
    snapshot = snapshot_of(new)
    assert snapshot.job.learn.steps == 77 and snapshot.newest == 2


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """5,000 steps of 210 layers, measured at every step: 140 MB of records."""
    run = made_run(tmp_path_factory.mktemp("long") / "long", blocks=BLOCKS, total=STEPS)
    add_steps(run, 1, STEPS)
    with open(run.path / "perplexity.jsonl", "a") as file:
        file.writelines(json.dumps(measurement(step, "learned")) + "\n" for step in range(1, STEPS + 1))
    set_state(run, "running", STEPS)
    return run


def test_layers_stay_on_disk(long_run):
    assert (long_run.path / "layers.jsonl").stat().st_size > 100e6
    tracemalloc.start()
    view = RunView(long_run.path)
    snapshot = view.snapshot()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert snapshot.newest == STEPS and snapshot.layer_record(1234)["step"] == 1234
    assert held < 30e6 and most < 60e6, (held, most)
    for quantity, (low, high) in snapshot.limits.items():
        assert low <= high, quantity


def test_charts_do_not_grow_with_the_run(long_run):
    snapshot = RunView(long_run.path).snapshot()
    steps = snapshot.curves()
    drawn = (
        figures.learning_curve(steps, snapshot.measurements()), figures.composition(steps),
        figures.flips(steps, snapshot.weights), figures.strength(steps),
        figures.layer_heatmap(snapshot.layers, snapshot.layer_record(STEPS), "drift", snapshot.limits["drift"]),
    )  # fmt: skip
    assert sum(len(as_value(figure)) for figure in drawn) < 150_000
    learned = snapshot.measurements().query("mask == 'learned'")
    assert len(learned) <= 3 * BINS + 1 and learned["step"].max() == STEPS
    assert steps["step"].iloc[0] == 1 and steps["step"].iloc[-1] == STEPS
    loss, whole = steps["loss"], snapshot.steps["loss"]
    assert (loss.min(), loss.max()) == pytest.approx((whole.min(), whole.max())), "the extremes are on the chart"


def test_the_list_reads_again_only_what_changed(tmp_path, monkeypatch):
    runs = [made_run(tmp_path / name, steps=2) for name in ("first", "second")]
    listing, read = Listing(tmp_path), []
    from app.views import listing as module

    real = module._row
    monkeypatch.setattr(module, "_row", lambda run: (read.append(run.id), real(run))[1])
    assert {row.id for row in listing.rows()} == {"first", "second"} and sorted(read) == ["first", "second"]
    listing.rows()
    assert len(read) == 2
    set_state(runs[0], "stopped", 2)
    rows = {row.id: row for row in listing.rows()}
    assert read[2:] == ["first"] and rows["first"].status == "stopped"
    delete(runs[1])
    assert [row.id for row in listing.rows()] == ["first"]


def test_a_loss_that_is_not_finite_is_shown_as_unknown(tmp_path):
    run = made_run(tmp_path / "diverged", steps=2)
    append_record(run.path / "steps.jsonl", {**read_last(run), "step": 3, "loss": float("nan")})
    assert "–" in status.tiles(snapshot_of(run))


def read_last(run):
    return run.table("steps").iloc[-1].to_dict()


def test_an_interrupted_run_says_from_where_it_goes_on(tmp_path):
    run = made_run(tmp_path / "lost", steps=5)
    set_state(run, "running", 5)
    assert "there is no checkpoint yet" in status.banner(snapshot_of(run), run.id)
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "step-000004.safetensors").write_bytes(b"state")
    assert "continues from the checkpoint of step 4" in status.banner(snapshot_of(run), run.id)
