"""The tour in a browser: what a stop speaks of is in sight and framed, and its card lies above the page."""

import pytest
from playwright.sync_api import expect

from app.tour import stops

pytestmark = pytest.mark.browser
IN_FRONT = """
() => { const box = document.querySelector('#tour section').getBoundingClientRect();
  return [0.1, 0.3, 0.5, 0.7, 0.9].every((y) => [0.1, 0.5, 0.9].every((x) =>
    document.elementFromPoint(box.left + x * box.width, box.top + y * box.height)?.closest('#tour'))); }
"""

CUT_OFF_BY = """
(element) => { const style = getComputedStyle(element), box = element.getBoundingClientRect();
  const out = parseFloat(style.outlineOffset) + parseFloat(style.outlineWidth);
  if (style.outlineStyle !== 'solid' || !box.width || !box.height) return ['there is no frame'];
  const found = [];
  for (let above = element.parentElement; above !== document.body; above = above.parentElement) {
    const cut = above.getBoundingClientRect(), {overflowX, overflowY} = getComputedStyle(above);
    if (overflowX !== 'visible' && (box.left - out < cut.left || box.right + out > cut.right)) found.push(above.id || above.className);
    if (overflowY !== 'visible' && (box.top - out < cut.top || box.bottom + out > cut.bottom)) found.push(above.id || above.className);
  }
  return found; }
"""


@pytest.mark.parametrize("width", [1440, 390])
def test_every_stop_shows_what_it_speaks_of(address, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{address}/?run=example")
    expect(page.locator("#banner")).not_to_be_empty()
    page.locator(".tour-open").click()
    for place, stop in enumerate(stops(), start=1):
        expect(page.locator("#tour h2")).to_have_text(stop.title)
        spoken_of = page.locator(stop.see).locator("visible=true").first
        expect(spoken_of).to_be_in_viewport()
        expect(spoken_of).to_have_attribute("data-toured", "")
        assert spoken_of.evaluate(CUT_OFF_BY) == [], f"the frame of stop {place} is seen whole"
        page.wait_for_function(IN_FRONT, timeout=120_000)
        if stop.title.startswith("One group"):
            expect(page.locator("#chart-masks-group .chart-title")).to_contain_text("its pattern changed")
        if place < len(stops()):
            page.locator(".tour-next").click()
    page.close()


def test_after_the_tour_one_is_where_one_was(address, browser):
    page = browser.new_page()
    page.goto(f"{address}/?run=example&screen=masks&colour=pattern")
    expect(page.locator("#chart-masks-tile .chart-title")).to_contain_text("Step 80")
    page.locator(".tour-open").click()
    expect(page.locator("#tour h2")).to_have_text(stops()[0].title)
    expect(page.locator("#chart-masks-tile .chart-title")).to_contain_text("Step 0")
    page.locator(".tour-close").click()
    expect(page.locator("#tour section")).to_be_hidden()
    expect(page.locator("#chart-masks-tile .chart-title")).to_contain_text("Step 80")
    assert "colour=pattern" in page.url and "tour=" not in page.url
    page.close()


def test_a_handler_is_given_the_event_that_it_asks_for():
    import inspect
    import typing

    import gradio as gr

    from app.shell import said_on_page

    def handler(id: str, event: gr.SelectData):
        return id, event

    wrapped = said_on_page(handler)
    assert list(inspect.signature(wrapped).parameters) == ["request", "id", "event"]
    hints = typing.get_type_hints(wrapped)
    assert hints["request"] is gr.Request and hints["event"] is gr.SelectData
