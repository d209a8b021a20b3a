"""A reordered model on disk: one that transformers loads, with the order beside it and the proof that it computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from proxsparse.config import absolute
from proxsparse.errors import ProxSparseError
from proxsparse.files import ORDER_FILE, PROVENANCE_FILE, check_free, local_path, model_written_whole, write_json
from proxsparse.models.channel_order import change_of_outputs, within_rounding
from proxsparse.models.language_model import LanguageModel, quiet_transformers
from proxsparse.progress import Progress, no_progress
from proxsparse.reordering.channels import find_order


def reorder_model(
    lm: LanguageModel,
    windows: Tensor,
    directory: str | Path,
    n: int = 2,
    m: int = 4,
    progress: Progress = no_progress,
    provenance: dict | None = None,
) -> dict[str, Any]:
    """Write `lm` with its channels in an order in which n:m groups keep more; see `find_order`.

    The result is a model like any other: masks are learned on it, compared and exported by giving its directory. An export of it
    is verified against the model that was reordered.

    Parameters
    ----------
    lm : LanguageModel
        With its original weights; it is the reordered model afterwards.
    windows : Tensor
        Calibration text, int64 (count, length) tokens.
    directory : str or Path
        New or empty; it appears only when everything in it is written.
    n, m : int
        The pattern that the masks will have.
    progress : Progress
        Called before each block.
    provenance : dict, optional
        What is to be remembered (the text), as JSON.

    Returns
    -------
    dict
        "directory"; "layers", whose groups changed; "kept", what n of m keep of Wanda's scores there, before and after; "change", the
        largest relative change of an output, which is rounding.

    Raises
    ------
    ProxSparseError
        Where the directory is taken, the disk is full, the model has no such channels or was reordered before, or the reordered
        one would compute something else.
    """
    directory = local_path(directory)
    check_free(directory)
    if (Path(lm.source) / ORDER_FILE).is_file():
        raise ProxSparseError(f"{lm.name} was reordered already: give the model that it was made from.")
    found = find_order(lm.model, windows, n, m, progress)
    change = change_of_outputs(lm.model, found.order)
    if not within_rounding(change):
        raise ProxSparseError(
            f"{lm.name} computes something else with its channels reordered (an output changes by {change:.1e} of its size): it cannot be "
            "reordered."
        )
    about = {
        "model": absolute(lm.name),
        "n": n,
        "m": m,
        "kept": list(found.kept),
        "change": change,
        **(provenance or {}),
    }
    with model_written_whole(directory) as temporary:
        progress(0, 1, "writing the weights")
        with quiet_transformers():
            lm.model.save_pretrained(temporary)
        lm.tokenizer.save_pretrained(temporary)  # type: ignore[attr-defined]
        found.order.save(temporary / ORDER_FILE)
        write_json(temporary / PROVENANCE_FILE, about)
    return {"directory": str(directory), "layers": found.layers, "kept": found.kept, "change": change}
