"""The report in a real browser, opened from disk, with no network: nothing is asked for, and what is shown is the record."""

import numpy as np
import pytest
from made_runs import made_run
from pages import inside
from playwright.sync_api import expect
from recorded_run import recorded_run, unpacked
from tiny_models import tiny_model

from proxsparse import magnitude
from proxsparse.figures.tiles import COLORINGS
from proxsparse.report import write_report

pytestmark = pytest.mark.browser
STEPS = 5


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return recorded_run(tmp_path_factory.mktemp("recorded") / "learned", steps=STEPS)


@pytest.fixture(scope="module")
def report(recorded, tmp_path_factory):
    return write_report(recorded[0], tmp_path_factory.mktemp("page") / "run.html")


@pytest.fixture
def opened(browser):
    """Opens a file in a browser that is cut off; in the end nothing was asked for and nothing went wrong."""
    pages, asked, problems = [], [], []

    def open_file(path, **options):
        page = browser.new_page(offline=True, **({"viewport": {"width": 1440, "height": 1000}} | options))
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(path.as_uri())
        del asked[:1]  # the page itself
        return page

    yield open_file
    for page in pages:
        page.close()
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == []
    assert problems == []


def drawn(page):
    """The numbers of the tile's squares, once it is in sight and drawn."""
    page.locator("#chart-tile").scroll_into_view_if_needed()
    page.wait_for_function("() => !postponed.has('chart-tile')")
    return np.array(page.locator("#chart-tile").evaluate("node => node.data[0].z"))


def at_step(page, step):
    expect(page.locator("#at")).to_have_text(f"step {step} of {STEPS}", timeout=60_000)
    expect(page.locator("#title-tile")).to_contain_text(f"Step {step}:")


def ready(page):
    expect(page.locator("#chart-agreement .main-svg").first).to_be_visible(timeout=60_000)


def tile_of(run, layer):
    return inside({"tile": run.tile_position(layer)})


def test_scrubbing_shows_the_mask_of_each_step(recorded, report, opened):
    run, masks = recorded
    page, layer = opened(report), run.history().layers[0]
    ready(page)
    for step in range(STEPS, 0, -1):
        at_step(page, step)
        assert (drawn(page) == masks[step][layer][tile_of(run, layer)]).all()
        page.keyboard.press("ArrowLeft")
    at_step(page, 0)
    page.keyboard.press("Space")  # plays, and stops at the end
    at_step(page, STEPS)
    expect(page.locator("#play")).to_have_text("Play")
    page.locator("#step").fill("2")
    at_step(page, 2)
    assert (drawn(page) == masks[2][layer][tile_of(run, layer)]).all()
    expect(page.locator("#title-layers")).to_contain_text("Step 2: pattern share")


def test_a_chart_out_of_sight_is_drawn_when_it_comes_into_sight_or_is_printed(recorded, report, opened):
    page = opened(report, viewport={"width": 1440, "height": 300})
    ready(page)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_function("() => !inSight.has('chart-agreement')")
    page.evaluate("goTo(1)")
    waits = "() => postponed.has('chart-agreement')"
    line = "() => find('chart-agreement').layout.shapes[0].x0"
    assert page.evaluate(waits) and page.evaluate(line) == STEPS
    page.locator("#chart-agreement").scroll_into_view_if_needed()
    page.wait_for_function("() => !postponed.has('chart-agreement')")
    assert page.evaluate(line) == 1
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_function("() => !inSight.has('chart-agreement')")
    page.evaluate("goTo(2)")
    assert page.evaluate(waits)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.evaluate(waits) and page.evaluate(line) == 2


