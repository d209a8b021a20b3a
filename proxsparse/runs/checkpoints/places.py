"""Where checkpoints lie, and what is done with one as a whole, of either kind.

step-000040.safetensors     of one process
step-000040/                of several: what each wrote of its own, and `checkpoint.json`, without which it is none

A directory comes and goes under a hidden name, so that half of one is never taken for a checkpoint.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

INDEX, VERSION = "checkpoint.json", 1
_NAME = re.compile(r"step-(\d{6,9})(\.safetensors)?")


def checkpoints_in(directory: Path) -> dict[int, Path]:
    """{step: its checkpoint}, oldest first."""
    found = {path: _NAME.fullmatch(path.name) for path in directory.glob("step-*")}
    whole = {int(name[1]): path for path, name in sorted(found.items()) if name and _is_one(path, name[2])}
    return dict(sorted(whole.items()))


def shared_checkpoint(directory: Path, step: int) -> Path:
    """The directory of several processes' checkpoint."""
    return directory / f"step-{step:06d}"


def hidden(path: Path) -> Path:
    """A new name beside `path`, of what is being written or removed: see `proxsparse.files.temporaries_in`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def put(written: Path, path: Path) -> None:
    """Let a directory that is written take its name, in the place of one that has it."""
    before = hidden(path)
    if path.exists():  # whoever is killed between these two renames leaves the checkpoint of an earlier step
        path.rename(before)
    written.rename(path)
    shutil.rmtree(before, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a directory; half a directory never keeps the name."""
    if path.is_dir() and not path.is_symlink():
        gone = hidden(path)
        path.rename(gone)
        shutil.rmtree(gone)
    else:
        path.unlink(missing_ok=True)


def set_aside(checkpoint: Path) -> None:
    """Give one that cannot be read a name that is no checkpoint's."""
    aside = checkpoint.with_suffix(".unreadable")
    if aside.exists():
        remove(aside)
    checkpoint.rename(aside)


def share(checkpoint: Path, directory: Path) -> None:
    """Put a checkpoint into another directory of checkpoints, too: no second copy of gigabytes where the file system can share."""
    target = directory / checkpoint.name
    if checkpoint.is_dir():
        target.mkdir(parents=True)
    else:
        directory.mkdir(parents=True)
    for file in files_of(checkpoint):
        to = target / file.name if checkpoint.is_dir() else target
        try:
            os.link(file, to)
        except OSError:
            shutil.copyfile(file, to)


def files_of(checkpoint: Path) -> list[Path]:
    return sorted(file for file in checkpoint.iterdir() if file.is_file()) if checkpoint.is_dir() else [checkpoint]


def _is_one(path: Path, suffix: str | None) -> bool:
    return path.is_file() if suffix else (path / INDEX).is_file()
