"""Arrays as text for the page: base64 of what zlib makes of their bytes. `web/decode.js` is the other side."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from proxsparse.runs.history.coding import to_planes


def packed_bits(values: np.ndarray) -> dict[str, Any]:
    """Bool, any shape: eight to a byte, the first in the lowest bit."""
    return _packed("bits", values.shape, np.packbits(values.reshape(-1), bitorder="little").tobytes())


def packed_numbers(values: np.ndarray) -> dict[str, Any]:
    """Real numbers, any shape, as float32; NaN stays."""
    return _packed("float32", values.shape, np.ascontiguousarray(values, "<f4").tobytes())


def packed_series(values: np.ndarray) -> dict[str, Any]:
    """Real numbers (steps, …) that change little from one step to the next, as float16 in units of `unit`, a power of two.

    What is compressed is how far the 16 bits of a number, taken as an integer, are from those of the step before: first the
    lower bytes of all, then the higher ones. Of soft weights that takes 0.6 of their float16.
    """
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if len(finite) else 0.0
    unit = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
    bits = (values / unit).astype("<f2").view("<u2").reshape(len(values), -1)
    moved = np.diff(bits, axis=0, prepend=np.zeros_like(bits[:1]))  # modulo 2^16
    return _packed("series", values.shape, to_planes(moved.reshape(-1))) | {"unit": unit}


def _packed(kind: str, shape: tuple[int, ...], raw: bytes) -> dict[str, Any]:
    return {"kind": kind, "shape": list(shape), "data": base64.b64encode(zlib.compress(raw, 9)).decode()}
