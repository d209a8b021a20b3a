"""The file of users. It is read again as soon as it changed, so that who is taken out of it is out at once."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from proxsparse.accounts.passwords import HashedPassword, hashed, nobodys_password
from proxsparse.errors import ProxSparseError
from proxsparse.files import check_version, local_path, read_json, write_json

VISITOR, OPERATOR = "visitor", "operator"
ROLES = (VISITOR, OPERATOR)
VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class User:
    """role: `visitor` or `operator`. password: as it is kept."""

    role: str
    password: HashedPassword


class UserFile:
    """Names, roles and hashed passwords of those who may log in.

    Parameters
    ----------
    path : str or Path
        JSON that `proxsparse auth add` writes. It need not be there yet.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     users = UserFile(Path(folder) / "users.json")
    ...     users.add("ada", "correct horse", "operator")
    ...     users.role_of("ada"), users.role_of("eve")
    ('operator', None)
    """

    def __init__(self, path: str | Path):
        self.path = local_path(path)
        self._read: tuple[object, dict[str, User]] = (None, {})
        self._nobody = nobodys_password()

    def users(self) -> dict[str, User]:
        """{name: user}, as the file is now; empty where there is none. Raises ProxSparseError for a damaged file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if self._read[0] != stamp:
            self._read = (stamp, self._load())
        return self._read[1]

    def role_of(self, name: str) -> str | None:
        """`visitor` or `operator`; None for who is not in the file.

        Parameters
        ----------
        name : str
            As at the login.

        Returns
        -------
        str or None
            The role that the file says now.

        Raises
        ------
        ProxSparseError
            For a damaged file.

        Examples
        --------
        >>> UserFile("/no/such/file").role_of("ada")
        """
        user = self.users().get(name)
        return user.role if user else None

    def check(self, name: str, password: str) -> User | None:
        """The user whose name and password these are, else None; it takes as long for an unknown name as for a known one."""
        user = self.users().get(name)
        matches = (user.password if user else self._nobody).matches(password)
        return user if matches else None

    def add(self, name: str, password: str, role: str = VISITOR) -> None:
        """Write a user into the file, or give one that is there a new password and role.

        Parameters
        ----------
        name : str
            Up to 64 letters, digits and . _ @ -
        password : str
            8 to 1024 characters; only what scrypt makes of it is kept.
        role : str
            `visitor` or `operator`.

        Raises
        ------
        ProxSparseError
            For another name, password or role, and for a file that is damaged or cannot be written.

        Examples
        --------
        >>> UserFile("users.json").add("ada", "correct horse")  # doctest: +SKIP
        """
        if not NAME.fullmatch(name):
            raise ProxSparseError(
                f"The name {name[:80]!r} cannot be used: give up to 64 letters, digits and . _ @ - that begin with a letter "
                "or digit."
            )
        if role not in ROLES:
            raise ProxSparseError(f"role is {role!r}: choose one of {', '.join(ROLES)}.")
        self._write(self.users() | {name: User(role, hashed(password))})

    def remove(self, name: str) -> None:
        """Take a user out of the file; who is logged in under this name is so no longer. Raises ProxSparseError for an unknown."""
        users = dict(self.users())
        if users.pop(name, None) is None:
            known = f"it has {', '.join(sorted(users))}" if users else "it has nobody"
            raise ProxSparseError(f"{self.path} has no user {name[:80]!r}: {known}.")
        self._write(users)

    def _load(self) -> dict[str, User]:
        content = read_json(self.path)
        try:
            check_version(content["version"], VERSION, str(self.path))
            users = {
                name: User(values["role"], HashedPassword.from_dict(values["password"]))
                for name, values in content["users"].items()
            }
            if not all(user.role in ROLES for user in users.values()):
                raise ValueError("a role is neither visitor nor operator")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ProxSparseError(
                f"{self.path} is no file of users ({error}): make a new one with `proxsparse auth add NAME --file FILE`."
            ) from error
        return users

    def _write(self, users: dict[str, User]) -> None:
        """Whole, and never readable by others, not for a moment: it comes to be in a folder that only its owner may enter."""
        content = {
            "version": VERSION,
            "users": {name: {"role": user.role, "password": user.password.to_dict()} for name, user in users.items()},
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=f".{self.path.name}.") as folder:
                made = Path(folder) / self.path.name
                write_json(made, content)
                made.chmod(0o600)
                os.replace(made, self.path)
        except OSError as error:
            raise ProxSparseError(f"{self.path} cannot be written: {error.strerror}; give another --file.") from error
