"""An N:M sparse model on disk, with its masks, its history and its proof: dense with zeros, as plain transformers loads
it, or compact, without the zeros."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from pathlib import Path

from torch import nn
from transformers.pytorch_utils import Conv1D

from proxsparse import __version__
from proxsparse.config import check_format
from proxsparse.errors import ProxSparseError
from proxsparse.export.card import CARD_FILE, model_card, what_runs_it
from proxsparse.export.compact import stored_tensors, write_compact
from proxsparse.export.estimate import Extent, sizes_of
from proxsparse.export.streamed import save_streamed
from proxsparse.export.verification import verify
from proxsparse.files import (
    COMPACT_FILE,
    MASKS_FILE,
    ORDER_FILE,
    PROVENANCE_FILE,
    check_free,
    local_path,
    model_written_whole,
    read_json,
    write_json,
)
from proxsparse.layers import PrunableLayers, prunable_layers
from proxsparse.layers.stored import is_stored
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.channel_order import order_of
from proxsparse.models.language_model import LanguageModel, dtype_name, quiet_transformers
from proxsparse.models.origin import origin_of
from proxsparse.progress import Progress, no_progress

ABOUT_FILES = {
    "config.json": "architecture",
    "generation_config.json": "generation defaults",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer settings",
    "chat_template.jinja": "chat format",
    "model.safetensors": "weights: the original ones, zero where a mask drops them",
    "compact.safetensors": "weights: of masked layers the kept ones, all others as they were",
    COMPACT_FILE: "which tensor lies in which file",
    MASKS_FILE: "the masks, one bit a weight",
    ORDER_FILE: "in which order the channels of the original stand here",
    PROVENANCE_FILE: "how the masks were made",
    CARD_FILE: "model card",
}


def export_model(
    lm: LanguageModel,
    masks: MaskSet,
    directory: str | Path,
    provenance: dict | None = None,
    progress: Progress = no_progress,
    format: str = "dense",
) -> dict:
    """Write `lm` under `masks` as a safetensors directory, and verify what was written.

    Parameters
    ----------
    lm : LanguageModel
        With its original weights, which it has again afterwards. One that is streamed is written file by file, dense alone, and
        verified in the same way.
    masks : MaskSet
        Of one pattern; layers without a mask stay dense.
    directory : str or Path
        New or empty; it appears only when everything in it is written and proven.
    provenance : dict, optional
        What is to be remembered (configuration, corpus hash, metrics), as JSON.
    progress : Progress
        Called before each file and each verified layer.
    format : {"dense", "compact"}
        With zeros, which plain transformers loads; or without them, which `load_compact` reads.

    Returns
    -------
    dict
        "directory", "bytes", "files" (a list of {"name", "bytes", "about"}), "format", "size" (see `sizes_of`), "speed"
        and "verification".

    Raises
    ------
    ProxSparseError
        Where the directory is taken, the disk is full, or the verification fails.

    Examples
    --------
    >>> report = export_model(lm, masks, "sparse", format="compact")  # doctest: +SKIP
    """
    check_format(format)
    directory = local_path(directory)
    check_free(directory)
    streamed = is_stored(lm.model)
    if streamed and format == "compact":
        raise ProxSparseError(
            f"{lm.name} is streamed, and a compact export is not written so: export it dense, or load it whole."
        )
    if not masks:
        raise ProxSparseError("There are no masks to export: learn them first.")
    order = order_of(lm.source)
    provenance = {"model": lm.name, "versions": versions(), **(provenance or {})}
    if order is not None:
        reordered = read_json(local_path(lm.source) / PROVENANCE_FILE, default={})
        if "model" not in reordered:
            raise ProxSparseError(
                f"{lm.name} holds {ORDER_FILE} and does not say which model was reordered: put back the {PROVENANCE_FILE} that "
                "`reorder` wrote."
            )
        provenance |= {"model": reordered.pop("model"), "reordered": reordered}
    with model_written_whole(directory) as temporary:
        progress(0, 1, "writing the weights")
        if format == "compact":
            write_compact(lm.model, masks, temporary, progress)
        elif streamed:
            save_streamed(lm.model, masks, temporary)
            masks.save(temporary / MASKS_FILE)
        else:
            layers = prunable_layers(lm.model, masks.m)
            with layers.on_copies():
                masks.apply_(layers)
                with quiet_transformers():
                    lm.model.save_pretrained(temporary)
            masks.save(temporary / MASKS_FILE)
        lm.tokenizer.save_pretrained(temporary)
        if order is not None:
            order.save(temporary / ORDER_FILE)
        write_json(temporary / PROVENANCE_FILE, provenance)
        verification = verify(temporary, provenance["model"], progress, stream=streamed)
        if not verification.ok:
            raise ProxSparseError(f"The export was not kept. {verification.summary}")
        size = sizes(lm.model, masks, format)
        origin = origin_of(provenance["model"], network=True)
        n, m = masks.n, masks.m
        verification = dataclasses.replace(verification, original=origin.title)  # its path is nobody else's business
        card = model_card(origin, n, m, len(masks), provenance, verification.summary, format, size["summary"])
        card.save(temporary / CARD_FILE)
    files = [
        {"name": file.name, "bytes": file.stat().st_size, "about": _about(file.name)}
        for file in sorted(directory.iterdir(), key=lambda file: -file.stat().st_size)
    ]
    return {
        "directory": str(directory), "bytes": sum(file["bytes"] for file in files), "files": files,
        "format": format, "size": size, "speed": what_runs_it(n, m), "verification": verification.to_dict(),
    }  # fmt: skip


def sizes(model, masks: MaskSet, format: str = "dense") -> dict:
    """How much room the weights of `model` take under `masks`; see `sizes_of`."""
    layers = prunable_layers(model, masks.m)
    matrices = (layers[name].matrix for name in masks)
    shapes = [(*matrix.shape, matrix.element_size()) for matrix in matrices]
    return sizes_of(shapes, _bytes_of(model), dtype_name(model.dtype), masks.n, masks.m, format)


def extent_of(model, layers: PrunableLayers) -> Extent:
    """What a dense checkpoint of `model` holds; layers: its prunable ones."""
    return Extent(dtype_name(model.dtype), _bytes_of(model), multiply_adds_outside(model, layers))


def multiply_adds_outside(model, layers: PrunableLayers) -> int:
    """Of one token, in linear maps outside the prunable layers, the LM head among them."""
    inside = {id(layer.parameter) for layer in layers.values()}
    maps = (module for module in model.modules() if isinstance(module, nn.Linear | Conv1D))
    return sum(module.weight.numel() for module in maps if id(module.weight) not in inside)


def _bytes_of(model) -> int:
    return sum(tensor.nbytes for _, tensor, same in stored_tensors(model) if same is None)


def _about(name: str) -> str:
    """What a file is; of one of several, what all of them are."""
    return ABOUT_FILES.get(re.sub(r"-\d{5}-of-\d{5}", "", name), "part of the model")


def versions() -> dict[str, str]:
    """Of what the result depends on."""
    packages = ("torch", "transformers", "safetensors")
    return {"proxsparse": __version__} | {name: importlib.metadata.version(name) for name in packages}
