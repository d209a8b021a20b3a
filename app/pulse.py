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
LEAST, MOST = 0.5, 10.0  # seconds that an answer stands
EACH = 1.0 / (os.cpu_count() or 1)  # seconds that each viewer adds to it: to draw for one takes some 0.04 of a core
DEEPEST = 3  # folders below a run's, in which changes are seen

# Its value is the screen in sight, and a number that changes when the screen is to be asked for once more.
SCRIPT = """
const every = 1000, anyway = 15000;  // ms; and after how long the screen is asked for all the same: ages go on
const screens = SCREENS;  // each is an event: Gradio looks for the names of events in the script
let known = null, drawn = null, looked = 0, next = 0;
const ask = async () => {
  // A screen that shows runs of a kind of its own names the one in sight in the address by its own name.
  const view = new URLSearchParams(window.location.search);
  const run = view.get(props.value.split(' ')[0]) ?? view.get('run') ?? '';
  const answer = await fetch(`PATH?run=${encodeURIComponent(run)}`);
  if (!answer.ok) return every;
  const [now, stands] = (await answer.text()).split(' '), soon = Math.max(every, 1000 * stands);
  if (now === known && props.value === drawn && Date.now() < looked + anyway) return soon;
  known = now, drawn = props.value, looked = Date.now();
  trigger(screens.find((screen) => screen === props.value.split(' ')[0]));
  return soon;
};
const again = async () => {
  let soon = every;
  try {
    if (!document.hidden) soon = await ask();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;  // the server does not answer: it may be there again in a moment
  }
  next = setTimeout(again, soon);
};
next = setTimeout(again, every);
// Who did something is shown what comes of it, however long the answer to others stands.
watch('value', () => { clearTimeout(next); next = setTimeout(again, every); });
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
        """A text that changes when the run, or the list of all runs, looks different, and how many seconds it stands."""
        return self.standing(id) or self.look(id)

    def standing(self, id: str) -> str | None:
        """The answer to one who asks, where it still stands; None where one has to look."""
        self._asked[id] = self._asked.get(id, 0) + 1  # near enough where two come at once
        return self._standing(id)

    def look(self, id: str) -> str:
        """The answer to all who ask, made anew by the first of them."""
        with self._lock:
            if (stands := self._standing(id)) is not None:
                return stands
            now = time.monotonic()
            until, since, _ = self._known.get(id, (now, now, ""))
            # Each asks once while an answer stands, or once a second where that is shorter.
            viewers = self._asked.pop(id, 1) * max(until - since, 1.0) / max(now - since, 1.0)
            files, awaited = self._run(id)
            text = f"{hash((files, self.listing.rows())):x}"
            if len(self._known) > 1000:
                self._known.clear()
            seconds = LEAST if awaited else min(max(EACH * viewers, LEAST), MOST)
            self._known[id] = (now + seconds, now, text)
            return f"{text} {seconds:.1f}"

    def _standing(self, id: str) -> str | None:
        until, _, text = self._known.get(id, (0.0, 0.0, ""))
        left = until - time.monotonic()
        return f"{text} {left:.1f}" if left > 0 else None

    def forget(self) -> None:
        """Look anew when next asked: somebody did something, and waits to see it."""
        self._known.clear()

    def _run(self, id: str) -> tuple[tuple, bool]:
        """What the run looks like, and whether somebody waits for its answer to a command."""
        try:
            run = self.operator.find_any(id)
            return (run.state()["status"], *_files(run.path)), bool(run.commands())
        except (ProxSparseError, FileNotFoundError):  # none is shown, or it was deleted meanwhile
            return (), False

    def route(self) -> Route:
        """Where pages ask."""

        async def endpoint(request: Request) -> PlainTextResponse:
            id = request.query_params.get("run", "")
            return PlainTextResponse(self.standing(id) or await run_in_threadpool(self.look, id))

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
