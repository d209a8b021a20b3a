"""What the files of a model may name: files beside them, of safetensors, and no code. Looked at before transformers reads any.

A model's JSON is written by whoever made the model, and transformers opens what it names: an index may list a pickle, or a file
anywhere on this machine, and a link may lead there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from proxsparse.errors import ProxSparseError
from proxsparse.files import read_json

WEIGHTS_INDEX = "model.safetensors.index.json"
READ_FIRST = ("config.json", WEIGHTS_INDEX, "tokenizer_config.json")  # these name other files
NAMES_FILES = ("configuration_files", "fast_tokenizer_files", "transformers_weights")
MAY_BE_STALE = "_file"  # where a tokenizer lay when it was saved: such paths are common, and lead nowhere here
TEMPLATES = "additional_chat_templates"  # the one folder in a model's that transformers reads
KERNELS = ("attn_implementation", "experts_implementation")


def check_links(name: str, directory: Path) -> None:
    """Raise ProxSparseError where a model directory holds a link that leads out of it.

    A snapshot in the Hub's cache consists of links to the blobs of the same repository: these are its own.
    """
    own = _own_folders(directory)
    for folder in (directory, directory / TEMPLATES):  # in this order: the second may be a link itself
        for path in folder.iterdir() if folder.is_dir() else ():
            read = path.name == TEMPLATES or not path.is_dir()
            if read and path.is_symlink() and not _lies_in(path, own):
                raise ProxSparseError(
                    f"{name} holds a link that leads out of it ({path.relative_to(directory)}): put the file itself there."
                )


def check_names(name: str, directory: Path) -> None:
    """Raise ProxSparseError where the JSON of a model directory names files that are not its own, pickles, or code."""
    for file in sorted(directory.glob("*.json")):
        if file.name in READ_FIRST or file.name.endswith(".safetensors.index.json"):
            check_named_files(name, file, directory)


def check_hub_files(name: str, no_network: bool) -> str | None:
    """As `check_names`, for a model on the Hub. Returns the commit that was looked at, which is the one to load: another may be
    pushed in between. None where there is nothing to look at."""
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    waiting, commit = list(READ_FIRST), None
    for file in waiting:
        found = cached_file(
            name, file, local_files_only=no_network, revision=commit, _raise_exceptions_for_missing_entries=False
        )
        if found is None:
            continue
        commit = extract_commit_hash(found, commit)
        check_named_files(name, Path(found), None)
        weights = read_json(Path(found)).get("transformers_weights") or ""
        if weights.endswith(".index.json") and weights not in waiting:
            waiting.append(weights)
    return commit


def check_named_files(name: str, file: Path, directory: Path | None) -> None:
    """Raise ProxSparseError where a JSON file of a model names a file that is not a plain one beside it, weights that are no
    safetensors, or a kernel, which is code.

    directory: where the model lies; None for one on the Hub.
    """
    try:
        content = read_json(file)
    except ProxSparseError as error:
        raise ProxSparseError(f"In {name}, {error} Download the model again.") from error
    if not isinstance(content, dict):
        raise ProxSparseError(f"{file.name} of {name} is damaged: it holds no JSON object; download the model again.")
    if file.name.endswith(".index.json"):
        weights = content.get("weight_map")
        if not isinstance(weights, dict):
            raise ProxSparseError(f"{file.name} of {name} is damaged: it has no weight_map; download the model again.")
        for value in weights.values():
            _require_weights(name, file, value)
        return
    for key, value in _entries(content):
        if key.endswith(KERNELS) and any("/" in text for text in _texts(value)):
            raise ProxSparseError(
                f"{file.name} of {name} asks for a kernel from the Hub ({key}), which is code and never run: take the entry out."
            )
        if key == "transformers_weights" and value is not None:
            _require_weights(name, file, value)
        elif key in NAMES_FILES and not all(_is_plain(text) for text in _texts(value)):
            raise _elsewhere(name, file, value)
        elif key.endswith(MAY_BE_STALE) and directory is not None:
            for text in _texts(value):
                if (directory / text).exists() and not _is_plain(text):
                    raise _elsewhere(name, file, text)


def _require_weights(name: str, file: Path, value: Any) -> None:
    if not isinstance(value, str) or not _is_plain(value):
        raise _elsewhere(name, file, value)
    if not value.endswith((".safetensors", ".safetensors.index.json")):
        raise ProxSparseError(
            f"{file.name} of {name} names weights that are no safetensors ({value[:80]!r}), and pickled ones are never read: convert "
            "them first."
        )


def _elsewhere(name: str, file: Path, value: Any) -> ProxSparseError:
    return ProxSparseError(
        f"{file.name} of {name} names {str(value)[:80]!r}, which is no plain name of a file beside it: put the file there, and "
        "name it so."
    )


def _is_plain(text: str) -> bool:
    """Whether a text is a name and no path, on any system; `\\0` ends a path early."""
    return (
        text not in ("", ".", "..")
        and text == os.path.basename(text) == PureWindowsPath(text).name
        and "\0" not in text
    )


def _own_folders(directory: Path) -> tuple[Path, ...]:
    """Where links may lead: the directory itself; for `<repository>/snapshots/<revision>` the repository's blobs, too."""
    real = directory.resolve()
    is_snapshot = real.parent.name == "snapshots" and real.parent.parent.name.startswith("models--")
    return (real, real.parent.parent / "blobs") if is_snapshot else (real,)


def _lies_in(path: Path, folders: tuple[Path, ...]) -> bool:
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return False
    return any(real.is_relative_to(folder) for folder in folders)


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys and values, of what lies within, too."""
    waiting = [content]
    while waiting:
        for key, value in waiting.pop().items():
            yield key, value
            if isinstance(value, dict):
                waiting.append(value)


def _texts(value: Any) -> list[str]:
    """The texts that a value is, or holds."""
    if isinstance(value, dict):
        value = [*value.values()]
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
