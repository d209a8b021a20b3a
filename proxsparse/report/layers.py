"""Numbers of each layer over the steps, block by projection, for the map of the layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from proxsparse.figures import QUANTITIES, layer_values
from proxsparse.figures.whole_masks import by_place
from proxsparse.report.packing import packed_numbers
from proxsparse.runs import Run
from proxsparse.runs.history.reader import History
from proxsparse.runs.readers.records import LineIndex

MOST_STEPS = 100  # of the map


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the indices below `count`, evenly apart; the first and the last are among them."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))}) if count else []


def layer_maps(run: Run, history: History | None) -> dict[str, Any] | None:
    """The map at some steps of the run, for each quantity; None where no step was taken.

    Returns
    -------
    dict
        projections, blocks: of the rows and columns. layers: the name of the (first) layer of each cell. quantities: name,
        meaning, form (of a number, as d3 writes it), steps, values (steps, projections, blocks), NaN where it is not known.
    """
    layers, index = run.layers(), LineIndex(run.path / "layers.jsonl")
    index.refresh()
    records = [record for at in spread(len(index.steps), MOST_STEPS) if (record := index.record(at))]
    if layers.empty or not records:
        return None
    quantities = []
    for name, (meaning, form) in QUANTITIES.items():
        tables = [layer_values(layers, record, name) for record in records]
        quantities.append(_quantity(name, meaning, form, [record["step"] for record in records], tables))
    if history is not None:
        quantities += _differences(history, layers)
    table = tables[0]
    return {
        "projections": list(table.index),
        "blocks": [int(block) for block in table.columns],
        "layers": by_place(layers).fillna("").to_numpy().tolist(),
        "quantities": quantities,
    }


def _differences(history: History, layers: pd.DataFrame) -> list[dict[str, Any]]:
    """What the mask keeps and that of magnitude, or of the start, drops; experts of one projection are averaged."""
    found = []
    for reference, called in (("magnitude", "magnitude"), ("start", "the start")):
        agreement = history.agreement(reference)
        chosen = agreement.iloc[spread(len(agreement), MOST_STEPS)]
        tables = [by_place(layers, 1 - row) for _, row in chosen.iterrows()]
        steps = [int(step) for step in chosen.index]
        found.append(_quantity(f"differs from {called}", f"kept weights that {called} drops", ".1%", steps, tables))
    return found


def _quantity(name: str, meaning: str, form: str, steps: list[int], tables: list[pd.DataFrame]) -> dict[str, Any]:
    values = np.stack([table.to_numpy(dtype=float, na_value=np.nan) for table in tables])
    return {"name": name, "meaning": meaning, "form": form, "steps": steps, "values": packed_numbers(values)}
