"""Charts that are drawn once for all who look."""

import threading
import time

import plotly.graph_objects as go
import pytest
from test_screens import Page, page, run  # noqa: F401

from app.views import drawn
from proxsparse import figures


def test_many_who_want_the_same_chart_cause_one_drawing():
    shared, drawings, got = drawn.Drawn(), [], []

    def draw():
        drawings.append(1)
        time.sleep(0.2)
        return go.Figure()

    threads = [threading.Thread(target=lambda: got.append(shared.chart("a", draw))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawings) == 1 and len(got) == 8 and len(set(got)) == 1
    shared.chart("b", draw)
    assert len(drawings) == 2


def test_what_fails_is_tried_again_and_old_charts_are_forgotten(monkeypatch):
    monkeypatch.setattr(drawn, "KEPT", 2)
    shared, drawings = drawn.Drawn(), []

    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        shared.chart("a", fails)
    for key in ("a", "b", "c", "a"):
        shared.chart(key, lambda key=key: (drawings.append(key), go.Figure())[1])
    assert drawings == ["a", "b", "c", "a"]


def test_a_second_visitor_gets_the_charts_of_the_first(page, run, monkeypatch):  # noqa: F811
    for name in ("composition", "flips", "strength", "learning_curve", "layer_heatmap"):
        monkeypatch.setattr(figures, name, lambda *arguments, **options: pytest.fail("drawn twice"))
    second = Page(run.path.parent, run.id)
    sent = second.tick()
    assert {second.screen.parts[name] for name in ("curve", "composition", "flips", "lambda_curve", "heatmap")} <= sent
