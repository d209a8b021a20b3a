"""What an export weighs and what sparse kernels could gain at most, from shapes alone. Torch is not needed, and nothing is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
TENSOR_CORES = 2  # how many times as fast sparse tensor cores multiply 2:4 matrices, by their data sheets


@dataclass(frozen=True)
class Extent:
    """What a dense checkpoint of a model holds: its dtype, bytes of all tensors (tied ones once), and the multiply-adds of one
    token in linear maps outside the prunable layers, the LM head among them."""

    dtype: str
    bytes: int
    outside: int


def sizes_of(
    masked: Iterable[tuple[int, int, int]], total: int, dtype: str, n: int, m: int, format: str
) -> dict[str, str | int | float]:
    """How much room the weights of a model take under n:m masks, in bytes, beside the dense checkpoint.

    masked: (rows, columns, bytes a weight) of each layer with a mask; total: bytes of all tensors of the dense checkpoint.
    Returns {"dtype", "dense_bytes", "stored_bytes", "ratio"} of all tensors, the same three with "masked_" before them of
    the masked layers alone, and "summary", a sentence. Stored are, in a compact checkpoint, the kept values and one bit a
    weight; the bits are not counted in a dense one, which does not need them.
    """
    layers = list(masked)
    dense = sum(rows * columns * item for rows, columns, item in layers)
    kept = dense
    if format == "compact":
        kept = sum(rows * columns * item * n // m + mask_bytes(rows, columns) for rows, columns, item in layers)
    stored = total - dense + kept
    if format == "compact":
        summary = (
            f"The weights take {stored:,} bytes, {stored / total:.1%} of the {total:,} of a dense checkpoint in {dtype}; the "
            f"{len(layers)} masked layers alone take {kept / dense:.1%}."
        )
    else:
        summary = f"The weights take {total:,} bytes in {dtype}, as without a mask: the zeros are stored."
    return {
        "dtype": dtype, "dense_bytes": total, "stored_bytes": stored, "ratio": stored / total,
        "masked_dense_bytes": dense, "masked_stored_bytes": kept, "masked_ratio": kept / dense, "summary": summary,
    }  # fmt: skip


def mask_bytes(rows: int, columns: int) -> int:
    """Of a packed mask: one bit a weight, rows rounded up to whole bytes."""
    return rows * ((columns + 7) // 8)


def bound(pruned: int, outside: int) -> dict[str, float]:
    """How much faster a model can become at most where sparse tensor cores multiply its 2:4 layers (Amdahl's law).

    pruned, outside: multiply-adds of one token in the layers with masks, and in the other linear maps. Attention's own products
    and everything else that takes time are left out, so that no measurement can come above. Returns {"share" of the
    multiply-adds that lies in pruned layers, "speedup"}.
    """
    share = pruned / (pruned + outside)
    return {"share": share, "speedup": 1 / (1 - share + share / TENSOR_CORES)}
