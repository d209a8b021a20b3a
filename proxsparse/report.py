"""What a step reports, counted from what the proximal operator touches anyway."""

from __future__ import annotations

from dataclasses import asdict, dataclass

LAYER_COLUMNS = (
    "regularizer", "nonzeros_4", "nonzeros_3", "nonzeros_2", "nonzeros_1", "flips", "flips_from_start", "drift",
)  # fmt: skip


@dataclass(frozen=True)
class StepReport:
    """One step in numbers.

    step: steps taken. loss: nats a token, on the calibration batch, before the update. regularizer: R of the soft
    weights after the step, in the metric, summed over layers. nonzeros_k: share of all groups with k nonzero soft
    weights (nonzeros_1: one or none). flips, flips_from_start: weights whose kept/dropped state differs from the last
    step's mask, and from the starting one. drift: ‖W − W0‖/‖W0‖ over all prunable weights. layers: {column: one entry
    a layer}, see LAYER_COLUMNS.
    """

    step: int
    loss: float
    regularizer: float
    lambda1: float
    learning_rate: float
    gradient_norm: float
    nonzeros_4: float
    nonzeros_3: float
    nonzeros_2: float
    nonzeros_1: float
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
        """The step as one flat record, without the layers."""
        record = asdict(self)
        del record["layers"]
        return record

    def layer_record(self) -> dict:
        """The layers as one record: the step, and a list over the layers for each column."""
        return {"step": self.step, **self.layers}


@dataclass(frozen=True)
class LayerRow:
    """One layer's share of a report; sums of squares are kept so that totals are exact."""

    groups: int
    regularizer: float
    nonzeros: tuple[int, int, int, int]  # groups with 4, 3, 2 and at most 1 nonzero
    flips: int
    flips_from_start: int
    squared_drift: float
    squared_norm: float


def total(rows: list[LayerRow], **about) -> StepReport:
    """The report of a step from its layers."""
    groups = sum(row.groups for row in rows)
    layers = {column: [] for column in LAYER_COLUMNS}
    for row in rows:
        shares = [count / row.groups for count in row.nonzeros]
        drift = (row.squared_drift / row.squared_norm) ** 0.5 if row.squared_norm else 0.0
        values = (row.regularizer, *shares, row.flips, row.flips_from_start, drift)
        for column, value in zip(LAYER_COLUMNS, values, strict=True):
            layers[column].append(value)
    overall = [sum(row.nonzeros[k] for row in rows) / groups for k in range(4)]
    norm = sum(row.squared_norm for row in rows)
    return StepReport(
        regularizer=sum(row.regularizer for row in rows),
        nonzeros_4=overall[0], nonzeros_3=overall[1], nonzeros_2=overall[2], nonzeros_1=overall[3],
        flips=sum(row.flips for row in rows),
        flips_from_start=sum(row.flips_from_start for row in rows),
        drift=(sum(row.squared_drift for row in rows) / norm) ** 0.5 if norm else 0.0,
        layers=layers,
        **about,
    )  # fmt: skip