def test_from_the_map_to_a_layer_to_a_group(recorded, report, opened):
    run, masks = recorded
    page = opened(report)
    ready(page)
    last = run.history().layers[-1]
    page.locator("#layer").fill(last.upper()[-20:])
    page.locator("#layer").press("Enter")
    expect(page.locator("#layer")).to_have_value(last)
    at_step(page, STEPS)
    assert (drawn(page) == masks[STEPS][last][tile_of(run, last)]).all()
    page.locator("#layer").fill("nowhere")
    page.locator("#layer").press("Enter")
    expect(page.locator("#said")).to_contain_text("No recorded layer has “nowhere” in its name.")

    page.locator("#chart-layers .nsewdrag").click(position={"x": 5, "y": 5})
    first = run.history().layers[0]
    expect(page.locator("#layer")).to_have_value(first)
    row, column, rows, columns = run.tile_position(first)
    box = page.locator("#chart-tile .nsewdrag").bounding_box()
    page.locator("#chart-tile .nsewdrag").click(position={"x": box["width"] - 5, "y": box["height"] - 5})
    group = (column + columns - 1) // 4
    expect(page.locator("#title-path")).to_contain_text(f"Row {row + rows - 1}, group {group}:")
    page.locator("#row").select_option(str(row))
    expect(page.locator("#title-path")).to_contain_text(f"Row {row}, group {group}:")

    tile = run.tile(first)
    weights = tile[(tile["row"] == row) & (tile["column"] // 4 == group)].sort_values("column")
    for half, place in (("gradient", 3), ("prox", 4)):
        expected = weights[(weights["step"] == STEPS) & (weights["half"] == half)]["weight"]
        shown = page.locator(f"#numbers td:nth-child({place})").all_inner_texts()
        assert [float(text) for text in shown] == pytest.approx(expected.to_list(), rel=2e-3)
    flips = run.flips(first)
    changes = int(((flips["row"] == row) & (flips["group"] == group)).sum())
    said = {0: "never changed", 1: "changed once"}.get(changes, f"changed {changes} times")
    expect(page.locator("#title-path")).to_contain_text(said)
    kinds = page.locator("#chart-path").evaluate("node => node.data.map(trace => [trace.name, trace.line.dash])")
    assert [kind for kind in kinds if kind[0] == "weight 1"] == [["weight 1", "dot"], ["weight 1", "solid"]]


def test_the_colours_against_magnitude_agree_with_masks_computed_independently(recorded, report, opened):
    run, masks = recorded
    page, layer = opened(report), run.history().layers[0]
    ready(page)
    page.locator("#coloring").select_option("against magnitude")
    other = unpacked(magnitude(tiny_model("llama")).masks)[layer]
    expected = (2 * masks[STEPS][layer] + other)[tile_of(run, layer)]
    assert (drawn(page) == expected).all()
    both = f"both keep it ({round(100 * (expected == 3).mean())}%)"
    expect(page.locator("#legend")).to_contain_text(both)
    page.locator("#coloring").select_option(COLORINGS[1])
    soft = run.tile(layer)
    soft = soft[(soft["step"] == STEPS) & (soft["half"] == "prox")]["weight"].to_numpy().reshape(expected.shape)
    assert drawn(page) == pytest.approx(soft, rel=2e-3, abs=1e-6)
    page.locator("#coloring").select_option(COLORINGS[2])
    expect(page.locator("#legend")).to_contain_text("●")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_in_both_themes(report, opened, scheme):
    page = opened(report, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    ready(page)
    assert page.locator("html").evaluate("node => node.scrollWidth") == 390
    ground = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 29)"}[scheme]
    assert page.locator("body").evaluate("node => getComputedStyle(node).backgroundColor") == ground
    named = [("button", "Play"), ("slider", "Step shown"), ("combobox", "Layer, or a part of its name")]
    for role, name in [*named, *(("combobox", name) for name in ("Quantity", "Colour", "Row", "Group"))]:
        expect(page.get_by_role(role, name=name, exact=True)).to_be_visible()
    assert page.locator(".modebar-btn[data-title*='Share']").count() == 0, "charts stay on this machine"
    titles = page.locator("figure h3").all_inner_texts()
    assert len(titles) == 9 and all(titles)
    assert all("How to read" in text for text in page.locator("figcaption").all_inner_texts())


def test_what_stands_in_a_run_is_text_and_without_masks_the_rest_works(opened, tmp_path):
    nasty = "</script><script>document.title = 'taken over'</script>"
    run = made_run(tmp_path / "run <b>&amp; {{css}}", steps=8, corpus=f"{nasty}.txt")
    page = opened(write_report(run, tmp_path / "run.html"))
    expect(page.locator("#chart-layers .main-svg").first).to_be_visible(timeout=60_000)
    assert page.title() == f"{run.id} · ProxSparse" and page.locator("h1").inner_text() == run.id
    expect(page.locator("dl").first).to_contain_text(nasty)
    expect(page.locator("#note")).to_contain_text("recorded no masks")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#title-layers")).to_contain_text("Step 7:")
    page.locator("#quantity").select_option("drift")
    expect(page.locator("#title-layers")).to_contain_text("Step 7: drift is largest in block")
