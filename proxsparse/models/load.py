"""Where weights come from: the embedded model, a Hub id, a directory, or a .gguf file."""

from __future__ import annotations

import gc
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from proxsparse.errors import CannotStreamError, ProxSparseError
from proxsparse.files import local_path
from proxsparse.layers.trace import roles_of
from proxsparse.models.checks import (
    ADAPTER_FILES,
    adapter_error,
    check_causal,
    check_decoder,
    check_directory,
    check_loading,
    check_tokenizer,
    drop_quantization_mark,
)
from proxsparse.models.compact import is_compact, load_compact
from proxsparse.models.gguf import converted, embedded_gguf
from proxsparse.models.language_model import (
    LanguageModel,
    context_of,
    load_tokenizer,
    loading_error,
    quiet_transformers,
    resolve_device,
)
from proxsparse.models.own_files import check_hub_files
from proxsparse.models.size import check_size
from proxsparse.models.streamed import Streaming, begin_streaming, places_of, take_over
from proxsparse.models.twin import twin_of
from proxsparse.models.weight_files import HUB_SECONDS


def load_model(
    name: str = "embedded", device: str | None = None, dtype: torch.dtype | None = None, stream: bool = False,
    states_bytes: int | None = None,
) -> LanguageModel:  # fmt: skip
    """Load `embedded`, a Hub id, a local directory (of transformers, or a compact export) or a .gguf file.

    Only safetensors are read, and no code that comes with a model is run. A model is loaded as its checkpoint holds it, or
    refused: tensors that are missing or left over, an adapter beside it, an encoder-decoder or a model that is not causal,
    and a tokenizer that is not the model's are errors.

    Parameters
    ----------
    name : str
        A directory may hold a transformers model or a compact export. A name that begins with a directory of this
        machine is a path; another `org/model` is a Hub id, looked for in the local cache where the Hub does not answer.
    device : str, optional
        cpu, cuda or cuda:1; default: cuda where there is one.
    dtype : torch.dtype, optional
        Of the weights; default: the checkpoint's own.
    stream : bool
        Leave the weights in their files, and read those of a decoder block when its turn comes: `perplexity`, the methods that go
        block by block and `export_model` then run in the memory of about one block. Not for a compact export.
    states_bytes : int, optional
        Of a streamed model: bytes of hidden states that are kept in memory between two blocks; more goes to temporary files.
        Default: half of the memory that is free.

    Returns
    -------
    LanguageModel
        In eval mode, with its tokenizer.

    Raises
    ------
    ProxSparseError
        For a model that is not there, is not what it has to be, cannot be read or streamed, or does not fit into the device's memory.

    Examples
    --------
    >>> lm = load_model("embedded")  # doctest: +SKIP
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import find_adapter_config_file

    device, is_local = resolve_device(device), True
    try:
        if is_compact(local_path(name)):
            if stream:
                raise CannotStreamError(f"{name} is a compact export, which cannot be streamed: load it whole.")
            return load_compact(name, str(device), dtype)
        with quiet_transformers():
            source, is_local = source_of(name)
            no_network = is_local or not hub_answers()
            if not is_local and find_adapter_config_file(source, local_files_only=no_network):
                raise adapter_error(name, ADAPTER_FILES[0])
            known: dict = {"local_files_only": no_network}
            if not is_local:
                known["revision"] = check_hub_files(source, no_network) or "main"
            config = AutoConfig.from_pretrained(source, trust_remote_code=False, **known)
            check_decoder(name, config)
            if is_local:
                check_size(name, Path(source), config)
            tokenizer = load_tokenizer(source, **known)
            streaming, placed = begin_streaming(device, states_bytes) if stream else (None, {})
            model, info = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True,
                output_loading_info=True, **placed, **known,
            )  # fmt: skip
        check_loading(name, model, info)
        check_tokenizer(name, model, tokenizer)
        drop_quantization_mark(model)
        model.eval()
        if streaming is None:
            model.to(device)
            check_causal(name, model)
        else:
            _stream(name, model, streaming)
    except torch.cuda.OutOfMemoryError:
        raise ProxSparseError(
            f"{name} does not fit into the memory of {device}: choose device cpu or a smaller model, or stream it (--stream)."
        ) from None
    except ProxSparseError:
        raise
    except Exception as error:  # transformers reads what a stranger wrote, and there is nothing that it may not raise
        raise loading_error(name, is_local, error) from error
    return LanguageModel(model, tokenizer, name, source, context_of(model))


def _stream(name: str, model, streaming: Streaming) -> None:
    """Let a model whose weights were left on disk read them block by block."""
    places = places_of(name, model)
    try:
        check_causal(name, twin_of(model))
        roles_of(model)  # before its weights are read whenever it is run
    except ProxSparseError:
        raise
    except Exception as error:  # whatever a model raises that lacks blocks
        raise CannotStreamError(
            f"{name} has decoder blocks that do not run without the others ({type(model).__name__}), and cannot be streamed: load it whole."
        ) from error
    take_over(name, model, places, streaming)
    gc.collect()  # the parts of the twin refer to one another


def source_of(name: str) -> tuple[str, bool]:
    """(what transformers loads, whether it is on this machine). A name that looks like a path never reaches the Hub."""
    if name == "embedded":
        return str(converted(embedded_gguf())), True
    path = local_path(name)
    if name.endswith(".gguf"):
        if not path.is_file():
            raise ProxSparseError(f"There is no file {name!r}: check the path.")
        return str(converted(path)), True
    if name and path.is_dir():
        check_directory(name, path)
        if not (path / "config.json").is_file():
            run = (
                "it is a run, export it first" if (path / "run.json").is_file() else "give that of a transformers model"
            )
            raise ProxSparseError(f"The directory {name!r} has no config.json: {run}.")
        return str(path), True
    if _is_path(name):
        raise ProxSparseError(
            f"There is no directory {name!r}: give `embedded`, a Hub id, a directory, or a .gguf file."
        )
    return name, False


def _is_path(name: str) -> bool:
    """Whether a name is meant as a path on this machine: one of another form than a Hub id, or that begins with a
    directory that is here, such as `runs/misspelt`."""
    first, slash, _ = name.partition("/")
    known = bool(slash) and (first == "runs" or Path(first).is_dir())
    return not name or name.startswith((".", "/", "~")) or name.count("/") > 1 or known or Path(name).exists()


def hub_answers() -> bool:
    """Whether the Hub can be reached, by one short request; transformers itself tries for a minute and more."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS).close()
    except HTTPError:  # an answer as well
        return True
    except OSError as error:  # a certificate that Python does not know is an answer, too: transformers brings its own
        return isinstance(getattr(error, "reason", error), SSLError)
    return True
