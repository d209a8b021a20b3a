"""An N:M sparse model on disk: a directory that plain transformers loads, with its masks, its history and its proof."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch

from proxsparse import __version__
from proxsparse.errors import ProxSparseError
from proxsparse.layers import prunable_layers
from proxsparse.masks import MaskSet
from proxsparse.models import LanguageModel
from proxsparse.runs.files import write_json
from proxsparse.verification import MASKS_FILE, PROVENANCE_FILE, verify

CARD_FILE = "README.md"
RUN_AS_TWO_FOUR = ((2, 4), (1, 4), (1, 2))  # at most two of four are nonzero
ABOUT_FILES = {
    "config.json": "architecture",
    "generation_config.json": "generation defaults",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer settings",
    "chat_template.jinja": "chat format",
    "model.safetensors": "weights: the original ones, zero where a mask drops them",
    MASKS_FILE: "the masks, one bit a weight",
    PROVENANCE_FILE: "how the masks were made",
    CARD_FILE: "model card",
}


def export_model(
    lm: LanguageModel,
    masks: MaskSet,
    directory: str | Path,
    provenance: dict | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict:
    """Write `lm` under `masks` as a safetensors directory, and verify what was written.

    lm: with its original weights; it leaves this function as it came. directory: new or empty; it appears only when
    everything in it is written and proven. provenance: what is to be remembered (configuration, corpus hash,
    metrics), as JSON. Returns {"directory", "bytes", "files": [{"name", "bytes", "about"}], "speed", "verification"}.
    Raises ProxSparseError when the directory is taken, the disk is full, or the verification fails.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ProxSparseError(f"{directory} exists and is not empty: choose another directory.")
    if not masks:
        raise ProxSparseError("There are no masks to export: learn them first.")
    provenance = {"model": lm.name, "versions": versions(), **(provenance or {})}
    temporary = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        if progress:
            progress(0, 1, "writing the weights")
        with _masked(lm.model, masks):
            lm.model.save_pretrained(temporary)
        lm.tokenizer.save_pretrained(temporary)
        masks.save(temporary / MASKS_FILE)
        write_json(temporary / PROVENANCE_FILE, provenance)
        verification = verify(temporary, lm.name, progress)
        if not verification.ok:
            raise ProxSparseError(f"The export was not kept. {verification.summary}")
        (temporary / CARD_FILE).write_text(_model_card(lm, masks, provenance, verification.summary), encoding="utf-8")
        for file in temporary.iterdir():
            file.chmod(0o644)
        temporary.chmod(0o755)
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
    except OSError as error:
        raise ProxSparseError(
            f"The model cannot be written to {directory}: {error.strerror or error}; free some space, or choose another directory."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    files = [
        {"name": file.name, "bytes": file.stat().st_size, "about": ABOUT_FILES.get(file.name, "part of the model")}
        for file in sorted(directory.iterdir(), key=lambda file: -file.stat().st_size)
    ]
    return {
        "directory": str(directory), "bytes": sum(file["bytes"] for file in files), "files": files,
        "speed": what_runs_it(masks), "verification": verification.to_dict(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of what the result depends on."""
    packages = ("torch", "transformers", "safetensors")
    return {"proxsparse": __version__} | {name: importlib.metadata.version(name) for name in packages}


def what_runs_it(masks: MaskSet) -> str:
    """What executes a model under these masks faster, in one paragraph."""
    first = next(iter(masks.values()))
    kernels = "torch.sparse.to_sparse_semi_structured (NVIDIA GPUs of compute capability 8.0 and above)"
    if (first.n, first.m) not in RUN_AS_TWO_FOUR:
        return (
            f"No kernel that we know of runs {first.n}:{first.m} faster: those of {kernels} need 2:4, which 1:2 and 1:4 masks "
            "are as well."
        )
    as_well = "" if (first.n, first.m) == (2, 4) else f"A {first.n}:{first.m} mask is 2:4 as well: "
    return (
        f"{as_well}{kernels} turns fp16 and bf16 layers of suitable shapes into sparse ones. Whether that is faster depends "
        "on shapes and batch: measure it, nothing was timed here."
    )


@contextmanager
def _masked(model, masks: MaskSet):
    layers = prunable_layers(model, next(iter(masks.values())).m)
    before = {parameter: parameter.data for parameter in layers.parameters()}
    try:
        for parameter, data in before.items():
            parameter.data = data.clone()
        with torch.no_grad():
            masks.apply_(layers)
        yield
    finally:
        for parameter, data in before.items():
            parameter.data = data


def _model_card(lm: LanguageModel, masks: MaskSet, provenance: dict, proof: str) -> str:
    first = next(iter(masks.values()))
    pattern = f"{first.n}:{first.m}"
    rows = "\n".join(
        f"| {entry['mask']} | {entry['perplexity']:.2f} ± {entry['stderr']:.2f} |" if entry.get("stderr") is not None
        else f"| {entry['mask']} | {entry['perplexity']:.2f} |"
        for entry in provenance.get("perplexity", [])
    )  # fmt: skip
    measured = ""
    if rows:
        one = provenance["perplexity"][0]
        measured = f"""
Perplexity on the held-out part of `{provenance.get("corpus", "the corpus")}` ({one["windows"]} windows of {one["context"]} tokens):

| mask | perplexity |
|---|---|
{rows}
"""
    return f"""---
base_model: {lm.name}
tags: [sparsity, "{pattern}", proxsparse]
---

# {Path(lm.name).name}, {pattern} sparse

At most {first.n} of every {first.m} consecutive input weights are nonzero in {len(masks)} linear layers. The mask was learned with
ProxSparse (Liu et al. 2025, arXiv 2502.00258) and applied to the original weights; no weight was updated.
{measured}
{proof}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
```

This is a dense checkpoint with zeros: it loads anywhere, and is by itself neither smaller nor faster.
{what_runs_it(masks)}

`{MASKS_FILE}` holds the masks (one bit a weight), `{PROVENANCE_FILE}` how they were made.
"""
