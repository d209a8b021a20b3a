"""Where a run's model and text lie. A run that was copied from another machine names paths that are not there; what is
given in their place has to be the same."""

from __future__ import annotations

from proxsparse.config import absolute
from proxsparse.errors import ProxSparseError
from proxsparse.files import write_json
from proxsparse.runs.directory import JOBS, RunDirectory


def check_places(run: RunDirectory, names: tuple[str, ...] = ("model", "corpus")) -> None:
    """Raise ProxSparseError where a path that the run's run.json names is not here."""
    job = run.asked() or {}
    for name in names:
        try:
            absolute(job.get(name, ""))
        except ProxSparseError:
            raise ProxSparseError(
                f"The {name} of run {run.id} is not at {job[name]}, where its run.json says: put it there, or say with --{name} "
                "where it lies now."
            ) from None


def move(run: RunDirectory, **places: str | None) -> None:
    """Let the run's run.json name other places of its model and corpus; None: as it is.

    That they are the same model and text is checked when the run goes on (see `check_weights` and `Job.describe`).
    """
    given = {name: absolute(place) for name, place in places.items() if place is not None}
    if given:
        header = run.header()
        header |= {key: header[key] | given for key in JOBS if key in header}
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
