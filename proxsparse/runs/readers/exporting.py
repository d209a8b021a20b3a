"""What an export of a run will be, before it is written: its size in each format, its model card, what it can gain at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsparse.config import EXPORT_FORMATS
from proxsparse.export.card import RUN_AS_TWO_FOUR, model_card
from proxsparse.export.estimate import ITEM_BYTES, bound, sizes_of
from proxsparse.models.origin import origin_of
from proxsparse.runs.jobs.export import learned_provenance
from proxsparse.runs.run import Run

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

NOT_YET = "The proof stands here once the files are written and read back."


def sizes_ahead(run: Run) -> dict[str, dict]:
    """{format: as `sizes_of` gives it}; empty where the run does not say how large its model is."""
    extent, layers, learn = run.extent(), run.layers(), run.job().learn
    if extent is None or layers.empty:
        return {}
    item = ITEM_BYTES[extent.dtype]
    shapes = [(rows, columns, item) for rows, columns in zip(layers["rows"], layers["columns"], strict=True)]
    return {format: sizes_of(shapes, extent.bytes, extent.dtype, learn.n, learn.m, format) for format in EXPORT_FORMATS}


def speed_ahead(run: Run) -> dict[str, float] | None:
    """The bound on what sparse kernels can gain, as `bound` gives it; None where no kernel takes the pattern, or the run does not
    say how large its model is."""
    extent, layers, learn = run.extent(), run.layers(), run.job().learn
    if extent is None or layers.empty or (learn.n, learn.m) not in RUN_AS_TWO_FOUR:
        return None
    return bound(int((layers["rows"] * layers["columns"]).sum()), extent.outside)


def card_ahead(run: Run, format: str) -> ModelCard | None:
    """The model card that an export of the newest masks would have, but for its proof; None where there are no masks yet."""
    step, learn = max(run.masks(), default=None), run.job().learn
    if step is None:
        return None
    size = sizes_ahead(run).get(format, {"summary": ""})["summary"]
    origin = origin_of(run.job().model)
    return model_card(origin, learn.n, learn.m, len(run.layers()), learned_provenance(run, step), NOT_YET, format, size)
