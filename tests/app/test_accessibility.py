"""What axe-core finds on the screens, in both themes: nothing. A screen that passes is added to SCREENS by its name."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SCREENS = {
    "learn": "#chart-heatmap .main-svg",
    "masks": "#chart-masks-composition .main-svg",
    "regularizer": "#reg-slice .main-svg",
    "try": "#try-cards .bars .point",
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
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing(address, browser, screen, theme):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(f"{address}/?screen={screen}&run=example&__theme={theme}")
    expect(page.locator(SCREENS[screen]).first).to_be_visible()
    assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    page.wait_for_timeout(1000)  # for what fades in
    assert findings(page) == []
    page.close()
