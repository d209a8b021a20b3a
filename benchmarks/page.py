"""How fast the explorer answers: server time of a tick, of a layer, a step and a drag, and what each sends.

    python benchmarks/page.py [--steps 1000] [--ticks 50]

A tick is measured on a made-up run of 30 blocks with seven layers each, into which a worker writes a step a second; switching on the
recorded example. Times are of the server alone, one page open; then of a browser, from the request to the first chart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import gradio as gr
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from explorer import chromium, serve, take  # noqa: E402
from made_runs import add_steps, made_run, set_state  # noqa: E402

from app.operator import EXAMPLE_ID, Operator  # noqa: E402
from app.shell import Shell  # noqa: E402

BLOCKS = 30


class Page:
    """One page, whose components hold what the server sends."""

    def __init__(self, runs: Path, id: str, screen: str):
        self.shell = Shell(Operator(runs))
        self.shell.build()
        self.screen = next(each for each in self.shell.screens if each.name == screen)
        filled = json.dumps(["", {}])
        self.values = {component: getattr(component, "value", None) for component in self.shell.looking()["inputs"]} | {
            self.shell.id: id, self.shell.screen: screen, self.shell.seen: {}, self.shell.filling: filled, self.shell.asked: filled,
        }  # fmt: skip

    def look(self) -> tuple[float, int]:
        """ms of server time, and bytes sent."""
        began = time.perf_counter()
        sent = self.shell.show(dict(self.values))
        took = 1000 * (time.perf_counter() - began)
        if sent == gr.skip():
            return took, 0
        take(self.values, sent)
        sizes = (
            len(json.dumps(value, default=str)) for component, value in sent.items() if component is not self.shell.seen
        )
        return took, sum(sizes)

    def settled(self) -> Page:
        for _ in range(3):
            self.look()
        return self


def row(what: str, looks: list[tuple[float, int]]) -> None:
    times, sizes = np.array(looks).T
    print(
        f"| {what} | {np.median(times):.0f} | {np.percentile(times, 95):.0f} | {times.mean():.0f} | {sizes.mean() / 1000:.1f} |"
    )


def ticks(folder: Path, steps: int, count: int) -> None:
    run = made_run(folder / "growing", blocks=BLOCKS, steps=steps, total=10 * steps)
    growth = (1 / 1000) ** (1 / (10 * steps - 1))  # λ1 as its ramp has it: the curve ahead stays where it is

    def stands_at(step: int) -> None:
        left = 1000 * growth**step
        set_state(run, "running", step, elapsed=float(step), lambda1=0.2 / left, growth_left=left)

    stands_at(steps)
    page = Page(folder, run.id, "learn")
    row(f"first look at a run of {steps} steps", [page.look()])
    page.settled()
    looks = []
    for step in range(steps + 1, steps + count + 1):
        add_steps(run, step, step)
        stands_at(step)
        looks.append(page.look())
    row("a tick with a new step", looks)
    row("a tick without", [page.look() for _ in range(count)])


def switches(folder: Path, count: int) -> None:
    page = Page(folder, EXAMPLE_ID, "masks").settled()
    screen, layers = page.screen, page.shell.operator.snapshot(EXAMPLE_ID).run.history().layers
    looks = []
    for index in range(count):
        page.values[screen.layer] = layers[(7 * index + 1) % len(layers)]
        looks.append(page.look())
    row("Masks: another layer", looks)
    looks = []
    for index in range(count):
        page.values[screen.step] = (13 * index + 1) % 80
        looks.append(page.look())
    row("Masks: another step", looks)

    page = Page(folder, EXAMPLE_ID, "regularizer").settled()
    for pattern in ("2:4", "3:4", "2:8"):
        page.values[page.screen.pattern] = pattern
        page.settled()
        looks = []
        for index in range(count):
            page.values[page.screen.lam] = -2 + 2.5 * index / count
            looks.append(page.look())
        row(f"Regularizer, {pattern}: λ dragged", looks)


def first_paint(count: int) -> None:
    """From the request to the words, and to the learning curve, in a fresh browser page."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as runs, sync_playwright() as playwright:
        address, process = serve(runs)
        try:
            browser = chromium(playwright)
            for what, selector in (("words", "#banner .facts"), ("the learning curve", "#chart-curve .main-svg")):
                taken = []
                for _ in range(count):
                    page, began = browser.new_page(), time.perf_counter()
                    page.goto(address, wait_until="commit")
                    page.locator(selector).first.wait_for()
                    taken.append(time.perf_counter() - began)
                    page.close()
                print(f"a browser shows {what} after {np.median(taken):.2f} s (median of {count})")
        finally:
            process.terminate()
            process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--ticks", type=int, default=50)
    arguments = parser.parse_args()
    print("| server time, ms | median | 95% | mean | kB sent |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, patch("proxsparse.runs.directory.is_held", lambda path: True):
        ticks(Path(folder), arguments.steps, arguments.ticks)
        switches(Path(folder), arguments.ticks)
    first_paint(5)


if __name__ == "__main__":
    main()
