"""A password as it is kept: what scrypt (RFC 7914) makes of it, with the salt and the parameters that were used."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass

from proxsparse.errors import ProxSparseError

SHORTEST, LONGEST = 8, 1024  # of a password, in characters; the second keeps a guess from costing what it likes
COST, BLOCK, PARALLEL = 2**15, 8, 3  # 32 MB and some tenths of a second a guess; OWASP lists these three together
MOST_BYTES = 2**28  # of memory that a file may ask for
SALT_BYTES = HASH_BYTES = 32


@dataclass(frozen=True)
class HashedPassword:
    """salt, hash: hexadecimal. n, r, p: scrypt's cost, block size and parallelization, so that they may be raised later."""

    salt: str
    hash: str
    n: int = COST
    r: int = BLOCK
    p: int = PARALLEL

    def matches(self, password: str) -> bool:
        """Whether `password` is the one that was hashed. How long that takes does not depend on the answer.

        Examples
        --------
        >>> hashed("correct horse").matches("correct horse")
        True
        """
        return hmac.compare_digest(_scrypt(password, self), bytes.fromhex(self.hash))

    def to_dict(self) -> dict[str, str | int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> HashedPassword:
        """What `to_dict` gave. Raises ValueError for anything else, and for parameters that would take the machine's memory."""
        try:
            made = cls(**values)  # type: ignore[arg-type]
            sizes = (len(bytes.fromhex(made.salt)), len(bytes.fromhex(made.hash)))
        except TypeError as error:
            raise ValueError(f"it holds no hashed password ({error})") from error
        if sizes != (SALT_BYTES, HASH_BYTES):
            raise ValueError("the salt or the hash has another length than it was written with")
        if not all(type(value) is int and value > 0 for value in (made.n, made.r, made.p)):
            raise ValueError("the parameters of scrypt are not whole numbers above 0")
        if made.n < 2 or made.n & (made.n - 1):
            raise ValueError("scrypt's n is no power of two")
        if _memory(made) > MOST_BYTES or made.p > 16:
            raise ValueError("the parameters of scrypt ask for more than they may")
        return made


def hashed(password: str) -> HashedPassword:
    """A password as it is kept, with a random salt.

    Parameters
    ----------
    password : str
        8 to 1024 characters.

    Returns
    -------
    HashedPassword
        Another one each time, since the salt is.

    Raises
    ------
    ProxSparseError
        For a password that is too short or too long; the message does not hold it.

    Examples
    --------
    >>> hashed("correct horse").matches("wrong horse")
    False
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise ProxSparseError(f"The password has {len(password)} characters: choose one of {SHORTEST} to {LONGEST}.")
    bare = HashedPassword(secrets.token_hex(SALT_BYTES), "")
    return HashedPassword(bare.salt, _scrypt(password, bare).hex())


def nobodys_password() -> HashedPassword:
    """One that no password matches, against which a guess for an unknown name is checked: it takes as long as for a known."""
    return HashedPassword(secrets.token_hex(SALT_BYTES), secrets.token_hex(HASH_BYTES))


def _scrypt(password: str, how: HashedPassword) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=bytes.fromhex(how.salt), n=how.n, r=how.r, p=how.p, maxmem=_memory(how) + 2**20, dklen=HASH_BYTES,
    )  # fmt: skip


def _memory(how: HashedPassword) -> int:
    return 128 * how.r * (how.n + how.p + 2)
