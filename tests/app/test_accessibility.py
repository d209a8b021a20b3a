"""What axe-core finds on the screens, in both themes: nothing. A screen that passes is added to SCREENS by its name."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from explorer import served
from playwright.sync_api import expect
from test_sweep_screen import ROWS, made_sweep

pytestmark = pytest.mark.browser
SCREENS = {
    "learn": "#chart-heatmap .main-svg",
    "masks": "#chart-masks-composition .main-svg",
    "regularizer": "#reg-slice .main-svg",
    "try": "#try-cards .bars .point",
    "compare": "#chart-compare-network .main-svg",
    "sweep": "#sweep-elsewhere",
    "runs": "#runs-list",
    "export": "#export-speed .tile",
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
@pytest.mark.parametrize("width", (1440, 390))
def test_axe_finds_nothing_on_a_sweep_with_trials(tmp_path, browser, width, theme):
    made_sweep(tmp_path / "swept", ROWS, status="stopped")
    with served(tmp_path) as address:
        page = browser.new_page(viewport={"width": width, "height": 1000})
        page.goto(f"{address}/?screen=sweep&__theme={theme}")
        expect(page.locator("#chart-sweep-trials .main-svg").first).to_be_visible()
        expect(page.locator("#sweep-table button").first).to_be_visible()
        page.locator("#chart-sweep-trials .chart-table").click()
        page.wait_for_timeout(1000)
        assert findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off"
        page.close()


@pytest.mark.parametrize("theme", ("light", "dark"))
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing(address, browser, screen, theme):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(f"{address}/?screen={screen}&run=example&__theme={theme}")
    expect(page.locator(SCREENS[screen]).first).to_be_visible()
    assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    page.wait_for_timeout(1000)  # for what fades in
    assert findings(page) == []
    page.close()
