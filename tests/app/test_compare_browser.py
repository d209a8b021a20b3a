"""The Compare screen in a real browser, with a real worker: started, watched, reloaded, paused, added to, sorted."""

import zipfile

import pytest
from explorer import served
from playwright.sync_api import expect
from waiting import until

from proxsparse import Comparison, LearnConfig, LearnJob, MaskSet, Run, list_runs, verify
from proxsparse.config import METHODS
from proxsparse.runs.worker import work

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_directory, text_file):
    runs = tmp_path_factory.mktemp("site") / "runs"
    learn = LearnConfig(steps=3, metric_windows=2)
    job = LearnJob(str(tiny_directory), str(text_file), length=16, context=32, evaluate_on=(), learn=learn)
    Run.create(job, runs / "learned")
    assert work(runs / "learned") == 0
    with served(runs, "--allow", str(tiny_directory.parent), "--allow", str(text_file.parent)) as address:
        yield address, runs, str(tiny_directory), str(text_file)


@pytest.fixture
def page(browser, site):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{site[0]}/?screen=compare&run=learned")
    expect(page.locator("#compare-banner")).not_to_be_empty()
    yield page
    assert problems == []
    page.close()


def fill(page, name, value):
    page.locator(f"#compare-{name} input, #compare-{name} textarea").first.fill(str(value))


def type_into(page, name, value):
    """Into a dropdown that takes any text."""
    page.locator(f"#compare-{name} input").first.fill(value)
    page.locator(f"#compare-{name} input").first.press("Enter")


def check(page, *methods, form="compare", there=None):
    """Exactly these boxes of a form that was just opened, once all of them are there: `all` does not wait."""
    boxes = page.locator(f"#{form}-methods label")
    expect(boxes).to_have_count(there or len(METHODS))
    for label in boxes.all():
        label.locator("input").set_checked(label.inner_text().split(":")[0].strip() in methods)


def methods_in(page):
    return page.locator("#compare-table tbody tr td:first-child").all_inner_texts()


def add(page, *methods, lacking):
    """Open the form that adds to the comparison shown, and choose methods; lacking: how many are offered."""
    page.get_by_role("button", name="Add to the comparison shown").click()
    check(page, *methods, form="compare-more", there=lacking)


def test_a_comparison_is_started_watched_reloaded_sorted_and_added_to(page, site):
    _, runs, model, text = site
    page.get_by_role("button", name="New comparison").click()
    check(page, "magnitude", "maskllm")
    fill(page, "model", model)
    type_into(page, "corpus", text)
    page.locator("#compare-evaluate-on input").first.press("Backspace")  # nothing but the text's own held-out part
    for title in ("Text and measurement", "Methods that learn"):
        page.locator("#compare-new").get_by_role("button", name=title).click()
    for name, value in {
        "windows": 4,
        "context": 32,
        "length": 16,
        "calibration": 8,
        "new_tokens": 3,
        "steps": 400,
        "batch": 1,
    }.items():
        fill(page, name, value)
    page.locator("#compare-start").click()
    banner, table = page.locator("#compare-banner"), page.locator("#compare-table")
    expect(banner).to_contain_text("tiny-llama", timeout=60_000)  # no longer that of the recorded comparison
    expect(banner).to_contain_text("magnitude ✓", timeout=120_000)
    expect(table).to_contain_text("magnitude")

    # Paused in the middle of a method that learns; a page that is loaded anew shows the same one, and it goes on.
    page.locator("#compare-pause").click()
    expect(banner).to_contain_text("paused", timeout=60_000)
    expect(banner).to_contain_text("maskllm working")
    page.reload()
    expect(banner).to_contain_text("maskllm working")
    page.locator("#compare-resume").click()
    expect(banner).to_contain_text("done", timeout=240_000)
    run = next(run for run in list_runs(runs, "compare"))
    shown = Comparison(run).table()
    assert methods_in(page) == list(shown["method"])

    # A heading sorts, and the address keeps it.
    table.get_by_role("button", name="seconds").click()
    expect(page.locator("#compare-table th[aria-sort=ascending]")).to_contain_text("seconds")
    assert methods_in(page) == list(shown.sort_values("seconds", kind="stable")["method"])
    page.wait_for_url("**sort=seconds*")
    table.get_by_role("button", name="seconds").click()
    expect(page.locator("#compare-table th[aria-sort=descending]")).to_contain_text("seconds")

    # Something is added, and nothing measured twice.
    add(page, "wanda", lacking=len(METHODS) - 2)
    page.locator("#compare-more-runs input").click()
    page.get_by_role("option", name="learned", exact=True).click()
    page.keyboard.press("Escape")
    before = (run.path / "results" / "maskllm" / "result.json").stat().st_mtime_ns
    page.locator("#compare-add").click()
    expect(table).to_contain_text("wanda", timeout=120_000)
    expect(table).to_contain_text("learned", timeout=120_000)
    until(lambda: run.state()["status"] == "done")
    expect(banner).to_contain_text("done", timeout=60_000)
    assert (run.path / "results" / "maskllm" / "result.json").stat().st_mtime_ns == before
    assert Comparison(run).job.corpus == text and Comparison(run).ours == "learned"
    assert Comparison(run).job.judged_on == (), "the texts of the form for a new comparison are not taken along"


