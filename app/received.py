"""What the page sends: events as it has them, and files. Where these lie until one is kept, how much may lie there, and that an event
names no other file.

An event names the file that was sent before it, by its path. Gradio copies whatever an event names, a file anywhere on this machine or
on the web, before a handler is asked.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.uploads import UPLOAD_BYTES
from proxsparse.files import bytes_in, parsed

UPLOAD, JOIN = "/gradio_api/upload", "/gradio_api/queue/join"
MOST_BYTES = 10 * UPLOAD_BYTES  # of all that lies there
SESSION = re.compile(r"[A-Za-z0-9]{1,64}")  # as the page names itself
LEFT_SECONDS = 3600  # after which what was sent, and not kept, is removed


def new_folder() -> Path:
    """A folder for what is sent to this process, away from the runs, whose place an answer would tell; it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="proxsparse-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # where Gradio puts it
    return folder


class Received:
    """Answers 400 to what is no event of the page, 403 to one that names a file which was not sent here, and 503 to an upload while too
    much lies in `folder`. inputs: {number of an event: how many values come with it}."""

    def __init__(self, app: ASGIApp, folder: Path, inputs: Mapping[int, int]):
        self.app, self.folder, self.inputs = app, folder, inputs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in (UPLOAD, JOIN):
            return await self.app(scope, receive, send)
        if scope["path"] == UPLOAD:
            if await run_in_threadpool(self.is_full):
                sentence = "Too many texts were sent here lately and not kept: try again in an hour."
                return await PlainTextResponse(sentence, status_code=503)(scope, receive, send)
            return await self.app(scope, receive, send)
        body = await Request(scope, receive).body()
        event = parsed(body)
        if not self.is_event(event):
            sentence = "This is no event of the page as it is now: load it again."
            return await PlainTextResponse(sentence, status_code=400)(scope, receive, send)
        if not all(self.was_sent(path) for path in paths_in(event)):
            sentence = "The page names a file that was not sent here: upload it."
            return await PlainTextResponse(sentence, status_code=403)(scope, receive, send)
        read = False

        async def received() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, received, send)

    def is_event(self, event: object) -> bool:
        """Whether the page sends such a thing: its number, its values, and the session they belong to."""
        if not isinstance(event, dict) or not isinstance(data := event.get("data"), list):
            return False
        number, session, trigger = (event.get(name) for name in ("fn_index", "session_hash", "trigger_id"))
        if type(number) is not int or type(trigger) not in (int, type(None)):
            return False
        return self.inputs.get(number) == len(data) and isinstance(session, str) and bool(SESSION.fullmatch(session))

    def was_sent(self, path: object) -> bool:
        """Whether it is the path of a file in the folder."""
        try:
            real = Path(str(path)).resolve()
            return real.is_relative_to(self.folder) and real.is_file()
        except (OSError, ValueError, RuntimeError):  # no path at all, or a circle of links
            return False

    def is_full(self) -> bool:
        """Whether as much lies there as may. Whoever sends and never asks to keep it, or hangs up, leaves files behind."""
        before = time.time() - LEFT_SECONDS
        for path in self.folder.rglob("*"):
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
        return bytes_in(self.folder) >= MOST_BYTES


def paths_in(event: object) -> Iterator[object]:
    """Everything in an event that Gradio could take for the path of a file.

    >>> list(paths_in({"data": [1, {"path": "/a", "meta": {}}]}))
    ['/a']
    """
    waiting = [event]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from [value["path"]] if "path" in value else []
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
