"""Reads a compact export with json and numpy, without this library and without torch."""

import json
from pathlib import Path

import numpy as np

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}


def read_safetensors(path):
    """({name: array}, metadata): 8 bytes that say how long the header is, the header in JSON, then the values."""
    data = Path(path).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8:begin]), {}
    metadata = header.pop("__metadata__", {})
    for name, about in header.items():
        first, end = about["data_offsets"]
        values = np.frombuffer(data[begin + first : begin + end], DTYPES[about["dtype"]])
        if about["dtype"] == "BF16":  # the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        tensors[name] = values.reshape(about["shape"])
    return tensors, metadata


def read_compact(directory):
    """{name: array} of every tensor: masked layers (out, in) with their zeros, all others as they are stored."""
    directory = Path(directory)
    about, tensors = json.loads((directory / "compact.json").read_text()), {}
    for file in set(about["files"].values()):
        tensors |= read_safetensors(directory / file)[0]
    masks, metadata = read_safetensors(directory / "masks.safetensors")
    for layer, (rows, columns, n, m) in json.loads(metadata["masks"]).items():
        kept = np.unpackbits(masks[layer], axis=1, count=columns, bitorder="little").astype(bool).reshape(-1, m)
        values = tensors.pop(f"{layer}.kept").reshape(-1, n)
        weight = np.zeros(kept.shape, values.dtype)
        weight[kept] = values[np.arange(n) < kept.sum(1, keepdims=True)]  # zeros fill groups that keep fewer than n
        tensors[layer] = weight.reshape(rows, columns)
    return tensors | {name: tensors[same] for name, same in about["tied"].items()}
