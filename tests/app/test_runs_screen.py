"""The Runs screen in a real browser."""

import pytest
from explorer import served
from made_runs import made_comparison, made_run
from playwright.sync_api import expect
from test_app import choose

pytestmark = pytest.mark.browser


def test_runs_are_renamed_and_deleted_from_the_page(tmp_path, browser):
    for name in ("first", "second"):
        made_run(tmp_path / name, steps=2)
    with served(tmp_path) as address:
        page = browser.new_page()
        page.goto(f"{address}/?run=first&screen=runs")
        table, command = page.locator("#runs-list"), page.locator("#runs-command")
        expect(table).to_contain_text("second")
        expect(command).to_contain_text("proxsparse learn --steps 5000")

        expect(page.locator("#runs-report a").first).to_have_attribute("href", "report/first.html")
        with page.expect_download(timeout=120_000) as kept:
            page.locator("#runs-report a").first.click()
        assert kept.value.suggested_filename == "first.html" and "first" in kept.value.path().read_text()[:2000]

        # The list tells of a run that was made elsewhere.
        made_run(tmp_path / "third", steps=2)
        expect(table).to_contain_text("third")

        page.locator("#runs-name input, #runs-name textarea").first.fill("better")
        page.locator("#runs-rename").click()
        expect(table).to_contain_text("better")
        page.wait_for_url("**/?*run=better*", timeout=120_000)

        # A question that was asked about one run is gone when another is chosen.
        page.locator("#runs-delete").click()
        expect(page.locator("#runs-confirm")).to_contain_text("Delete better for good")
        choose(page, "runs-chosen", "second")
        expect(page.locator("#runs-confirm")).to_be_hidden()
        page.locator("#runs-delete").click()
        expect(page.locator("#runs-confirm")).to_contain_text("Delete second for good")
        page.locator("#runs-confirm").click()
        expect(table).not_to_contain_text("second")
        assert not (tmp_path / "second").exists() and (tmp_path / "better").exists()
        page.close()


def test_a_comparison_is_opened_on_its_screen_without_loading_the_page_anew(tmp_path, browser):
    made_run(tmp_path / "learned", steps=2)
    made_comparison(tmp_path / "compared")
    with served(tmp_path) as address:
        page = browser.new_page()
        page.goto(f"{address}/?run=learned&screen=runs&chosen=compared")
        expect(page.locator("#runs-open a")).to_have_attribute("href", "?screen=compare&compare=compared")
        page.evaluate("window.sameDocument = true")
        page.locator("#runs-list").get_by_role("link", name="compared").click()
        expect(page.locator("#compare-table")).to_contain_text("proxsparse")
        page.go_back()
        expect(page.locator("#runs-open a")).to_be_visible()
        assert page.evaluate("window.sameDocument")
        page.close()
