"""The server around the page: first who may ask, then how much may be sent, then what may be asked, then the login, then downloads
and Gradio."""

from __future__ import annotations

import asyncio
import logging
import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from starlette.types import ASGIApp

from app import live_plot, style
from app.body import BodyLimit
from app.downloads import routes
from app.guard import Guard, Served
from app.headers import SecurityHeaders
from app.login import Login
from app.operator import Operator
from app.reachable import Reachable
from app.received import Received, new_folder
from app.shell import Shell
from app.uploads import UPLOAD_BYTES
from proxsparse.accounts.user_file import UserFile


def application(
    operator: Operator, served: Served, port: int, users: UserFile | None = None, root_path: str = ""
) -> ASGIApp:
    """All of it, as one ASGI application.

    Parameters
    ----------
    operator
        Where runs lie, and what a browser may name.
    served
        Under which addresses the server is reached.
    port
        What it listens on: logins of two servers on one machine are told apart by it.
    users
        Who may log in; None: there is no login.
    root_path
        Under which path a reverse proxy shows the page.
    """
    received = new_folder()
    shell = Shell(operator)
    blocks = shell.build()
    blocks.queue(default_concurrency_limit=None)
    site = FastAPI(routes=[*routes(operator), shell.changes.route()], docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        site, blocks, "/", footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False, root_path=root_path,
        show_error=False, max_file_size=UPLOAD_BYTES, theme=style.theme(), css=style.CSS + shell.css, head=style.HEAD + live_plot.HEAD,
        auth_dependency=None if users is None else _name_of,
    )  # fmt: skip
    inputs = {number: len(event.inputs) for number, event in blocks.fns.items()}
    inside: ASGIApp = Reachable(Received(site, received, inputs))
    if users is not None:
        inside = Login(inside, users, port)
    return SecurityHeaders(Guard(BodyLimit(inside), served), served.embedded_in)


def _name_of(request: Request) -> str | None:
    """Under which name the login let this request through."""
    return getattr(request.state, "name", None)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError or OverflowError where the address cannot be used."""
    family, *_, address = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((address[0], port), family=family)


def serve(application: ASGIApp, listener: socket.socket, behind_proxy: bool) -> None:
    """Answer until interrupted. behind_proxy: whether a proxy on this machine says which address a request came from."""
    logging.getLogger("uvicorn.error").addFilter(_is_worth_telling)
    config = uvicorn.Config(
        application, log_level="warning", ws="none", server_header=False, proxy_headers=behind_proxy,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Pages that are open when the server ends are cut off, as is meant; uvicorn reports each as an error."""
    cut_off = record.exc_info is not None and record.exc_info[0] is asyncio.CancelledError
    return not cut_off and "timeout graceful shutdown exceeded" not in record.msg
