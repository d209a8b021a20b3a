"""What the server answers at all. Gradio's has some seventy addresses; those that the page uses are listed here, and the
others are not there: a dashboard of who called what, a proxy, whatever a later version adds."""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

READ, WRITE = ("GET", "HEAD"), ("POST",)
REACHABLE = (
    (READ, r"/"),
    (READ, r"/(assets|static)/.+"),  # Gradio's scripts, styles and fonts
    (READ, r"/(theme\.css|favicon\.ico|manifest\.json|robots\.txt|plotly\.min\.js)"),
    (READ, r"/changed"),  # asked once a second: app/pulse.py
    (WRITE, r"/gradio_api/queue/join"),  # an event of the page
    (READ, r"/gradio_api/queue/data"),  # what came of it
    (READ, r"/gradio_api/heartbeat/[^/]+"),
    (WRITE, r"/gradio_api/upload"),
    (READ, r"/download/.+"),
    (READ, r"/report/.+"),
    (READ, r"/preset/.+"),
)


class Reachable:
    """Answers 404 to all that is not listed."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_reachable(scope["method"], scope["path"]):
            return await self.app(scope, receive, send)
        await PlainTextResponse("There is nothing here.", status_code=404)(scope, receive, send)


def is_reachable(method: str, path: str) -> bool:
    """Whether a request is one that the page makes.

    >>> is_reachable("GET", "/"), is_reachable("GET", "/monitoring")
    (True, False)
    """
    return any(method in methods and re.fullmatch(pattern, path) for methods, pattern in REACHABLE)
