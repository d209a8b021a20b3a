"""Picture every screen at 1440 and 390 px, light and dark, and refresh the README's pictures.

    python assets/pictures/take.py --to DIR     all of them, to be looked at; those of the README also here

What is pictured is the recorded example.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).resolve().parent
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


def serve(runs: str) -> tuple[str, subprocess.Popen]:
    """The explorer over an empty folder; its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, HERE.parents[1] / "app.py", "--port", str(port), "--runs", runs])
    address = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5)
            return address, process
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The explorer did not start: its message stands above.")


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
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as runs, sync_playwright() as playwright:
        address, process = serve(runs)
        try:
            browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
            for screen in SCREENS:
                for width in WIDTHS:
                    for theme in ("light", "dark"):
                        picture(browser, address, screen, width, theme, to)
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main()
