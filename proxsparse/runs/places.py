"""Where a run's model and text lie. A run that was copied from another machine names paths that are not there; what is
given in their place has to be the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxsparse.config import absolute, checked_texts
from proxsparse.errors import ProxSparseError
from proxsparse.files import write_json
from proxsparse.runs.directory import JOBS, RunDirectory


def check_places(run: RunDirectory, names: tuple[str, ...] = ("model", "corpus", "evaluate_on")) -> None:
    """Raise ProxSparseError where a path that the run's run.json names is not here."""
    job = run.asked() or {}
    for name in names:
        value = job.get(name) or ""
        for place in [value] if isinstance(value, str) else value:
            try:
                absolute(place)
            except ProxSparseError:
                what = "text to judge on" if name == "evaluate_on" else name
                raise ProxSparseError(
                    f"The {what} of run {run.id} is not at {place}, where its run.json says: put it there, or say with "
                    f"--{name.replace('_', '-')} where it lies now."
                ) from None


def move(run: RunDirectory, evaluate_on: Iterable[str] | None = None, **places: str | None) -> None:
    """Let the run's run.json name other places of its model and corpus, and other texts to judge on; None: as it is.

    That they are the same model and text is checked when the run goes on (see `check_weights` and `Job.describe`).
    """
    given: dict[str, Any] = {name: absolute(place) for name, place in places.items() if place is not None}
    if evaluate_on is not None:
        given["evaluate_on"] = [absolute(text) for text in evaluate_on]
    if given:
        header = run.header()
        for key in JOBS:
            if key in header:
                header[key] |= given
                checked_texts(header[key].get("corpus", ""), header[key].get("evaluate_on"))
        write_json(run.path / "run.json", header)


def check_weights(run: RunDirectory, model) -> str:
    """The fingerprint of `model`. Raises ProxSparseError where the run began with other weights; runs of before there were
    fingerprints take any."""
    from proxsparse.models.language_model import fingerprint

    weights = fingerprint(model)
    begun_with = run.weights_sha256() or weights
    if begun_with != weights:
        raise ProxSparseError(
            f"The weights of {model.name_or_path} are not those that run {run.id} began with: give --model the same model."
        )
    return weights
