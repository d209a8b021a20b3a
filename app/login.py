"""The login: who has not logged in gets its page, and nothing else of what lies behind."""

from __future__ import annotations

import hashlib
import math
import secrets
import sys
import time
from dataclasses import dataclass
from html import escape
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import parse_qs

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.throttle import Throttle
from proxsparse import ProxSparseError
from proxsparse.accounts.user_file import User, UserFile

PATH = "/login"
SESSION_SECONDS = 12 * 60 * 60
MOST_SESSIONS = 10_000
FORM_BYTES = 8192
WAITING = 16  # guesses that may wait for their turn; each takes some tenths of a second of one core, and 32 MB

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in: ProxSparse Explorer</title>
<style>
body { font-family: system-ui, sans-serif; max-width: 22rem; margin: 15vh auto; padding: 0 1rem; color-scheme: light dark; }
label { display: block; margin: .8rem 0; } input, button { font: inherit; width: 100%; padding: .5rem; box-sizing: border-box; }
[role=alert] { border-left: 4px solid #D55E00; padding: .4rem .6rem; }
</style></head><body><main><h1>ProxSparse Explorer</h1>NOTE
<form method="post"><label>Name <input name="name" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button></form></main></body></html>"""


@dataclass(frozen=True)
class Session:
    """user: as in the file when the login was. ends: by the clock `time.monotonic`."""

    name: str
    user: User
    ends: float


class Login:
    """Lets those through who have logged in, and keeps their name in `request.state.name`.

    Sessions are kept in memory, by a hash of what the browser holds. One ends after twelve hours, when the server ends, and when its
    user is taken out of the file or gets another password or role.
    """

    def __init__(self, app: ASGIApp, users: UserFile, port: int, throttle: Throttle | None = None):
        self.app, self.users, self.throttle = app, users, throttle or Throttle()
        self.cookie = f"proxsparse-{port}"  # browsers send a cookie to all ports of a machine
        self._sessions: dict[bytes, Session] = {}
        self._known: set[tuple[str, str]] = set()  # who logged in from where
        self._one_by_one = CapacityLimiter(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except ProxSparseError as error:
            print(f"Nobody can log in: {error}", file=sys.stderr, flush=True)
            answer = PlainTextResponse("The file of users cannot be read: ask who runs this server.", status_code=503)
        if answer is None:
            return await self.app(scope, receive, send)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """What is answered here; None where the request may go on."""
        path, reads = request.scope["path"], request.method in ("GET", "HEAD")
        if path == PATH:
            return _page("") if reads else await self._try(request)
        name = self._name_of(request)
        if name is not None:
            request.state.name = name
            return None
        if path == "/" and reads:
            return RedirectResponse(_with_query(f".{PATH}", request), status_code=303)
        return PlainTextResponse("Log in first.", status_code=401)

    def _name_of(self, request: Request) -> str | None:
        session = self._sessions.get(_digest(request.cookies.get(self.cookie, "")))
        if session and session.ends > time.monotonic() and self.users.users().get(session.name) == session.user:
            return session.name
        return None

    async def _try(self, request: Request) -> Response:
        """The way on for a name with its password; else the page again, with what was wrong."""
        if request.method != "POST":
            return PlainTextResponse("Send a name and a password by POST.", status_code=405)
        typed = await _typed(request)
        if typed is None:
            return PlainTextResponse("Send a name and a password, as the page of the login does.", status_code=400)
        name, password = typed
        if self._one_by_one.statistics().tasks_waiting >= WAITING:
            return _page("Too many log in at once: try again in a minute.", 503, {"Retry-After": "60"})
        place = _network(request.client.host if request.client else "")
        # Who logged in from here before is counted apart: nobody elsewhere keeps them out by guessing under their name.
        keys = (("name", name, place if (name, place) in self._known else ""), ("address", place))
        seconds = math.ceil(self.throttle.wait(*keys))
        if seconds:
            note = f"There were wrong guesses before: try again in {seconds} s."
            return _page(note, 429, {"Retry-After": str(seconds)})
        user = await to_thread.run_sync(self.users.check, name, password, limiter=self._one_by_one)
        if user is None:
            return _page("The name or the password is wrong.", 401)
        self.throttle.right(*keys)
        answer = RedirectResponse(_with_query("./", request), status_code=303)
        answer.set_cookie(
            self.cookie, self._begin(name, place, user), max_age=SESSION_SECONDS, httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    def _begin(self, name: str, place: str, user: User) -> str:
        now, token = time.monotonic(), secrets.token_urlsafe(32)
        if len(self._known) >= MOST_SESSIONS:
            self._known.clear()
        self._known.add((name, place))
        self._sessions = {key: session for key, session in self._sessions.items() if session.ends > now}
        if len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]  # the oldest
        self._sessions[_digest(token)] = Session(name, user, now + SESSION_SECONDS)
        return token


async def _typed(request: Request) -> tuple[str, str] | None:
    """Name and password of a form; None for what is none. Not more is read than a form has."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            return None
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:  # also what is no ASCII: a form escapes it
        return None
    given = [fields.get(field, []) for field in ("name", "password")]
    if not all(len(values) == 1 for values in given) or len(given[0][0]) > 64 or len(given[1][0]) > 1024:
        return None
    return given[0][0], given[1][0]


def _page(note: str, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    shown = f"<p role='alert'>{escape(note)}</p>" if note else ""
    return HTMLResponse(PAGE.replace("NOTE", shown), status, headers)


def _with_query(path: str, request: Request) -> str:
    """The address that was asked for goes along, so that who logs in arrives at it."""
    return f"{path}?{request.url.query}" if request.url.query else path


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _network(address: str) -> str:
    """What guesses are counted by: an address, or the network of an IPv6 one, of which a visitor has 2**64."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((known, 64), strict=False)) if isinstance(known, IPv6Address) else str(known)
