"""Who acts on the page, and what they may do: without logins everybody everything; with them a run belongs to who started it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape

from proxsparse import ProxSparseError
from proxsparse.accounts.user_file import UserFile
from proxsparse.runs import Run

_NAME: ContextVar[str | None] = ContextVar("name of the visitor whose click is handled", default=None)


@contextmanager
def acting_as(name: str | None) -> Iterator[None]:
    """While open, what is done here is done by the visitor of this name; None where there are no logins."""
    token = _NAME.set(name)
    try:
        yield
    finally:
        _NAME.reset(token)


@dataclass(frozen=True)
class Rights:
    """users: who may log in, None without logins. read_only: whether the page only shows."""

    users: UserFile | None = None
    read_only: bool = False

    @property
    def owner(self) -> str | None:
        """To whom a run belongs that is started now."""
        return None if self.users is None else _NAME.get()

    def require_acting(self) -> None:
        """Raise ProxSparseError where nothing may be started here."""
        if self.read_only:
            raise ProxSparseError(
                "This page only shows runs: to start or change one, open the explorer on a machine of your own."
            )

    def require_changing(self, run: Run) -> None:
        """Raise ProxSparseError where whoever acts may not change this run: it is somebody else's. An operator may, and whose runs
        belong to nobody, which were started before there were logins or on the command line, are the operators'."""
        self.require_acting()
        if self.users is None:
            return
        name, owner = _NAME.get(), run.header().get("owner")
        if name is not None and (self.users.role_of(name) == "operator" or name == owner):
            return
        whose = f"belongs to {owner}" if owner else "belongs to nobody who logs in here"
        raise ProxSparseError(
            f"Run {run.id} {whose}: look at it, or fork it to go on from there; an operator may change it."
        )

    def told(self, name: str | None) -> str:
        """What the visitor may do, as HTML for the top of the page."""
        if self.read_only:
            return "This page shows runs; nothing is started or changed here."
        if self.users is None:
            return "Whoever opens this page may start, change and delete runs."
        if name is not None and self.users.role_of(name) == "operator":
            return f"<b>{escape(name)}</b>, an operator: may change every run."
        return f"<b>{escape(name or '')}</b>: runs of others can be looked at, compared and forked."
