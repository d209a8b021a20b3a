"""What a model or a corpus may be called, and which of these names are paths. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from proxsparse.errors import ProxSparseError

CORPORA = ("bundled", "wikitext2", "c4")
NAMES = ("embedded", *CORPORA)  # whatever a directory may be called


def absolute(name: str) -> str:
    """A model or corpus that is a path here, as the path that finds it from everywhere; any other name as it is. Raises
    ProxSparseError for a name that can only be a path, and is none."""
    path = Path(name).expanduser()
    if path.exists() and name not in NAMES:
        return str(path.resolve())
    if name.startswith((".", "/", "~")) or path.suffix in (".txt", ".jsonl", ".gguf"):
        raise ProxSparseError(f"There is no file or directory {name!r}: check the path.")
    return name
