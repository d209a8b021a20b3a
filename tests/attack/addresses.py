"""An address of the server for every pattern of app/reachable.py, and two that are not there."""

import re

from app.reachable import REACHABLE

ADDRESSES = (
    "/", "/assets/a.js", "/static/img/logo.svg", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/plotly.min.js",
    "/changed", "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/heartbeat/a", "/gradio_api/upload",
    "/download/example.zip", "/report/example.html", "/preset/a/0.json", "/monitoring", "/no/such",
)  # fmt: skip

UNTRIED = [pattern for _, pattern in REACHABLE if not any(re.fullmatch(pattern, address) for address in ADDRESSES)]
assert not UNTRIED, f"whoever opens a route adds an address of it: {UNTRIED}"
