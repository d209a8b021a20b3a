"""Writing so that a reader, or a crash, never sees half a file.

A file is either written whole (temporary name, then rename) or is a JSON-lines record that only grows; the last
line of a record may be torn by a crash, and readers leave it out.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from proxsparse.errors import ProxSparseError

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, as on Linux and macOS
MASKS_FILE, PROVENANCE_FILE = "masks.safetensors", "provenance.json"  # beside the weights of an exported model
COMPACT_FILE = "compact.json"  # of one without its zeros: which tensor lies where
ORDER_FILE = "order.safetensors"  # in which order channels stand, of a model that `reorder` wrote and of its exports


def cache_dir() -> Path:
    """Where converted models, and texts that models wrote, are kept: $PROXSPARSE_CACHE, else the user's cache directory."""
    if "PROXSPARSE_CACHE" in os.environ:
        return local_path(os.environ["PROXSPARSE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "proxsparse"


def local_path(name: str | os.PathLike[str]) -> Path:
    """A path as a person writes it, `~` included. Raises ProxSparseError for a text that can name no file: one with a zero byte
    or half a character in it, or of a user who is not there."""
    try:
        text = os.fspath(name)
        if "\0" in text:
            raise ProxSparseError(f"{text[:80]!r} names no file, since it holds a zero byte: check the path.")
        if any(len(part) > LONGEST_NAME for part in os.fsencode(text).split(b"/")) or len(text) > LONGEST_PATH:
            raise ProxSparseError(
                f"{text[:40]!r} … has {len(text):,} characters, more than a path may have: check the path."
            )
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise ProxSparseError(
            f"{text[:80]!r} names no file, since it holds half a character: check the path."
        ) from None
    except RuntimeError:
        raise ProxSparseError(f"There is no user for {text[:80]!r}: write the whole path.") from None


# How files and directories are named while they are written, and for good where the process was killed: by `written_whole`, by
# `proxsparse.runs.checkpoints`, and by safetensors, which first writes beside the path that it is given.
TEMPORARY = (".*.part", ".tmp??????")


def temporaries_in(directory: Path) -> list[Path]:
    """Files and directories below a directory that are being written, or were when a process was killed."""
    found = {path for pattern in TEMPORARY for path in directory.rglob(pattern) if path.is_file() or path.is_dir()}
    return sorted(path for path in found if found.isdisjoint(path.parents))


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and takes the name, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_free(directory: Path) -> None:
    """Raise ProxSparseError where a directory is not new and not empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ProxSparseError(f"{directory} exists and is not empty: choose another directory.")


@contextmanager
def model_written_whole(directory: Path) -> Iterator[Path]:
    """Yield a new directory beside `directory`, for the files of a model; on success it takes the name, else it is removed.

    Raises ProxSparseError where the name is taken, and where the disk is full or refuses.
    """
    check_free(directory)
    temporary = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o644)
        temporary.chmod(0o755)
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
    except (OSError, SafetensorError) as error:
        raise ProxSparseError(
            f"The model cannot be written to {directory}: {why_not_written(error)}; free some space, or choose another "
            "directory."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
LFS_BYTES = 1024  # a pointer has fewer


def refuse_lfs_pointer(path: Path) -> None:
    """Raise ProxSparseError where a file is only Git LFS's pointer to it, which a clone without LFS leaves in its place."""
    if not path.is_file() or path.stat().st_size >= LFS_BYTES:
        return
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ProxSparseError(
                f"{path} is a Git LFS pointer and not the file itself: run `git lfs pull` where it was cloned, or download it."
            )


def is_full_disk(error: BaseException) -> bool:
    """Whether a write failed for want of room: no space, a quota, or a limit on a file's size."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, SafetensorError):  # it only says so in words
        return any(f"os error {number})" in str(error) for number in numbers)
    return isinstance(error, OSError) and error.errno in numbers


def free_bytes(path: Path) -> int:
    """What can still be written where `path` lies."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def bytes_in(directory: Path) -> int:
    """Bytes of all files in a directory, each counted once under however many names; 0 where there is none."""
    sizes = {}
    for folder, _, names in os.walk(directory):  # which goes on where a folder has just been deleted
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue  # a temporary file that has just got its name
            if stat.S_ISREG(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def why_not_written(error: BaseException) -> str:
    """The reason of a failed write, in few words."""
    return "the disk is full" if is_full_disk(error) else getattr(error, "strerror", None) or str(error)


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they are written as null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(_finite(value), indent=1, allow_nan=False), encoding="utf-8")


def read_json(path: Path, default: Any = None) -> Any:
    """What the file holds; `default` where there is none. Raises ProxSparseError where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except OSError as error:  # a folder in its place, no right to read it, a disk that does not answer
        raise ProxSparseError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, and numbers of thousands of digits
        raise ProxSparseError(f"{path.name} is damaged: it holds no JSON ({str(error)[:80]}).") from error


def check_version(found: object, newest: int, what: str) -> None:
    """Raise ProxSparseError where `what`, of the format version `found`, is newer than this program reads."""
    if not isinstance(found, int) or isinstance(found, bool) or found > newest:
        raise ProxSparseError(
            f"{what} has the format version {found!r} and this proxsparse reads versions up to {newest}: update proxsparse."
        )


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Add one line. After a crash the file may end in half a line: that half is cut off first."""
    line = json.dumps(_finite(record), allow_nan=False).encode() + b"\n"
    with open(path, "ab+") as file:
        cut_torn_line(file)
        file.write(line)


def cut_torn_line(file: BinaryIO) -> None:
    """Cut off half a line at the end of a record that is opened to be appended to."""
    if file.seek(0, os.SEEK_END) and not _ends_with_newline(file):
        file.truncate(_last_newline(file))


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _last_newline(file: BinaryIO) -> int:
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def keep_records(tail: Tail, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a record with only the lines for which `keep(record)` holds (a resumed run drops what it will redo). tail: has
    read nothing yet; what it leaves out is dropped as well, and stays counted there."""
    records = tail.read()
    kept = [record for record in records if keep(record)]
    if len(kept) == len(records) and not tail.left_out:
        return
    with written_whole(tail.path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")


class Tail:
    """Reads a growing record piece by piece: each `read()` returns the records added since the last one.

    A record that became shorter (a run that was resumed from an earlier checkpoint) is read again from its start;
    `restarted` then says that what was read before no longer counts. A line that is no JSON, or does not hold what `fits` asks
    for, is left out: `left_out` counts them.
    """

    def __init__(self, path: Path, fits: Callable[[Any], bool] = lambda record: isinstance(record, dict)):
        self.path, self.fits, self.left_out = path, fits, 0
        self._offset, self.restarted = 0, False
        self._inode: int | None = None

    def read(self) -> list[dict[str, Any]]:
        self.restarted = False
        if not self.path.is_file():
            self.restarted, self._offset, self.left_out = self._offset > 0, 0, 0
            return []
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size < self._offset or (self._inode is not None and status.st_ino != self._inode):
                self._offset, self.restarted, self.left_out = 0, True, 0
            self._inode = status.st_ino
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        read = [parsed(line) for line in whole.split(b"\n") if line]
        records = [record for record in read if self.fits(record)]
        self._offset += len(whole)
        self.left_out += len(read) - len(records)
        return records


def parsed(line: bytes) -> Any:
    """What a line of JSON holds; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
