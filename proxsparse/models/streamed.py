"""A model whose weights stay in its safetensors files: those of a decoder block are read when its turn comes, and let go after it.

transformers finds out where each parameter lies, as it does to offload a model to disk; a parameter that lies in the files in another
form than in the model, such as the experts of most mixtures, is written in the model's form into a temporary folder first.
"""

from __future__ import annotations

import functools
import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from proxsparse.errors import CannotStreamError, ProxSparseError
from proxsparse.layers import decoder_blocks
from proxsparse.layers.stored import Stored, is_stored, read_when_called
from proxsparse.memory import available_bytes, give_back_at_once


@dataclass
class Streaming:
    """How a model is streamed; its attribute `streaming`. folder: for what cannot be read where it lies. device: where its blocks
    compute. states_bytes: of hidden states that are kept in memory between blocks; more goes to the folder."""

    device: torch.device
    states_bytes: float
    folder: tempfile.TemporaryDirectory = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="proxsparse-")
    )


def begin_streaming(device: torch.device, states_bytes: int | None = None) -> tuple[Streaming, dict]:
    """The streaming of a model that is going to be loaded, and the arguments of `from_pretrained` that leave its weights on disk.

    states_bytes: default half of what is free.
    """
    if find_spec("accelerate") is None:
        raise CannotStreamError("Streaming a model needs the package accelerate: pip install 'proxsparse[stream]'.")
    if states_bytes is None:
        states_bytes = available_bytes(torch.device("cpu")) / 2
    # That weights stay on disk, of which it warns, is what was asked for.
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    give_back_at_once()
    streaming = Streaming(device, states_bytes)
    return streaming, {"device_map": {"": "disk"}, "offload_folder": streaming.folder.name}


def places_of(name: str, model) -> dict[str, dict]:
    """Where each parameter of a model lies that was loaded with the arguments of `begin_streaming`: {parameter: {"safetensors_file",
    "weight_name", "dtype"}}. accelerate's hooks know it, and are taken away: they would read a weight for each forward pass, where
    nobody could prune it.

    Raises ProxSparseError where a file holds another shape than the model has.
    """
    from accelerate.hooks import remove_hook_from_module

    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    places = next(hook.weights_map.dataset.index for hook in hooks if getattr(hook, "weights_map", None) is not None)
    remove_hook_from_module(model, recurse=True)
    _check_places(name, model, places)
    return places


def take_over(name: str, model, places: dict[str, dict], streaming: Streaming) -> None:
    """Let `model` read its weights from `places` when they are needed. The roles of its parameters have to be known already."""
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        parameter.stored = Stored(functools.partial(_read, name, places[key], streaming.device), streaming.device)
    for module in model.modules():
        for key, buffer in module.named_buffers(recurse=False):
            setattr(module, key, buffer.to(streaming.device))
    for module, parameters in parts_of(model):
        read_when_called(module, parameters)
    model.streaming = streaming


def _check_places(name: str, model, places: dict[str, dict]) -> None:
    by_file = defaultdict(list)
    for key, parameter in model.named_parameters():
        by_file[places[key]["safetensors_file"]].append((key, parameter))
    for path, held in by_file.items():
        with safe_open(path, "pt") as file:
            for key, parameter in held:
                shape = file.get_slice(places[key]["weight_name"]).get_shape()
                if tuple(shape) != tuple(parameter.shape):
                    raise ProxSparseError(
                        f"{key} of {name} has another shape than its config.json asks for: {tuple(shape)} instead of "
                        f"{tuple(parameter.shape)}; give weights and config.json of one model."
                    )


def _read(name: str, place: dict, device: torch.device) -> Tensor:
    """One tensor, in memory of its own: a mapped file would count as memory as long as it is open."""
    try:
        with safe_open(place["safetensors_file"], "pt", backend="pread") as file:
            values = file.get_tensor(place["weight_name"])
    except (OSError, SafetensorError) as error:
        raise ProxSparseError(f"{name} can no longer be read ({error}): put its files back, and start anew.") from error
    return values.to(device, getattr(torch, place["dtype"]))


def parts_of(model) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """What is in memory together: each decoder block, and each module outside of them with the parameters that are its own."""
    blocks = [block for _, _, block in decoder_blocks(model)]
    yield from ((block, list(block.parameters())) for block in blocks)
    inside = {module for block in blocks for module in block.modules()}
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and module not in inside:
            yield module, own


@contextmanager
def weights_where_they_are_read(model) -> Iterator[None]:
    """Inside, a model is run. Raises ProxSparseError for a streamed one that uses a weight outside of the module that holds it."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error) or not is_stored(model):
            raise
        raise ProxSparseError(
            f"{type(model).__name__} uses a weight outside of the module that holds it, where it is not read from its file: use the model "
            "without streaming it."
        ) from error


class HiddenStates:
    """The hidden states of all batches of a text between two blocks, on the CPU: so many bytes in memory, the others in files."""

    def __init__(self, streaming: Streaming):
        self.device, self.room = streaming.device, streaming.states_bytes
        self.folder = tempfile.TemporaryDirectory(dir=streaming.folder.name)
        self.kept: list[Tensor | Path] = []

    def append(self, states: Tensor) -> None:
        self.room -= states.nbytes
        self.kept.append(states if self.room >= 0 else Path(self.folder.name) / f"{len(self.kept)}.safetensors")
        self[len(self.kept) - 1] = states

    def __getitem__(self, index: int) -> Tensor:
        kept = self.kept[index]
        return (kept if isinstance(kept, Tensor) else load_file(kept)["states"]).to(self.device)

    def __setitem__(self, index: int, states: Tensor) -> None:
        states = states.cpu().contiguous()
        if isinstance(self.kept[index], Path):
            save_file({"states": states}, self.kept[index])
        else:
            self.kept[index] = states


def kept_states(model) -> HiddenStates | list[Tensor]:
    """Where the hidden states of a text stay between two blocks: of a streamed model as it says, of any other where it computes."""
    streaming = getattr(model, "streaming", None)
    return [] if streaming is None else HiddenStates(streaming)
