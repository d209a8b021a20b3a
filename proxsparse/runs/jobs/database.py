"""A database in which several machines share a sweep's study, by the URL that Optuna and SQLAlchemy take.

A URL is written into run.json, which whoever sees the run can read: it holds no password. That is in the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from proxsparse.errors import ProxSparseError

PASSWORD = "PROXSPARSE_STORAGE_PASSWORD"


def checked_url(text: str) -> str:
    """A URL as it is written down: the file of an SQLite database by its whole path. Raises ProxSparseError for what is none, or
    names its password."""
    url = _parsed(text)
    if url.password is not None:
        raise ProxSparseError(
            f"The storage's URL holds a password, which would be written into the run: leave it out, and set ${PASSWORD}."
        )
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        url = url.set(database=str(Path(url.database).resolve()))
    return url.render_as_string(hide_password=False)


def open_database(text: str) -> RDBStorage:
    """The storage at a URL. Raises ProxSparseError where it cannot be reached."""
    url, password = _parsed(text), os.environ.get(PASSWORD)
    if password and url.username:
        url = url.set(password=password)
    try:
        return RDBStorage(url.render_as_string(hide_password=False))
    except (SQLAlchemyError, OptunaError, ImportError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = reason.replace(password, "***") if password else reason
        raise ProxSparseError(
            f"The storage {_parsed(text).render_as_string()} cannot be used ({reason[:200].rstrip('.')}): check its URL, and that "
            "the database runs and its driver is installed."
        ) from error


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
        url.get_backend_name()
    except (SQLAlchemyError, ValueError) as error:
        raise ProxSparseError(
            f"storage is {text[:80]!r}: give the URL of a database, such as sqlite:///sweep.db or postgresql://user@host/name, or the "
            "path of a journal."
        ) from error
    if url.get_backend_name() == "redis":
        raise ProxSparseError("storage is in Redis, whose snapshots Optuna unpickles: give a database or a journal.")
    return url
