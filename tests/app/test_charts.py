"""What every chart brings along, and the Learn screen under thumbs: in a real browser, on the recorded example."""

import csv
import struct
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import expect
from test_app import fill

from app.operator import EXAMPLE_COMPARISON
from proxsparse import Comparison, Run

pytestmark = pytest.mark.browser
STEPS = pd.read_json(Path("assets/example-run/steps.jsonl"), lines=True)


def opened(browser, address, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(f"{address}/?run=example")
    expect(page.locator("#chart-heatmap .main-svg").first).to_be_visible()
    return page


def downloaded(page, button):
    with page.expect_download(timeout=120_000) as downloading:
        page.locator(button).click()
    return downloading.value.suggested_filename, downloading.value.path()


def test_a_chart_has_a_name_a_reading_a_table_and_files(browser, address):
    page = opened(browser, address, 1440)
    page.evaluate("Plotly.relayout(document.querySelector('#chart-strength .live-plot'), {'xaxis.range': [20, 40]})")
    chart = page.locator("#chart-strength")
    title = chart.locator("h3").inner_text()
    assert title.startswith("λ1 went from 0.0002 to 0.2")
    expect(page.get_by_role("img", name=title)).to_be_visible()

    reading = chart.locator(".chart-reading")
    expect(reading).to_be_hidden()
    chart.get_by_role("button", name="How to read this").click()
    expect(reading).to_contain_text("Solid: λ1 as it was taken")

    chart.get_by_role("button", name="Table").click()
    header = chart.locator("thead th").all_inner_texts()
    assert header == ["step", "λ1", "learning rate"]
    rows = chart.locator("tbody tr")
    assert rows.count() == len(STEPS)
    step, strength, rate = rows.nth(39).locator("td").all_inner_texts()
    assert int(step) == 40 and float(strength) == pytest.approx(STEPS["lambda1"][39], rel=1e-4)
    assert float(rate) == pytest.approx(STEPS["learning_rate"][39], rel=1e-4)

    name, path = downloaded(page, "#chart-strength .chart-csv")
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))
    assert name == "strength-example.csv" and lines[0] == header and len(lines) == len(STEPS) + 1
    assert [float(line[1]) for line in lines[1:]] == pytest.approx(STEPS["lambda1"].tolist(), rel=1e-6)
    page.locator("#chart-curve .chart-table").click()
    assert page.locator("#chart-curve thead th").first.inner_text() == "step", "the axis that two charts share"
    name, path = downloaded(page, "#chart-heatmap .chart-csv")
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))
    assert len(lines) == 1 + 7 and len(lines[0]) == 1 + 30 and lines[1][0] == "q_proj", "projections by blocks"

    name, path = downloaded(page, "#chart-strength .chart-png")
    header = path.read_bytes()[:24]
    assert name == "strength-example.png" and header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:])
    assert height == 600 and width > 1000, "twice the size on the page, for slides"
    assert page.evaluate("document.querySelector('#chart-strength .live-plot').layout.xaxis.range") == [20, 40]
    assert page.problems == []
    page.close()


def test_on_a_narrow_screen_every_name_and_number_of_a_comparison_can_be_read(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(f"{address}/?screen=compare&compare=example-comparison")
    matrix = page.locator("#chart-compare-overlap")
    matrix.scroll_into_view_if_needed()
    names = Comparison(Run(EXAMPLE_COMPARISON)).names()[1:]
    for letter in "xy":
        ticks = matrix.locator(f".{letter}tick text")
        expect(ticks).to_have_text(list(names if letter == "x" else reversed(names)))
        boxes = [each.bounding_box() for each in ticks.all()]
        assert not any(overlap(one, other) for place, one in enumerate(boxes) for other in boxes[place + 1 :])
    sizes = matrix.locator(".heatmap-label text").evaluate_all(
        "(all) => all.map((each) => parseFloat(getComputedStyle(each).fontSize))"
    )
    assert len(sizes) == len(names) * (len(names) - 1) and min(sizes) >= 9

    chart = page.locator("#chart-compare-perplexity")
    chart.scroll_into_view_if_needed()
    far = chart.get_by_text("2.0e9", exact=True).bounding_box()
    whole = chart.locator(".main-svg").first.bounding_box()
    assert far["x"] + far["width"] <= whole["x"] + whole["width"], "nothing is cut at the edge"
    page.close()


def overlap(one, other):
    across = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
    down = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
    return across > 1 and down > 1


def test_settings_that_differ_are_marked_in_the_form(browser, address):
    page = opened(browser, address, 1440)
    tools = [each.bounding_box() for each in page.locator("#chart-curve .chart-tools button").all()]
    assert len({(box["y"], box["height"]) for box in tools}) == 1 < len(tools), "the buttons of a chart stand in a line"
    expect(page.locator("#differs")).not_to_contain_text("A fork of the run shown")
    fill(page, "lambda1", "0.05")
    expect(page.locator("#differs")).to_contain_text("λ1 at the end 0.05 instead of 0.2")
    mark = "getComputedStyle(document.querySelector('#setting-lambda1 [data-testid=block-info]'), '::after').content"
    assert page.evaluate(mark) == '" · Quick: 0.2"'
    page.locator("#settings-reset").click()
    expect(page.locator("#preset input")).to_have_value("Quick")
    expect(page.locator("#setting-lambda1 textarea, #setting-lambda1 input").first).to_have_value("0.2")
    assert page.evaluate(mark) == "none"
    fill(page, "steps", "7")
    expect(page.locator("#differs")).to_contain_text("steps 7 instead of 80")
    page.locator("#settings-as-shown").click()
    expect(page.locator("#setting-steps textarea, #setting-steps input").first).to_have_value("80")
    assert page.problems == []
    page.close()


def test_under_thumbs_the_controls_come_first_and_the_settings_on_request(browser, address):
    page = opened(browser, address, 390)
    tops = [
        page.locator(f"#{name}").bounding_box()["y"]
        for name in (
            "banner",
            "controls",
            "settings-toggle",
            "pace",
            "tiles",
            "chart-curve",
            "branches",
            "chart-heatmap",
        )
    ]
    assert tops == sorted(tops)
    for name in ("lambda-now", "delay", "fork-step", "compare", "quantity", "scrubber"):
        assert page.locator(f"#{name}").bounding_box()["width"] > 300, f"{name} takes the whole width"
    form, button = page.locator("#form"), page.get_by_role("button", name="Settings of the next run", exact=True)
    expect(form).to_be_hidden()
    button.click()
    expect(form).to_be_visible()
    expect(button).to_have_attribute("aria-expanded", "true")
    assert button.bounding_box()["y"] < form.bounding_box()["y"] < page.locator("#tiles").bounding_box()["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.problems == []
    page.close()
