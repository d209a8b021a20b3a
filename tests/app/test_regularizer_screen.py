"""The Regularizer screen: what is dragged is what the library computes, and a link brings it back."""

from contextlib import closing

import pytest
import torch
from explorer import served
from made_runs import made_run
from playwright.sync_api import expect
from test_address import Visitor

from app import bars
from proxsparse import prox

FIRST = (1.2, -0.8, 0.6, 0.3)


def moved(weights, lam, n=2, scale=None):
    """The proximal point by the library, as the chart writes it."""
    v = torch.tensor([weights], dtype=torch.float64)
    scale = None if scale is None else torch.tensor(scale, dtype=torch.float64)
    return prox(v, lam, n, len(weights), scale)[0].tolist()


@pytest.fixture
def visitor(tmp_path):
    made_run(tmp_path / "first", steps=2)
    return Visitor(tmp_path, run="first", screen="regularizer")


def shown_point(visitor):
    from plotly.io import from_json

    screen = visitor.screen("regularizer")
    sent = visitor.shell.show(visitor.values | {visitor.shell.seen: {"visit": visitor.visits}})
    return [float(value) for value in from_json(sent[screen.charts["point"]]).data[1].y]


def test_the_point_is_the_librarys_for_every_pattern_and_metric(visitor):
    screen = visitor.screen("regularizer")
    assert shown_point(visitor) == pytest.approx(moved(FIRST, 10**-0.5), abs=1e-6)
    for pattern in ("1:4", "3:4", "1:2", "2:8"):
        n, m = map(int, pattern.split(":"))
        visitor.chooses("regularizer", "pattern", pattern)
        assert len(bars.numbers(visitor.values[screen.weights])) == m, "as many bars as the group has weights"
        weights = bars.numbers(visitor.values[screen.weights])
        assert shown_point(visitor) == pytest.approx(moved(weights, 10**-0.5, n), abs=1e-6)
    visitor.chooses("regularizer", "pattern", "2:4")
    visitor.chooses("regularizer", "metric", "activation")
    scales = [0.5, 2.0, 1.0, 3.0]
    visitor.chooses("regularizer", "scales", bars.with_numbers(visitor.values[screen.scales], scales))
    weights = bars.numbers(visitor.values[screen.weights])
    assert shown_point(visitor) == pytest.approx(moved(weights, 10**-0.5, 2, scales), abs=1e-6)


def test_nothing_is_drawn_while_nothing_moves_and_a_drag_leaves_no_history(visitor):
    from gradio import skip

    visitor.look()
    assert visitor.shell.show(dict(visitor.values)) == skip()
    screen = visitor.screen("regularizer")
    asked = visitor.chooses("regularizer", "weights", bars.with_numbers(screen.weights.value, [0.5, -0.8, 0.6, 0.3]))
    assert asked == {"run": "first", "screen": "regularizer", "weights": "0.5,-0.8,0.6,0.3"}
    assert visitor.chooses("regularizer", "lambda", 0.0)["lambda"] == "1"
    assert not any(visitor.history)
    assert visitor.chooses("regularizer", "pattern", "1:4")["pattern"] == "1:4"
    assert visitor.history[-1], "a choice can be taken back"


