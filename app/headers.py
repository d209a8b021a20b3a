"""What every answer tells the browser: that this page loads from nowhere else, sends to nowhere else, and lies in no frame, or only in
those of sites that the operator named."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio writes scripts and styles into the page and makes functions out of text, so both have to be allowed; what is
# shown is escaped where it is written. Pictures of charts are data: and blob: addresses.
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "same-origin",  # stricter, and forms of this page would come from "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def headers_for(embedded_in: tuple[str, ...]) -> dict[str, str]:
    """HEADERS; where sites are named that may show the page in a frame, with these in the policy. The older header knows no list of
    sites, and is left out then."""
    if not embedded_in:
        return HEADERS
    policy = HEADERS["Content-Security-Policy"].replace(
        "frame-ancestors 'none'", f"frame-ancestors {' '.join(embedded_in)}"
    )
    return {name: value for name, value in HEADERS.items() if name != "X-Frame-Options"} | {
        "Content-Security-Policy": policy
    }


class SecurityHeaders:
    """Puts the headers on every answer, refusals included; outermost. No other site is told that it may read an answer."""

    def __init__(self, app: ASGIApp, embedded_in: tuple[str, ...] = ()):
        self.app, self.headers = app, headers_for(embedded_in)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                headers.update(self.headers)
            await send(message)

        await self.app(scope, receive, sent if scope["type"] == "http" else send)
