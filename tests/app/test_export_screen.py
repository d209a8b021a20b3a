"""The Export screen: what it says before anything is written, and what is there afterwards."""

import pytest
from explorer import served
from made_runs import made_run
from playwright.sync_api import expect
from tiny_models import save_tiny_model
from waiting import until

from app.screens import export_parts
from app.screens.export import code
from app.views.export import export_view, key_of
from app.views.run import snapshot_of
from proxsparse import LearnConfig, LearnJob, Run
from proxsparse.files import read_json, write_json
from proxsparse.runs import start_bench, start_export
from proxsparse.runs.directory import numbered_file

HOSTILE = "<img src=x onerror=window.hurt=1>"


@pytest.fixture(scope="module")
def runs(text_file, tmp_path_factory):
    """A folder with a run that learned two steps, on a model with room for the timing's 544 tokens."""
    tiny_directory = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama", max_position_embeddings=1024)
    folder = tmp_path_factory.mktemp("runs")
    learn = LearnConfig(steps=2, metric_windows=2, distill=0.0)
    job = LearnJob(str(tiny_directory), str(text_file), length=16, context=32, windows=2, evaluate_on=(), learn=learn)
    run = Run.create(job, folder / "learned")
    run.start()
    until(lambda: run.state()["status"] == "done" and not run.is_alive(), 180)
    return folder


@pytest.fixture(scope="module")
def site(runs):
    with served(runs) as address:
        yield address


def seen(run, format="dense"):
    return export_view(snapshot_of(run), run.id, format)


def test_sizes_and_theory_are_there_before_anything_is_written(runs):
    view = seen(Run(runs / "learned"))
    assert view.can_start and not view.proven and view.sizes.keys() == {"dense", "compact"}
    formats = export_parts.formats(view)
    assert formats.count("computed from shapes") == 2 and "masked layers 53.1%" in formats
    speed = export_parts.speed(view)
    assert (
        "theory, not measured" in speed and f"{view.speed['speedup']:.2f}×" in speed and "Nothing was measured" in speed
    )
    assert "accelerate(model" in code(view, "dense") and 'load_compact("learned")' in code(view, "compact")
    assert key_of(snapshot_of(Run(runs / "learned")), "dense") != key_of(snapshot_of(Run(runs / "learned")), "compact")


def test_a_pattern_that_no_kernel_takes_promises_nothing(tmp_path):
    run = made_run(tmp_path / "run", steps=2)
    header = read_json(run.path / "run.json")
    header["job"]["learn"] |= {"n": 4, "m": 8}
    write_json(run.path / "run.json", header)
    view = seen(run)
    assert view.speed is None and "No kernel that we know of multiplies 4:8" in export_parts.speed(view)
    assert "accelerate" not in code(view, "dense") and "does not say how large" in export_parts.formats(view)


def test_names_are_no_html_in_any_part(tmp_path):
    """A run's records and reports are read from disk, where anybody may have written them."""
    run = made_run(tmp_path / "run", steps=2, model=f"/nowhere/{HOSTILE}")
    for name in ("masks", "export/model"):
        (run.path / name).mkdir(parents=True)
    numbered_file(run.path / "masks", 2).write_bytes(b"")
    view = seen(run)
    assert "<img" not in view.card[1].replace("\\<img", "") and not view.proven
    layer = {"name": HOSTILE, "rows": 1, "columns": 4, "groups": 1, "bad_groups": 0, "changed_weights": 0, "ok": True}
    report = {
        "bytes": 1, "files": [{"name": HOSTILE, "bytes": 1, "about": HOSTILE}], "format": "dense", "size": {"summary": HOSTILE},
        "speed": HOSTILE, "verification": {"ok": True, "summary": HOSTILE, "pattern": HOSTILE, "layers": [layer]},
    }  # fmt: skip
    timed = {"end_to_end": [{"part": HOSTILE, "tokens": 1, "dense_seconds": 1, "sparse_seconds": 1, "speedup": 1}]}
    write_json(
        run.path / "export" / "run.json",
        {"version": 1, "kind": "export", "created": "2026", "format": "dense", "step": 2},
    )
    write_json(run.path / "export" / "state.json", {"status": "done", "step": 2, "doing": ""})
    write_json(run.path / "export" / "report.json", report)
    write_json(run.path / "export" / "bench" / "run.json", {"version": 1, "kind": "bench", "created": "2026"})
    write_json(run.path / "export" / "bench" / "state.json", {"status": "done", "step": 0, "doing": ""})
    write_json(
        run.path / "export" / "bench" / "report.json", timed | {"device": HOSTILE, "summary": HOSTILE, "measured": True}
    )
    view = seen(run)
    for part in (export_parts.outcome, export_parts.speed, export_parts.formats):
        assert "<img" not in part(view)
    assert "1.00×" in export_parts.speed(view)


def test_an_export_is_timed_in_a_worker_and_the_result_stays_beside_it(runs):
    run = Run(runs / "learned")
    with pytest.raises(Exception, match="has no finished export to be timed"):
        start_bench(run)
    export = start_export(run, "dense")
    until(lambda: not export.is_alive(), 120)
    bench = start_bench(run)
    until(lambda: not bench.is_alive(), 180)
    assert bench.state()["status"] == "done", (bench.path / "worker.log").read_text()
    view = seen(run)
    assert bench.path == export.path / "bench" and view.timed["device"] and view.proven
    assert view.timed["summary"].split(";")[0] in export_parts.speed(view).replace("&#x27;", "'")
    start_export(run, "dense")
    until(lambda: not run.export().is_alive(), 120)
    assert run.export().bench() is None, "another export was not timed"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_a_visitor_sees_both_formats_exports_one_and_reads_its_card(site, runs, browser, width, theme):
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.goto(f"{site}/?screen=export&run=learned&__theme={theme}")
    tiles = page.locator("#export-formats .tile")
    expect(tiles).to_have_count(2)
    boxes = [tile.bounding_box() for tile in tiles.all()]
    assert (boxes[0]["y"] == boxes[1]["y"]) == (width > 1000), "side by side where there is room"
    page.get_by_label("Compact, without them: smaller on disk").check()
    page.locator("#export").click()
    expect(page.locator("#export-code")).to_contain_text("load_compact")
    expect(page.locator("#export-formats")).to_contain_text("written")
    expect(page.locator("#export-report")).to_contain_text("proven")
    page.locator("#export-card-fold button").first.click()
    expect(page.locator("#export-card h1")).to_have_text("tiny-llama, 2:4 sparse")
    expect(page.locator("#export-metadata")).to_contain_text("library_name: proxsparse")
    expect(page.locator("#export-card-title")).to_contain_text("as it was written")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


@pytest.mark.browser
def test_the_example_says_what_to_do_and_shows_no_code(site, browser):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(f"{site}/?screen=export&run=example")
    expect(page.locator("#export-report")).to_contain_text("Learn a mask of your own")
    expect(page.locator("#export-speed")).to_contain_text("1.65×")
    expect(page.locator("#export-formats")).to_contain_text("176.1 MB")
    expect(page.locator("#export-runtimes")).to_contain_text("vLLM had it and took it out")
    expect(page.locator("#export-code")).to_be_hidden()
    expect(page.locator("#export")).to_be_disabled()
    page.close()