def test_an_address_brings_the_group_back(tmp_path):
    made_run(tmp_path / "first", steps=2)
    asked = {"pattern": "1:4", "lambda": "0.5", "weights": "0.5,-0.8,0.6,0.3", "screen": "regularizer", "run": "first"}
    visitor = Visitor(tmp_path, **asked)
    assert shown_point(visitor) == pytest.approx(moved((0.5, -0.8, 0.6, 0.3), 0.5, 1), abs=5e-3)
    kept = visitor.values[visitor.shell.seen]["address"]
    assert kept | {"lambda": ""} == asked | {"lambda": ""} and float(kept["lambda"]) == pytest.approx(0.5, rel=0.02)
    assert not any(visitor.history)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"weights": "1,2,x,4"}, "'x' is not a number"), ({"weights": "1,2,3,4"}, "beyond the ends"), ({"weights": "1"}, "has 1 numbers"),
        ({"weights": ",".join(["1"] * 9)}, "has 9 numbers"), ({"lambda": "0"}, "the slider goes from 0.0032 to 10"),
        ({"lambda": "1e9"}, "the slider goes from"), ({"pattern": "7:9"}, "none of 2:4"), ({"scales": "0,1,1,1"}, "beyond the ends"),
    ],
)  # fmt: skip
def test_what_an_address_cannot_mean_is_said(tmp_path, monkeypatch, asked, words):
    said = []
    monkeypatch.setattr("app.shell.warn", said.append)
    made_run(tmp_path / "first", steps=2)
    visitor = Visitor(tmp_path, run="first", screen="regularizer", **asked)
    assert len(said) == 1 and words in said[0]
    assert shown_point(visitor) == pytest.approx(moved(FIRST, 10**-0.5), abs=1e-6)


POINT = "[...document.querySelector('#reg-point .live-plot').calcdata[1]].map(bar => bar.s)"


def expect_point(page, expected, tolerance=1e-6):
    """Wait until the chart shows it: the last of many moves is answered last."""
    page.wait_for_function(
        f"([expected, by]) => ({POINT}).every((value, index) => Math.abs(value - expected[index]) < by)",
        arg=[expected, tolerance], timeout=120_000,
    )  # fmt: skip


@pytest.mark.browser
def test_bars_are_dragged_by_mouse_and_keys_and_a_link_brings_them_back(tmp_path, browser):
    made_run(tmp_path / "first", steps=2)
    with served(tmp_path) as address, closing(browser.new_page(viewport={"width": 1440, "height": 1000})) as page:
        page.goto(f"{address}/?run=first&screen=regularizer")
        title = page.locator("#reg-point .chart-title")
        expect(title).to_have_text("At λ = 0.316 one proximal step sets w4 to zero")
        expect_point(page, moved(FIRST, 10**-0.5))

        # By mouse: to the top of its well.
        well = page.locator("#reg-weights .well").nth(3).bounding_box()
        page.mouse.move(well["x"] + well["width"] / 2, well["y"] + 0.425 * well["height"])
        page.mouse.down()
        page.mouse.move(well["x"] + well["width"] / 2, well["y"] + 0.2 * well["height"], steps=5)
        page.mouse.up()
        expect(title).not_to_contain_text("w4")
        page.wait_for_url("**weights=**", timeout=120_000)
        weights = [float(text) for text in page.locator("#reg-weights output").all_inner_texts()]
        assert weights[:3] == list(FIRST[:3]) and weights[3] > 0.8
        expect_point(page, moved(weights, 10**-0.5))

        # By keys: up on a bar, and the arrows of the screen for λ.
        page.get_by_role("slider", name="w2").press("ArrowUp")
        expect(page.locator("#reg-weights output").nth(1)).to_have_text("-0.79")
        page.locator("header").click()
        before = title.inner_text()
        page.keyboard.press("ArrowRight")
        expect(title).not_to_have_text(before)
        page.wait_for_url("**lambda=0.3236**", timeout=120_000)
        weights[1] = -0.79
        expect_point(page, moved(weights, 10**-0.49))

        # A choice is taken back with Back; another window shows the same.
        page.locator("#reg-pattern").get_by_label("1:4").check()
        page.wait_for_url("**pattern=1*", timeout=120_000)
        page.go_back()
        expect(page.locator("#reg-pattern").get_by_label("2:4")).to_be_checked()
        expect_point(page, moved(weights, 10**-0.49))
        link, point = page.url, page.evaluate(POINT)
        page.goto("about:blank")
        page.goto(link)
        expect(title).to_contain_text("λ = 0.324")
        expect_point(page, point, 1e-9)
        assert [float(text) for text in page.locator("#reg-weights output").all_inner_texts()] == weights