def test_a_mask_is_opened_beside_a_run_and_learned_from(page, site):
    _, runs, *_ = site
    run = next(run for run in list_runs(runs, "compare"))
    expect(page.locator("#compare-table")).to_contain_text("wanda")
    page.locator("#compare-table").get_by_role("button", name="wanda").click()
    link = page.get_by_role("link", name="Open its mask, beside that of run learned")
    expect(link).to_be_visible()
    page.evaluate("window.sameDocument = true")
    link.click()
    expect(page.locator("#chart-masks-layer .chart-title")).to_contain_text(f"that of wanda ({run.id}) differ in")
    assert page.evaluate("window.sameDocument"), "the page was not loaded anew"
    page.go_back()
    expect(page.locator("#compare-about")).to_contain_text("wanda")

    before = {each.id for each in list_runs(runs, "learn")}
    page.locator("#compare-learn").click()
    expect(page.locator("#banner")).to_contain_text("of 400", timeout=60_000)
    (started,) = [each for each in list_runs(runs, "learn") if each.id not in before]
    job = started.job()
    assert (job.model, job.corpus, job.learn.metric, job.learn.steps) == (site[2], site[3], "activation", 400)
    page.locator("#stop").click()
    until(lambda: started.state()["status"] in ("stopped", "done"))


def test_the_mask_of_a_row_is_exported_and_downloaded(page, site, tmp_path):
    _, runs, *_ = site
    run = next(run for run in list_runs(runs, "compare"))
    expect(page.locator("#compare-table")).to_contain_text("wanda")
    page.locator("#compare-table").get_by_role("button", name="wanda").click()
    page.locator("#compare-format").get_by_label("compact").check()
    page.locator("#compare-export").click()
    expect(page.locator("#compare-about")).to_contain_text("proven", timeout=120_000)
    with page.expect_download(timeout=120_000) as kept:
        page.locator("#compare-about a.download").click()
    assert kept.value.suggested_filename == f"{run.id}-wanda.zip"
    with zipfile.ZipFile(kept.value.path()) as archive:
        archive.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert verify(folder).ok
    given, made = (MaskSet.load(path / "masks.safetensors") for path in (folder, run.path / "results" / "wanda"))
    assert given.keys() == made.keys() and not any(given.flips(made).values())


def test_a_stopped_comparison_goes_on_where_it_was(page, site):
    _, runs, *_ = site
    run = next(run for run in list_runs(runs, "compare"))
    expect(page.locator("#compare-table")).to_contain_text("wanda")
    add(page, "proxsparse", lacking=len(METHODS) - 3)
    page.locator("#compare-add").click()
    expect(page.locator("#compare-banner")).to_contain_text("proxsparse working", timeout=120_000)
    page.locator("#compare-stop").click()
    expect(page.locator("#compare-banner")).to_contain_text("stopped", timeout=60_000)
    page.locator("#compare-resume").click()
    expect(page.locator("#compare-table")).to_contain_text("proxsparse", timeout=240_000)
    until(lambda: run.state()["status"] == "done")


def test_what_cannot_be_compared_is_said_and_nothing_starts(page, site):
    _, runs, *_ = site
    before = len(list_runs(runs))
    page.get_by_role("button", name="New comparison").click()
    check(page)
    page.locator("#compare-start").click()
    expect(page.get_by_text("There is nothing to compare")).to_be_visible()
    page.get_by_role("button", name="Add to the comparison shown").click()
    page.locator("#compare-add").click()
    expect(page.get_by_text("Nothing was chosen")).to_be_visible()
    assert len(list_runs(runs)) == before
