"""The page asks whether anything changed, and for the screen only where something did."""

import os

import pytest
from made_runs import add_steps, made_run, set_state
from playwright.sync_api import expect

from app import pulse
from app.operator import Operator
from app.views.listing import Listing


@pytest.fixture
def now(monkeypatch):
    """A clock that stands until it is moved."""
    clock = [100.0]
    monkeypatch.setattr("app.pulse.time.monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def changes(tmp_path, now, monkeypatch):
    monkeypatch.setattr(pulse, "EACH", 0.4)  # of a machine with two cores
    return pulse.Changes(Operator(tmp_path), Listing(tmp_path))


def told(changes, id):
    """What tells one look from another: the answer without the seconds that it stands."""
    text, seconds = changes.of(id).split()
    assert 0 <= float(seconds) <= pulse.MOST
    return text


def asked_later(changes, now, id, seconds=10.0):
    now[0] += seconds
    return told(changes, id)


def test_the_answer_changes_when_the_run_does_and_stays_when_it_does_not(changes, tmp_path, now):
    run = made_run(tmp_path / "first", steps=3)
    (run.path / "probe" / "answers").mkdir(parents=True)
    first = told(changes, run.id)
    assert asked_later(changes, now, run.id) == first
    seen = {first}
    for change in (
        lambda: add_steps(run, 4, 4),
        lambda: set_state(run, "stopped", 4),
        lambda: (run.path / "commands" / "00000000000000000001-aa.json").write_text("{}"),
        lambda: (run.path / "probe" / "answers" / "1.jsonl").write_text("{}\n"),
        lambda: os.remove(run.path / "probe" / "answers" / "1.jsonl"),
        lambda: made_run(tmp_path / "second", steps=1),
    ):
        change()
        answer = asked_later(changes, now, run.id)
        assert answer not in seen
        seen.add(answer)


@pytest.mark.parametrize("id", ["", "nobody", "../..", "example", "a\0b"])
def test_whatever_is_asked_for_there_is_an_answer(changes, id):
    assert told(changes, id)


def test_the_more_look_at_a_run_the_longer_an_answer_stands(changes, tmp_path, now):
    run = made_run(tmp_path / "first", steps=3)

    def stands(viewers):
        """Seconds after a change in which viewers are told nothing of it, who ask as often as the page does."""
        for _ in range(5):  # so that it is known how many they are
            seconds = [float(changes.of(run.id).split()[1]) for _ in range(viewers)]
            now[0] += max(1.0, *seconds, 0.0)
        before = told(changes, run.id)
        add_steps(run, (newest := 1 + max(run.table("steps")["step"])), newest)
        for tenth in range(200):
            if told(changes, run.id) != before:
                return tenth / 10
            now[0] += 0.1

    assert stands(1) <= pulse.LEAST + 0.1
    assert 15 * pulse.EACH * 0.8 <= stands(15) <= pulse.MOST + 0.1
    assert stands(500) <= pulse.MOST + 0.1


def test_who_did_something_is_not_kept_waiting(changes, tmp_path, now):
    run = made_run(tmp_path / "first", steps=3)
    for _ in range(20):
        now[0] += 1.0
        for _ in range(20):
            before = told(changes, run.id)
    (run.path / "commands").mkdir(exist_ok=True)
    (run.path / "commands" / "00000000000000000001-aa.json").write_text('{"command": "pause"}')
    changes.forget()
    asked = told(changes, run.id)
    assert asked != before
    set_state(run, "paused", 3)
    now[0] += pulse.LEAST
    assert told(changes, run.id) != asked


@pytest.mark.browser
def test_while_nothing_changes_nothing_but_that_is_asked(browser, address):
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/?run=example")
    expect(page.locator("#chart-heatmap .main-svg").first).to_be_visible()
    page.wait_for_timeout(4000)  # what the page fills in as it opens
    asked.clear()
    page.wait_for_timeout(5000)
    assert asked and all("/changed?run=example" in url for url in asked)
    page.close()
