"""A causal language model with its tokenizer, on a device; and what is said when one cannot be loaded."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from proxsparse import text
from proxsparse.config import MIXED, OWN_TEXT
from proxsparse.errors import ProxSparseError
from proxsparse.layers.stored import in_memory
from proxsparse.models.channel_order import ChannelOrder, order_of
from proxsparse.models.own_text import own_text_file
from proxsparse.progress import Progress, no_progress
from proxsparse.text import Corpus, HeldOut, Text

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

    @property
    def needs_bos(self) -> bool:
        """Whether the model is one whose predictions go wrong in a window that does not begin with the BOS token: the Gemma
        models, for which lm-eval adds it as well (`HFLM` in lm_eval/models/huggingface.py)."""
        return "gemma" in self.model.config.model_type and self.tokenizer.bos_token_id is not None

    def windows(
        self, corpus: str, length: int, context: int | None = None, bos: str = "auto", progress: Progress = no_progress,
        samples: int = 0,
    ) -> Text:  # fmt: skip
        """The windows of a corpus for this model; see `load_windows`, which it calls with what the model knows.

        corpus: also `self`, the text that the model writes itself, and `mixed`, that and the bundled corpus; progress is told how far
        the writing is, and the weights have to be dense. samples: as there. bos: `every` begins each window with the BOS token, `once`
        leaves it where the tokenizer puts it, `auto` is `every` for models that need it (`needs_bos`).
        """
        return text.load_windows(
            self._corpus(corpus, progress), self.tokenizer, length, context, self.context, samples=samples, progress=progress,
            **self._reading(bos),
        )  # fmt: skip

    def heldout(
        self, corpus: str, context: int, bos: str = "auto", learned_on: Corpus | None = None,
        also_learned_on: Collection[str] = (), progress: Progress = no_progress,
    ) -> HeldOut:  # fmt: skip
        """Windows of a text that a mask is judged on; see `load_heldout`, which it calls with what the model knows. bos: as for
        `windows`."""
        known = {"learned_on": learned_on, "also_learned_on": also_learned_on, "progress": progress}
        return text.load_heldout(
            self._corpus(corpus, progress), self.tokenizer, context, self.context, **known, **self._reading(bos)
        )

    def _corpus(self, name: str, progress: Progress) -> str | Corpus:
        """The text itself where the model has written it, or a part of it; else the same name."""
        if name not in (OWN_TEXT, MIXED):
            return name
        file = own_text_file(self, fingerprint(self.model, order_of(self.source)), progress)
        return (
            text.mixed_with_bundled(file)
            if name == MIXED
            else dataclasses.replace(text.load_corpus(str(file)), name=name)
        )

    def _reading(self, bos: str) -> dict:
        """How this model reads a text."""
        if bos not in ("auto", "every", "once"):
            raise ProxSparseError(f"bos is {bos!r}: choose one of auto, every, once.")
        every = bos == "every" or (bos == "auto" and self.needs_bos)
        return {"vocabulary": self.model.get_input_embeddings().weight.shape[0], "bos": every}


def context_of(model) -> int:
    """The longest input that `model` was made for, in tokens."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**31


def dtype_name(dtype: torch.dtype) -> str:
    """As configurations write it.

    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def load_tokenizer(source, **options):
    """As `AutoTokenizer.from_pretrained`, without code that comes with it; ValueError for a broken tokenizer.json."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:
        if type(error) is not Exception:  # `tokenizers`, written in Rust, raises nothing narrower
            raise
        raise ValueError(f"its tokenizer cannot be read: {error}") from error


SAMPLED = 1024  # values of each tensor that a fingerprint is made of


def fingerprint(model, order: ChannelOrder | None = None) -> str:
    """What tells the weights of one model from another's: a sha256 of the names, types and shapes of all tensors, of the sum
    of the bits of each, which a change of any one value changes, and of some values, evenly spaced. It does not depend on
    the device. order: of channels that were reordered; the fingerprint is then that of the model as it was before."""
    digest = hashlib.sha256()
    undo = {} if order is None else order.inverse()
    for name, tensor in model.state_dict(keep_vars=True).items():
        with in_memory([tensor]):
            values = tensor.detach()
            if name in undo:
                dim, inverse = undo[name]
                values = values.index_select(dim, inverse.to(values.device))
            values = values.flatten()
            as_bytes = values.view(torch.uint8)
            words = as_bytes.view(torch.int32) if len(as_bytes) % 4 == 0 else as_bytes
            total = int(words.sum(dtype=torch.int64))
            digest.update(f"{name} {values.dtype} {tuple(tensor.shape)} {total}\n".encode())
            some = values[:: max(1, len(values) // SAMPLED)][:SAMPLED].cpu().contiguous()
            digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
    reason = " ".join(str(error).split()) or type(error).__name__
    return ProxSparseError(f"{name} cannot be loaded ({reason[:200]}): check its files, or choose another model.")
