"""Starts the explorer: `proxsparse app`, or `python app.py` in the repository."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from pathlib import Path

from app.limits import Limits
from proxsparse import ProxSparseError
from proxsparse.accounts.user_file import UserFile
from proxsparse.cli.output import write_in_any_encoding
from proxsparse.cli.settings import Parser, add_settings
from proxsparse.files import local_path
from proxsparse.runs.disk import limit_disk
from proxsparse.runs.queue import WORKERS, allow_workers
from proxsparse.settings import given_settings

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

BEHIND_A_PROXY = """\
Behind a reverse proxy, which should speak https: leave --host as it is, and give the address that browsers show with
--allow-origin (https://example.org); the proxy passes on Host or X-Forwarded-Host, and X-Forwarded-For and
X-Forwarded-Proto (from another machine than this: $FORWARDED_ALLOW_IPS names the proxy's address). Where it shows the
page under a path, it takes the path away and --root-path names it (/explorer).
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, serve the page until interrupted; returns the exit code."""
    write_in_any_encoding()
    try:
        options = _parser().parse_args(arguments)
        allow_workers(options.workers)
        users, limits = _users(options), Limits(**given_settings(Limits, vars(options)))
        limit_disk(limits.max_run_gb, limits.max_runs_gb)
    except ProxSparseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    # Here: what is wrong with an option is said without waiting for the page's packages.
    from app.guard import Served, origin_of
    from app.operator import Operator
    from app.server import application, listening, serve
    from app.visitors import Rights

    try:
        operator = Operator(
            _runs_folder(options.runs),
            tuple(_allowed(folder) for folder in options.allow),
            Rights(users, options.read_only),
            limits,
        )
        served = Served(
            options.host.strip("[]").lower(), tuple(map(origin_of, options.allow_origin)), _embedded_in(options)
        )
        listener = listening(served.host, options.port)
        port = listener.getsockname()[1]
        page = application(operator, served, port, users, _root_path(options.root_path))
    except ProxSparseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, OverflowError) as error:
        print(
            f"error: Port {options.port} of {options.host} cannot be used ({error}): give another --port.",
            file=sys.stderr,
        )
        return 2
    if users is None and not served.to_this_machine_only:
        print("Everybody who reaches this machine can use the explorer: --auth-file asks for a login.", file=sys.stderr)
    name = f"[{served.host}]" if ":" in served.host else served.host
    print(f"ProxSparse Explorer: http://{name}:{port}  (Ctrl-C ends it; runs go on)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # how it is ended
        serve(page, listener, behind_proxy=bool(served.origins))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="proxsparse app", description="ProxSparse Explorer, in the browser.", epilog=BEHIND_A_PROXY, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only; 0.0.0.0: all)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default 7860)")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (default runs)")
    parser.add_argument(
        "--workers", type=int, metavar="N",
        help=f"runs that work on a device at a time; the others wait for their turn (default ${WORKERS}, else 1)",
    )  # fmt: skip
    parser.add_argument(
        "--auth-file",
        metavar="FILE",
        help="ask visitors to log in: a file of users that `proxsparse auth add NAME --file FILE` makes",
    )
    parser.add_argument(
        "--read-only", action="store_true", help="only show runs, start and change nothing: for a public page"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose models and texts may be named in the browser; repeatable",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="a further address that browsers reach the page by, such as http://gpu-box:7860; repeatable. Without it, the page "
        "answers to the --host that it listens on, and on 0.0.0.0 to every number, but to no name except localhost",
    )
    parser.add_argument(
        "--embed-in", action="append", default=[], metavar="URL",
        help="a site whose pages may show this one in a frame, such as https://huggingface.co; repeatable; with --read-only, since "
        "clicks in a frame can be stolen",
    )  # fmt: skip
    parser.add_argument(
        "--root-path", default="", metavar="PATH", help="the path under which a reverse proxy shows the page"
    )
    add_settings(
        parser, Limits, "how much visitors may ask for; runs that are started on the command line have no such limits"
    )
    parser.add_argument("--auth", nargs="?", const="", help=argparse.SUPPRESS)  # of before
    return parser


def _users(options: argparse.Namespace) -> UserFile | None:
    for name, given in (("--auth", options.auth), ("$PROXSPARSE_AUTH", os.environ.get("PROXSPARSE_AUTH"))):
        if given is not None:
            raise ProxSparseError(
                f"{name} is no longer taken, since others on the machine can read the password there: make a file of users with "
                "`proxsparse auth add NAME --file FILE`, and give --auth-file FILE."
            )
    if options.auth_file is None:
        return None
    users = UserFile(options.auth_file)
    if not users.users():
        raise ProxSparseError(
            f"--auth-file names {options.auth_file!r}, which holds no users: `proxsparse auth add NAME --file FILE` adds one."
        )
    return users


def _embedded_in(options: argparse.Namespace) -> tuple[str, ...]:
    from app.guard import origin_of

    if options.embed_in and not options.read_only:
        raise ProxSparseError(
            "--embed-in lets pages of another site show this one in a frame, where a visitor's clicks can be stolen: give "
            "--read-only as well, with which a click changes nothing."
        )
    return tuple(origin_of(site, "--embed-in") for site in options.embed_in)


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise ProxSparseError(f"--root-path is {text!r}: give a path such as /explorer.")
    return path


def _runs_folder(name: str) -> Path:
    path = local_path(name).resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProxSparseError(
            f"The folder {name!r} cannot hold runs: {error.strerror}; give another --runs."
        ) from error
    return path


def _allowed(name: str) -> Path:
    path = local_path(name).resolve()
    if not path.is_dir():
        raise ProxSparseError(f"--allow names {name!r}, which is no folder: check the path.")
    return path
