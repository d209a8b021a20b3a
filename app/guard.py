"""Whom the server answers: requests that call it by an address of its own, sent by pages of its own.

A page of another site can send requests to this machine as well: its name may point here (DNS rebinding), and a form
needs no permission. The browser says under which name it called (Host), from which page (Origin), and how that page
relates to this server (Sec-Fetch-Site); neither can be forged by a page. What is no browser may say anything, and gains
nothing by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from proxsparse import ProxSparseError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::\d{1,5})?")
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Served:
    """host: what the server listens on. origins: further addresses under which it is reached, as `origin_of` gives them.
    embedded_in: sites that may show it in a frame, in the same form; which of them does, the browser checks (`app/headers.py`)."""

    host: str
    origins: tuple[str, ...] = ()
    embedded_in: tuple[str, ...] = ()

    @property
    def to_this_machine_only(self) -> bool:
        return self.host == "localhost" or _is_loopback(self.host)

    def is_called(self, host: str) -> bool:
        """Whether a Host header names this server.

        The port is not compared: behind an SSH tunnel or a container's port it is another one. A number cannot be made to
        point elsewhere as a name can, so where the server listens everywhere, each number is an address of this machine,
        the outer one of a router included, which this machine does not know.
        """
        found = _HOST.fullmatch(host.lower())
        if not found:
            return False
        name = found[1].strip("[]")
        if name in {urlsplit(origin).hostname for origin in self.origins}:
            return True
        if self.to_this_machine_only:
            return name == "localhost" or _is_loopback(name)
        if self.host in EVERYWHERE:
            return name == "localhost" or _is_address(name)
        return name == self.host

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` was served from here: by the address that its request calls, or by a further one."""
        scheme, _, place = origin.lower().partition("://")
        return (scheme in ("http", "https") and place == host.lower()) or origin.lower() in self.origins


def origin_of(address: str, flag: str = "--allow-origin") -> str:
    """`https://name` or `https://name:port`, in lower case. Raises ProxSparseError for anything else, which `flag` named.

    >>> origin_of("https://Example.org/")
    'https://example.org'
    """
    scheme, _, place = address.lower().rstrip("/").partition("://")
    if scheme not in ("http", "https") or not _HOST.fullmatch(place):
        raise ProxSparseError(
            f"{flag} is {address!r}: give what stands in the browser's address bar up to the first slash, such as "
            "https://example.org."
        )
    return f"{scheme}://{place.removesuffix(':443' if scheme == 'https' else ':80')}"


class Guard:
    """Answers 403, in one sentence, to what `Served` does not know; lies around everything else."""

    def __init__(self, app: ASGIApp, served: Served):
        self.app, self.served = app, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return  # there are no WebSockets here; the server closes the connection
        reason = self.refusal(scope["method"], Headers(scope=scope))
        if reason is None:
            # Gradio would take its own address from this header, whoever sent it.
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-gradio-server"]
            return await self.app(scope, receive, send)
        await PlainTextResponse(reason, status_code=403)(scope, receive, send)

    def refusal(self, method: str, headers: Headers) -> str | None:
        """Why a request is refused; None where it is not."""
        hosts = headers.getlist("host")
        forwarded = [host.strip() for line in headers.getlist("x-forwarded-host") for host in line.split(",")]
        for host in [*(hosts or [""]), *forwarded]:
            if not self.served.is_called(host):
                return (
                    f"This server is not called {host[:80]!r}: open it by the address that it was started with, or start it with "
                    "`--allow-origin` and the address that the browser shows."
                )
        origins = headers.getlist("origin")
        for origin in origins:
            if len(hosts) != 1 or not self.served.is_own(origin, hosts[0]):
                return (
                    f"A page of {origin[:80]!r} may not use this server: open the server's own page, or start it with "
                    "`--allow-origin` and the address that the browser shows."
                )
        if not origins and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            # A link from elsewhere may be followed; a picture or a script of another page is not fetched from here, nor a frame
            # where no site may show one.
            opened = ("document", "iframe") if self.served.embedded_in else ("document",)
            followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in opened
            if method not in ("GET", "HEAD") or not followed:
                return "A page of another site may not use this server: open the server's own page."
        return None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ip_address(name).is_loopback
