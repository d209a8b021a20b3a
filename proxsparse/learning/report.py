"""What a step reports, counted from what the proximal operator touches anyway."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # what follows runs reads reports too, without torch
    from proxsparse.proximal.counts import Sums


@dataclass(frozen=True)
class StepReport:
    """One step in numbers.

    step: steps taken. loss: nats a token, on the calibration batch, before the update. regularizer: R of the soft
    weights after the step, in the metric, summed over layers. nonzeros: share of all groups with k nonzero soft weights,
    for k = m, m − 1, …, n, and under n − 1 with at most that many: with 2:4, {4: …, 3: …, 2: …, 1: …}. flips,
    flips_from_start: weights whose kept/dropped state differs from the last step's mask, and from the starting one.
    drift: ‖W − W0‖/‖W0‖ over all prunable weights. layers: {column: one entry a layer} for the columns regularizer,
    nonzeros_k, flips, flips_from_start and drift.
    """

    step: int
    loss: float
    regularizer: float
    lambda1: float
    learning_rate: float
    gradient_norm: float
    nonzeros: dict[int, float]
    flips: int
    flips_from_start: int
    drift: float
    seconds: float
    seconds_gradient: float
    seconds_optimizer: float
    seconds_prox: float
    seconds_report: float
    tokens_per_second: float
    layers: dict[str, list]

    def record(self) -> dict:
        """The step as one flat record, without the layers; the composition as columns nonzeros_k."""
        record = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "nonzeros":
                record |= {f"nonzeros_{k}": share for k, share in value.items()}
            elif entry.name != "layers":
                record[entry.name] = value
        return record

    def layer_record(self) -> dict:
        """The layers as one record: the step, and a list over the layers for each column."""
        return {"step": self.step, **self.layers}


@dataclass(frozen=True)
class LayerRow:
    """One layer's share of a report; sums of squares are kept so that totals are exact."""

    groups: int
    regularizer: float
    nonzeros: dict[int, int]  # how many groups have k nonzeros, as in `StepReport`
    flips: int
    flips_from_start: int
    squared_drift: float
    squared_norm: float

    @classmethod
    def of(cls, sums: Sums, groups: int, squared_norm: float, n: int, m: int) -> LayerRow:
        """From what the operator's pass counted of a layer with so many groups and ‖W0‖²."""
        return cls(
            groups=groups,
            regularizer=sums.regularizer,
            nonzeros=dict(zip(range(m, n - 2, -1), sums.nonzeros, strict=True)),
            flips=sums.flips,
            flips_from_start=sums.flips_from_start,
            squared_drift=sums.squared_drift,
            squared_norm=squared_norm,
        )


def total(rows: list[LayerRow], **about) -> StepReport:
    """The report of a step from its layers."""
    groups = sum(row.groups for row in rows)
    norm = sum(row.squared_norm for row in rows)
    nonzeros = {k: sum(row.nonzeros[k] for row in rows) / groups for k in rows[0].nonzeros}
    layers = {"regularizer": [row.regularizer for row in rows]}
    layers |= {f"nonzeros_{k}": [row.nonzeros[k] / row.groups for row in rows] for k in nonzeros}
    layers["flips"] = [row.flips for row in rows]
    layers["flips_from_start"] = [row.flips_from_start for row in rows]
    layers["drift"] = [_ratio(row.squared_drift, row.squared_norm) for row in rows]
    return StepReport(
        regularizer=sum(row.regularizer for row in rows),
        nonzeros=nonzeros,
        flips=sum(row.flips for row in rows),
        flips_from_start=sum(row.flips_from_start for row in rows),
        drift=_ratio(sum(row.squared_drift for row in rows), norm),
        layers=layers,
        **about,
    )


def _ratio(squared: float, squared_norm: float) -> float:
    return (squared / squared_norm) ** 0.5 if squared_norm else 0.0


def pattern_share(record):
    """Share of groups with at most n nonzeros, of a step's record or table, or of each layer of a layer record.

    record: anything with columns nonzeros_k. The two smallest k are n and "at most n − 1".
    """
    columns = sorted((name for name in record if name.startswith("nonzeros_")), key=lambda name: int(name[9:]))
    n, fewer = (np.asarray(record[name]) for name in reversed(columns[:2]))
    return n + fewer
