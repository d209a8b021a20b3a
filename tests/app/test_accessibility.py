"""What axe-core finds on the screens, in both themes: nothing."""

from contextlib import closing

import pytest
from axe_playwright_python.sync_playwright import Axe
from explorer import served
from playwright.sync_api import expect
from test_sweep_screen import ROWS, made_sweep

pytestmark = pytest.mark.browser
SCREENS = {
    "Learn": "#chart-heatmap .main-svg",
    "Masks": "#chart-masks-composition .main-svg",
    "Regularizer": "#reg-slice .main-svg",
    "Try it": "#try-cards .bars .point",
    "Compare": "#chart-compare-network .main-svg",
    "Sweep": "#sweep-elsewhere",
    "Runs": "#runs-list",
    "Export": "#export-speed .tile",
}  # name: what is drawn last on it


def findings(page):
    """One line for each element that a rule of axe-core is broken by."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]} | {' '.join((node['failureSummary'] or '').split())[:260]}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("theme", ("light", "dark"))
def test_axe_finds_nothing_on_a_sweep_with_trials(tmp_path, browser, theme):
    made_sweep(tmp_path / "swept", ROWS, status="stopped")
    with served(tmp_path) as address, closing(browser.new_page(viewport={"width": 1440, "height": 1000})) as page:
        page.goto(f"{address}/?screen=sweep&__theme={theme}")
        expect(page.locator("#chart-sweep-trials .main-svg").first).to_be_visible()
        expect(page.locator("#sweep-table button").first).to_be_visible()
        page.locator("#chart-sweep-trials .chart-table").click()
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(1000)
            assert findings(page) == [], f"{width} px wide"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off"


@pytest.mark.parametrize("theme", ("light", "dark"))
def test_axe_finds_nothing(address, browser, theme):
    with closing(browser.new_page(viewport={"width": 1440, "height": 1000})) as page:
        page.goto(f"{address}/?run=example&__theme={theme}")
        expect(page.locator("#banner")).not_to_be_empty()
        assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
        assert SCREENS.keys() == set(page.get_by_role("tab").all_inner_texts())
        for screen, last in SCREENS.items():
            page.get_by_role("tab", name=screen, exact=True).click()
            expect(page.locator(last).first).to_be_visible()
            page.wait_for_timeout(1000)  # for what fades in
            assert findings(page) == [], screen
