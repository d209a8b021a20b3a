"""`push`, and what `export --push` shares with it."""

from __future__ import annotations

import argparse
import json
import shlex

from proxsparse.cli.bar import Bar
from proxsparse.errors import ProxSparseError
from proxsparse.export.push import check_target
from proxsparse.export.push import push as push_files


def add_push(verb: argparse.ArgumentParser) -> None:
    """How a repository is pushed to."""
    verb.add_argument("--public", action="store_true", help="everybody may see what is pushed (default: private)")
    verb.add_argument("--revision", metavar="BRANCH", help="the branch that is pushed to (default main)")


def check_push(arguments: argparse.Namespace) -> None:
    """Raise ProxSparseError where what `export` is asked to push cannot be pushed, before anything is loaded."""
    if arguments.push is not None:
        check_target(arguments.push, arguments.revision)
    elif arguments.public or arguments.revision is not None:
        raise ProxSparseError("--public and --revision say how an export is pushed: give --push ORG/NAME as well.")


def push_export(report: dict, arguments: argparse.Namespace) -> dict:
    """Push what `export_model` has just written and proven. Where that fails, the export stays, and the sentence says how it is
    pushed later."""
    try:
        return push_files(
            report["directory"], arguments.push, report["verification"], arguments.revision, arguments.public
        )
    except ProxSparseError as error:
        again = ["proxsparse", "push", report["directory"], arguments.push]
        again += ["--public"] * arguments.public + (["--revision", arguments.revision] if arguments.revision else [])
        raise ProxSparseError(
            f"{error} The export is written and proven, in {report['directory']}; push it later with: {shlex.join(again)}"
        ) from error


def push(arguments: argparse.Namespace) -> int:
    check_target(arguments.repo, arguments.revision)
    from proxsparse.export.verification import verify  # here: a wrong name is refused without loading anything

    with Bar("verify") as progress:
        proof = verify(arguments.directory, arguments.original, progress)
    pushed = push_files(arguments.directory, arguments.repo, proof.to_dict(), arguments.revision, arguments.public)
    if arguments.json:
        print(json.dumps(pushed))
    else:
        print(proof.summary)
        say_pushed(pushed)
    return 0


def say_pushed(pushed: dict) -> None:
    seen = "private" if pushed["private"] else "public"
    print(
        f"Pushed {len(pushed['files'])} files to {pushed['repo']} ({seen}, branch {pushed['revision']}): {pushed['url']}"
    )
