"""The documents in a file of text."""

from __future__ import annotations

import json
from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import refuse_lfs_pointer
from proxsparse.text.corpus import SEPARATOR


def read_documents(path: Path) -> list[str]:
    """The paragraphs of a .txt file, or the `text` fields of a .jsonl file."""
    refuse_lfs_pointer(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ProxSparseError(f"There is no file {str(path)!r}: check the path.") from None
    except UnicodeDecodeError as error:
        raise ProxSparseError(f"{path.name} is not text (byte {error.start} is not UTF-8): save it as UTF-8.") from None
    except OSError as error:
        raise ProxSparseError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
    if "\0" in content:
        raise ProxSparseError(f"{path.name} is not text (it holds zero bytes): give a UTF-8 .txt or .jsonl file.")
    if path.suffix == ".txt":
        return [paragraph for paragraph in content.replace("\r\n", "\n").split(SEPARATOR) if paragraph.strip()]
    documents = []
    for number, line in enumerate(content.split("\n"), start=1):  # JSON may hold what else ends lines in Unicode
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            raise ProxSparseError(
                f'Line {number} of {path.name} is not a JSON object with a "text": write {{"text": "…"}}.'
            )
        documents.append(entry["text"])
    return documents
