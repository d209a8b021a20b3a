"""The explorer as tests, benchmarks and pictures use it: served on a free port, looked at in Chromium, or only asked for answers."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from proxsparse import list_runs

APP = Path(__file__).parents[1] / "app.py"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


def chromium(playwright):
    """The system's Chromium where there is one, else Playwright's own."""
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return playwright.chromium.launch(executable_path=installed, args=ARGUMENTS)


def serve(runs, *arguments, **options):
    """Start the app on a free port; returns its address and its process. options: of `subprocess.Popen`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, APP, "--port", str(port), "--runs", str(runs), *arguments], **options)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=5)
            return address, process
        except urllib.error.HTTPError:
            return address, process
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "the app did not start"
            time.sleep(0.1)


@contextmanager
def served(runs, *arguments):
    """The address of the app while open; afterwards nothing works on the runs any more."""
    address, process = serve(runs, *arguments)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)
        for run in list_runs(runs):
            if run.is_alive():
                run.send("stop")


def take(values, sent):
    """Let the components of a page hold what an answer of the server says; others than those in `values` are not kept."""
    for component, value in sent.items():
        if component in values:
            is_update = isinstance(value, dict) and value.get("__type__") == "update"
            if not is_update:
                values[component] = value
            elif "value" in value:
                values[component] = value["value"]
