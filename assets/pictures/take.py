"""Picture every screen at 1440 and 390 px, light and dark, and refresh the README's pictures.

    python assets/pictures/take.py --to DIR     all of them, to be looked at; those of the README also here

What is pictured is the recorded example.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from explorer import chromium, serve  # noqa: E402

SCREENS = {  # what is drawn last on each
    "learn": "#chart-heatmap .main-svg",
    "masks": "#chart-masks-composition .main-svg",
    "regularizer": "#reg-slice .main-svg",
    "try": "#try-cards .bars .point",
    "runs": "#runs-list",
    "export": "#export-code .cm-line",
}
WIDTHS = {1440: 1000, 390: 844}  # px: the height of such a window
README = {"learn": "run.png", "masks": "masks.png"}  # at 1440 px, light, as much as the window shows


def picture(browser: Browser, address: str, screen: str, width: int, theme: str, to: Path) -> None:
    """The whole page, and for the README what the window shows of it."""
    page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]})
    page.goto(f"{address}/?run=example&screen={screen}&__theme={theme}")
    page.locator(SCREENS[screen]).first.wait_for(timeout=120_000)
    page.wait_for_timeout(1500)  # for what fades in
    page.screenshot(path=to / f"{screen}-{width}-{theme}.png", full_page=True)
    if screen in README and (width, theme) == (1440, "light"):
        page.screenshot(path=HERE / README[screen])
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder for the pictures")
    to = parser.parse_args().to
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as runs, sync_playwright() as playwright:
        address, process = serve(runs)
        try:
            browser = chromium(playwright)
            for screen in SCREENS:
                for width in WIDTHS:
                    for theme in ("light", "dark"):
                        picture(browser, address, screen, width, theme, to)
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main()
