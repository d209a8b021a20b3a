"""By what it is found that a checkpoint's files are not those that were written: crc32."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LENGTH = 8  # bytes of a safetensors file that say how long its header is


def checksum(tensor: Tensor) -> int:
    """Of the values, as they lie in a file. tensor: contiguous, on the CPU."""
    import torch

    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy())


def header_checksum(path: Path) -> int:
    """Of what a safetensors file says of its tensors."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        return zlib.crc32(file.read(min(length, path.stat().st_size)))


def json_checksum(*contents: object) -> int:
    """Of what is written as JSON."""
    return zlib.crc32(json.dumps(contents, sort_keys=True).encode())


def compare(name: str, tensor: Tensor, written: int) -> None:
    """Raise ValueError where values do not have the checksum that was written."""
    if checksum(tensor) != written:
        raise ValueError(f"the values of {name} are not those that were written")
