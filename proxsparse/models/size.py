"""Whether a configuration asks for about as much as its files hold: known before memory is taken for what they do not."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from proxsparse.errors import ProxSparseError

PARAMETERS_A_BYTE = 2  # of files that hold weights of four bits; more are never stored in one
HEADER_BYTES = 8  # of the length with which a safetensors file begins


def check_size(name: str, directory: Path, config) -> None:
    """Raise ProxSparseError where config.json asks for more layers or parameters than the files of the model can hold.

    A configuration is a few lines that anybody can write, and transformers builds what it asks for: 300,000 layers take
    minutes, a width of ten million the machine's memory.

    Parameters
    ----------
    name : str
        What the model was called.
    directory : Path
        Where its safetensors files lie.
    config : transformers configuration
        Already read.
    """
    from transformers import AutoModelForCausalLM

    files = sorted(directory.glob("*.safetensors"))
    if not files:
        return  # transformers says what is missing
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    counts = [_tensors_in(file) for file in files]
    if None in counts:
        return  # their reader says that they are damaged
    stored = sum(counts)
    if isinstance(layers, int) and layers > stored:
        raise ProxSparseError(
            f"config.json of {name} asks for {layers:,} layers and its files hold {stored:,} tensors: give weights and config.json of "
            "one model."
        )
    room = PARAMETERS_A_BYTE * sum(file.stat().st_size for file in files)
    with torch.device("meta"):  # shapes without memory
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > room:
        raise ProxSparseError(
            f"config.json of {name} asks for {parameters:,} parameters, more than its files have room for: give weights and "
            "config.json of one model."
        )


def _tensors_in(file: Path) -> int | None:
    """How many tensors a safetensors file says it holds; None where its header cannot be read."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(HEADER_BYTES), "little")
        if length > file.stat().st_size:
            return None
        try:
            return len(json.loads(opened.read(length)).keys() - {"__metadata__"})
        except (ValueError, RecursionError, AttributeError):
            return None
