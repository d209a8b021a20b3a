"""Reading a report back, without the page's own scripts."""

import base64
import json
import re
import zlib

import numpy as np


def data_of(page):
    """What the page's scripts are given."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def unpacked(entry):
    """What `proxsparse.report.packing` packed."""
    raw, shape = zlib.decompress(base64.b64decode(entry["data"])), entry["shape"]
    if entry["kind"] == "bits":
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=int(np.prod(shape)), bitorder="little")
        return bits.astype(bool).reshape(shape)
    if entry["kind"] == "float32":
        return np.frombuffer(raw, "<f4").reshape(shape)
    low, high = np.frombuffer(raw, np.uint8).reshape(2, -1).astype(int)
    bits = (low + 256 * high).reshape(shape).cumsum(axis=0) % 65536
    return bits.astype("<u2").view("<f2").astype(np.float32) * entry["unit"]


def inside(layer):
    """Where a layer's tile lies in it."""
    row, column, rows, columns = layer["tile"]
    return np.s_[row : row + rows, column : column + columns]
