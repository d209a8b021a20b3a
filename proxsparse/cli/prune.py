"""`runs --prune`: say what nobody needs any more, ask, and free the disk of it."""

from __future__ import annotations

import argparse
import json
import sys

from proxsparse.errors import ProxSparseError
from proxsparse.runs.prune import bytes_freed, prunable, prune


def prune_runs(arguments: argparse.Namespace) -> int:
    """With --json nothing is asked, and nothing removed without --yes. Exit code 2 where something stays that was to go."""
    found = prunable(arguments.root, arguments.older)
    size = bytes_freed(found)
    listed = [{"path": str(each.path), "why": each.why, "bytes": bytes_freed([each])} for each in found]
    if not arguments.json:
        _show(listed, arguments.root)
    agreed = bool(found) and (arguments.yes or (not arguments.json and _agreed(size)))
    freed, kept = prune(found) if agreed else (0, [])
    if arguments.json:
        print(json.dumps({"found": listed, "bytes": size, "removed": agreed, "freed": freed, "kept": kept}))
        return 2 if kept else 0
    if found:
        print(f"Freed {_megabytes(freed)}." if agreed else "Nothing was removed.")
    for sentence in kept:
        print(f"error: {sentence}", file=sys.stderr)
    return 2 if kept else 0


def refuse_without_prune(arguments: argparse.Namespace) -> None:
    """Raise ProxSparseError where a flag is given that says something about --prune alone."""
    for name, given in (("older", arguments.older is not None), ("yes", arguments.yes)):
        if given:
            raise ProxSparseError(f"--{name} is about what --prune removes: add --prune, or leave it out.")


def _show(listed: list[dict], root: str) -> None:
    if not listed:
        print(f"There is nothing under {root} that could go.")
    for each in listed:
        print(f"{_megabytes(each['bytes']):>14}  {each['path']}: {each['why']}")


def _agreed(size: int) -> bool:
    print(f"Remove all this and free {_megabytes(size)}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
