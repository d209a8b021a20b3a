"""`--stream`: a model that does not fit into memory, read from its files block by block."""

from __future__ import annotations

import argparse
from typing import Any

from proxsparse.errors import ProxSparseError

GIGABYTE = 1_000_000_000


def add_streaming(verb: argparse.ArgumentParser, note: str = "") -> None:
    """The flag, for a command that reads a model and runs none. note: what else it changes."""
    verb.add_argument(
        "--stream", action="store_true",
        help=f"read the model from its files block by block, where it does not fit into memory{note}",
    )  # fmt: skip


def add_streaming_of_text(verb: argparse.ArgumentParser, note: str = "") -> None:
    """The flags, for one that runs a text through the model."""
    add_streaming(verb, note)
    verb.add_argument(
        "--states-memory", type=float, metavar="GB",
        help="with --stream: of hidden states, between two blocks, so much is kept in memory, and more in $TMPDIR (default half of what "
        "is free)",
    )  # fmt: skip


def streaming_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `load_model` takes. Raises ProxSparseError for a size that is none, or without --stream."""
    gigabytes = arguments.states_memory
    if gigabytes is None:
        return {"stream": arguments.stream}
    if not arguments.stream:
        raise ProxSparseError("--states-memory is about a model that is streamed: add --stream, or leave it out.")
    if not 0 <= gigabytes < float("inf"):
        raise ProxSparseError(f"states-memory is {gigabytes:g}: give a number of gigabytes, 0 or more.")
    return {"stream": True, "states_bytes": int(gigabytes * GIGABYTE)}
