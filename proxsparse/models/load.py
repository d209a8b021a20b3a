"""Where weights come from: the embedded model, a Hub id, a directory, or a .gguf file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from proxsparse.errors import ProxSparseError
from proxsparse.models.compact import is_compact, load_compact
from proxsparse.models.gguf import converted, embedded_gguf
from proxsparse.models.language_model import (
    LanguageModel,
    context_of,
    loading_error,
    quiet_transformers,
    resolve_device,
)


def load_model(name: str = "embedded", device: str | None = None, dtype: torch.dtype | None = None) -> LanguageModel:
    """Load `embedded`, a Hub id, a local directory (of transformers, or a compact export) or a .gguf file.

    device: default cuda where there is one, else cpu. dtype: default the checkpoint's own. Only safetensors are read,
    and no code that comes with a model is run. Raises ProxSparseError, one sentence, for everything that a user can
    mend.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device, is_local = resolve_device(device), True
    try:
        if is_compact(Path(name).expanduser()):
            return load_compact(name, str(device), dtype)
        with quiet_transformers():
            source, is_local = _source(name)
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=is_local)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype or "auto", use_safetensors=True, local_files_only=is_local
            )
        model.to(device).eval()
    except torch.cuda.OutOfMemoryError:
        raise ProxSparseError(
            f"{name} does not fit into the memory of {device}: choose device cpu or a smaller model."
        ) from None
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, SafetensorError) as error:
        raise loading_error(name, is_local, error) from error
    return LanguageModel(model, tokenizer, name, source, context_of(model))


def _source(name: str) -> tuple[str, bool]:
    """(what transformers loads, whether it is on this machine). A name that looks like a path never reaches the Hub."""
    if name == "embedded":
        return str(converted(embedded_gguf())), True
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise ProxSparseError(f"There is no file {name!r}: check the path.")
        return str(converted(path)), True
    if path.is_dir():
        if not (path / "config.json").is_file():
            run = (
                "it is a run, export it first" if (path / "run.json").is_file() else "give that of a transformers model"
            )
            raise ProxSparseError(f"The directory {name!r} has no config.json: {run}.")
        return str(path), True
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ProxSparseError(
            f"There is no directory {name!r}: give `embedded`, a Hub id, a directory, or a .gguf file."
        )
    return name, False
