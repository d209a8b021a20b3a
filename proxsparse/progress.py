"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""progress(done, total, what): called before each piece of work with how many pieces are done, of how many, and what
comes next. What it raises ends the work."""


def no_progress(done: int, total: int, what: str) -> None:
    """Say nothing: the default everywhere."""
