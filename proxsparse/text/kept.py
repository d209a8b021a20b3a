"""Texts of the Hub that were read and tokenized once, kept as safetensors in the cache directory.

A file is named by everything that its text and tokens depend on. Of several processes that need the same one reads it, and the
others wait for what it keeps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from proxsparse.errors import ProxSparseError
from proxsparse.files import cache_dir, why_not_written, written_whole
from proxsparse.progress import Progress
from proxsparse.text.tokens import Tokenized

VERSION = 1  # of the way in which a text is read and tokenized: what was kept before it was changed is not used
POLL_SECONDS = 0.5


def kept(name: str, key: dict, read: Callable[[], Tokenized], progress: Progress) -> Tokenized:
    """What was kept under a key; else what `read` gives, which is kept.

    Parameters
    ----------
    name : str
        Of the text; the name of its file begins with it.
    key : dict
        All that text and tokens depend on, as JSON.
    read : callable
        Called where nothing is kept, or what is kept is damaged; what it raises leaves nothing behind.
    progress : callable
        Told now and then while another process reads; what it raises ends the waiting.

    Raises
    ------
    ProxSparseError
        Where the cache cannot be written.
    """
    about = json.dumps({"version": VERSION} | key, sort_keys=True)
    digest = hashlib.sha256(about.encode()).hexdigest()
    path = cache_dir() / "hub-text" / f"{name}-{digest[:16]}.safetensors"
    found = _load(path)
    if found is not None:
        return found
    with _locked(path, lambda: progress(0, 1, f"another process reads {name}: waiting for part")):
        found = _load(path)  # which another process may have kept meanwhile
        if found is None:
            found = read()
            _save(path, found, about)
    return found


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    lock = FileLock(f"{path}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=POLL_SECONDS)
        except Timeout:
            waiting()
        except OSError as error:
            raise _cannot_keep(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _save(path: Path, text: Tokenized, about: str) -> None:
    tensors = {"ids": text.ids.numpy().astype(np.int32), "text": np.frombuffer(text.text.encode(), np.uint8)}
    metadata = {"content": "tokenized text", "about": about, "sha256": _digest(tensors)}
    try:
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise _cannot_keep(path, error) from error


def _cannot_keep(path: Path, error: Exception) -> ProxSparseError:
    return ProxSparseError(
        f"The text {path.name} cannot be kept in {path.parent} ({why_not_written(error)}): name another place in $PROXSPARSE_CACHE."
    )


def _load(path: Path) -> Tokenized | None:
    """What is kept in a file; None where there is none, or it is damaged."""
    try:
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in ("ids", "text")}
            whole = (file.metadata() or {}).get("sha256") == _digest(tensors)
    except (OSError, SafetensorError):
        return None
    if not whole:
        return None
    return Tokenized(tensors["text"].tobytes().decode(), torch.from_numpy(tensors["ids"].astype(np.int64)))


def _digest(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def fingerprint_of(tokenizer) -> str:
    """What tells one tokenizer from another: a sha256 of its vocabulary, and of its rules where it has them as JSON."""
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules.pop("truncation"), rules.pop("padding")  # which a call sets
    else:
        rules = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
