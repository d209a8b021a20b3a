"""How much a request may bring: a text may be large, everything else that the page sends is small."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.received import UPLOAD
from app.uploads import UPLOAD_BYTES

AROUND = 64 * 1024  # what a form puts around a file: its name, and the boundaries
EVENT_BYTES = 1024 * 1024  # of everything else: all values of the page together have some kilobytes


class BodyLimit:
    """Answers 413, in one sentence, to a request whose body is larger than what is ever sent there."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = UPLOAD_BYTES + AROUND if scope["path"] == UPLOAD else EVENT_BYTES
        refusal = PlainTextResponse(_sentence(most), status_code=413, headers={"Connection": "close"})
        if _announced(scope) > most:
            return await refusal(scope, receive, send)
        taken = 0

        async def received() -> Message:
            """What comes in; where more comes than was announced, as if the sender had hung up."""
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message if taken <= most else {"type": "http.disconnect"}

        async def sent(message: Message) -> None:
            if taken <= most:  # what is inside would complain about the sender who hung up
                await send(message)

        try:
            await self.app(scope, received, sent)
        except ClientDisconnect:
            if taken <= most:
                raise
        if taken > most:
            await refusal(scope, receive, send)


def _announced(scope: Scope) -> int:
    """How large the body is, as its sender says; 0 where that is not said."""
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else 0


def _sentence(most: int) -> str:
    size = f"{most >> 20} MB"
    return f"This is larger than the {size} that may be sent here at once: send less, or a text in parts."
