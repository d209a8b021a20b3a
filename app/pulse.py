"""The page asks once a second whether anything changed, and only then for the screen in sight.

Being asked costs the server a millisecond, a screen forty, and a page in the background asks nothing. Where many look at a run the
answer stands for some seconds: what they see comes less often, and the run keeps its cores.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.operator import Operator
from app.views.listing import Listing
from proxsparse import ProxSparseError

PATH = "changed"
LEAST, MOST = 0.5, 5.0  # seconds that an answer stands
EACH = 0.25  # seconds that each viewer adds to it
DEEPEST = 3  # folders below a run's, in which changes are seen

# Its value is the screen in sight, and a number that changes when the screen is to be asked for once more.
SCRIPT = """
const every = 1000, anyway = 15;  // ms; and after how many unchanged answers the screen is asked for all the same: ages go on
const screens = SCREENS;  // each is an event: Gradio looks for the names of events in the script
let known = null, drawn = null, unchanged = 0;
const ask = async () => {
  const run = new URLSearchParams(window.location.search).get('run') ?? '';
  const answer = await fetch(`PATH?run=${encodeURIComponent(run)}`);
  if (!answer.ok) return;
  const now = await answer.text();
  unchanged = now === known && props.value === drawn ? unchanged + 1 : 0;
  if (unchanged % anyway) return;
  known = now, drawn = props.value;
  trigger(screens.find((screen) => screen === props.value.split(' ')[0]));
};
const again = async () => {
  try {
    if (!document.hidden) await ask();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;  // the server does not answer: it may be there again in a moment
  }
  setTimeout(again, every);
};
setTimeout(again, every);
"""


def pulse(screens: Sequence[str]) -> gr.HTML:
    """What asks. screens: their names, each of which is an event of it; the first is in sight at first."""
    script = SCRIPT.replace("PATH", PATH).replace("SCREENS", json.dumps([*screens]))
    return gr.HTML(value=f"{screens[0]} 0", js_on_load=script, elem_id="pulse", visible="hidden")


def next_value(value: str, screen: str) -> str:
    """The value of the component after `screen` was drawn."""
    return f"{screen} {int(value.split()[1]) + 1}"


class Changes:
    """One answer for all who look at the same run: a text that differs when anything changed."""

    def __init__(self, operator: Operator, listing: Listing):
        self.operator, self.listing = operator, listing
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, float, str]] = {}  # run → until when, since when, the text
        self._asked: dict[str, int] = {}

    def of(self, id: str) -> str:
        """Changes when the run, or the list of all runs, looks different."""
        now = time.monotonic()
        with self._lock:
            self._asked[id] = self._asked.get(id, 0) + 1
            until, since, text = self._known.get(id, (0.0, now, ""))
            if now < until:
                return text
            viewers = self._asked.pop(id) / max(now - since, 1.0)
            text = f"{hash((self._run(id), self.listing.rows())):x}"
            if len(self._known) > 1000:
                self._known.clear()
            self._known[id] = (now + min(max(EACH * viewers, LEAST), MOST), now, text)
            return text

    def _run(self, id: str) -> tuple:
        try:
            run = self.operator.find_any(id)
            return run.state()["status"], *_files(run.path)
        except (ProxSparseError, FileNotFoundError):  # none is shown, or it was deleted meanwhile
            return ()

    def route(self) -> Route:
        """Where pages ask."""

        async def endpoint(request: Request) -> PlainTextResponse:
            return PlainTextResponse(await run_in_threadpool(self.of, request.query_params.get("run", "")))

        return Route(f"/{PATH}", endpoint)


def _files(folder: Path, deepest: int = DEEPEST) -> list[tuple[str, int, int]]:
    """Name, size and time of everything in a folder."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                found.append((entry.path, status.st_size, status.st_mtime_ns))
                if deepest and entry.is_dir(follow_symlinks=False):
                    found += _files(Path(entry.path), deepest - 1)
            except FileNotFoundError:  # gone between the two looks
                continue
    return found
