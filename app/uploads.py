"""Texts that visitors upload: each lies once, in the folder of its visitor, until no run has needed it for a while."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from pathlib import Path

from app.limits import Limits
from proxsparse import ProxSparseError
from proxsparse.files import written_whole
from proxsparse.runs.uploads import FOLDER, unused

UPLOAD_BYTES = 50 * 1024 * 1024  # of one text
ENDINGS = (".txt", ".jsonl")
_ONE_BY_ONE = threading.Lock()


class Uploads:
    """The texts under `.uploads/` in the folder of the runs; with logins in a folder for each visitor."""

    def __init__(self, runs: Path, limits: Limits):
        self.runs, self.folder, self.limits = runs, runs / FOLDER, limits

    def find(self, name: str) -> Path | None:
        """The text of that name, whoever uploaded it; None where there is none."""
        if not re.fullmatch(r"[\w.-]+", name):
            return None
        return next((path for path in self._all() if path.name == name), None)

    def name_of(self, path: str) -> str:
        """By which name the form knows the text of a run: an uploaded one by the name it was given."""
        return Path(path).name if Path(path).is_relative_to(self.folder) else path

    def keep(self, path: str, visitor: str | None) -> str:
        """Take an uploaded file in, if it is a text and the visitor may keep one more; returns the name to choose it by.

        The file is moved, or removed where it is refused: it does not stay where the server received it.
        """
        source = Path(path)
        try:
            self._check(source)
            stem = re.sub(r"[^A-Za-z0-9_-]+", "-", source.stem)[:40].strip("-") or "text"
            folder = self.folder / visitor if visitor else self.folder
            target = folder / f"{stem}-{secrets.token_hex(3)}{source.suffix}"
            with _ONE_BY_ONE:  # many at once would each be the last that has room
                self._remove_old()
                self._require_room(folder, source)
                with written_whole(target) as temporary:  # it may come from another disk, where moving is copying
                    shutil.move(source, temporary)
            return target.name
        finally:
            source.unlink(missing_ok=True)

    @staticmethod
    def _check(source: Path) -> None:
        from proxsparse.text import read_documents

        if source.suffix not in ENDINGS:
            raise ProxSparseError(
                f"{source.name} is neither .txt nor .jsonl: save the text under one of these endings."
            )
        if not source.is_file():
            raise ProxSparseError(
                f"{source.name} is gone, perhaps since it was uploaded twice at once: upload it again."
            )
        if source.stat().st_size > UPLOAD_BYTES:
            raise ProxSparseError(f"{source.name} is larger than {UPLOAD_BYTES >> 20} MB: upload a part of it.")
        if not read_documents(source):
            raise ProxSparseError(f"{source.name} is empty: upload some text.")

    def _require_room(self, folder: Path, source: Path) -> None:
        """Raise ProxSparseError where the visitor keeps as many texts, or as much, as the operator allows."""
        texts = _texts_in(folder)
        count, size = len(texts), sum(path.stat().st_size for path in [*texts, source])
        most, most_mb = self.limits.max_uploads, self.limits.max_uploads_mb
        way_out = "choose one that is here, or ask who runs this server for room"
        if most and count >= most:
            raise ProxSparseError(f"{count} texts are kept of your uploads, and no more than {most} may be: {way_out}.")
        if most_mb and size > most_mb * 1e6:
            raise ProxSparseError(
                f"With {source.name} your uploads would take {size / 1e6:.3g} MB and may take {most_mb:g} MB: {way_out}."
            )

    def _remove_old(self) -> None:
        if self.limits.upload_days:
            before = time.time() - self.limits.upload_days * 86400
            for path in unused(self.runs):
                if path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        return [*_texts_in(self.folder), *(path for each in self.folder.glob("[!.]*/") for path in _texts_in(each))]


def _texts_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("[!.]*")) if path.is_file()]
