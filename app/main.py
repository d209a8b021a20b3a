"""Starts the explorer: `proxsparse app`, or `python app.py` in the repository."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from proxsparse import ProxSparseError
from proxsparse.cli.output import write_in_any_encoding
from proxsparse.cli.settings import Parser

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, serve the page until interrupted; returns the exit code."""
    parser = Parser(prog="proxsparse app", description="ProxSparse Explorer, in the browser.", allow_abbrev=False)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default 7860)")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (default runs)")
    parser.add_argument(
        "--auth", metavar="USER:PASSWORD", help="ask visitors to log in; better given as $PROXSPARSE_AUTH"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose models and texts may be named in the browser; repeatable",
    )
    write_in_any_encoding()
    try:
        options = parser.parse_args(arguments)
    except ProxSparseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    from app import style  # here: what is wrong with an option is said without waiting for the page's packages
    from app.downloads import routes
    from app.operator import UPLOAD_BYTES, Operator
    from app.shell import Shell

    try:
        operator = Operator(_runs_folder(options.runs), tuple(_allowed(folder) for folder in options.allow))
        auth = _auth(options.auth or os.environ.get("PROXSPARSE_AUTH"))
        shell = Shell(operator)
        blocks = shell.build()
        blocks.queue(default_concurrency_limit=None)
        blocks.launch(
            server_name=options.host, server_port=options.port, auth=auth, quiet=True, show_error=True, ssr_mode=False,
            strict_cors=True, max_file_size=UPLOAD_BYTES, theme=style.theme(), css=style.CSS + shell.css, head=style.HEAD, footer_links=[],
            app_kwargs={"routes": routes(operator, needs_login=auth is not None)}, prevent_thread_lock=True,
        )  # fmt: skip
    except ProxSparseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: Port {options.port} of {options.host} cannot be used ({error}): give another --port.",
            file=sys.stderr,
        )
        return 2
    print(f"ProxSparse Explorer: http://{options.host}:{options.port}  (Ctrl-C ends it; runs go on)", flush=True)
    try:
        blocks.block_thread()
    finally:
        blocks.close(verbose=False)
    return 0


def _runs_folder(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProxSparseError(
            f"The folder {name!r} cannot hold runs: {error.strerror}; give another --runs."
        ) from error
    return path


def _allowed(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if not path.is_dir():
        raise ProxSparseError(f"--allow names {name!r}, which is no folder: check the path.")
    return path


def _auth(text: str | None) -> tuple[str, str] | None:
    if not text:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise ProxSparseError("The login is not USER:PASSWORD: give both, with a colon between.")
    return user, password
