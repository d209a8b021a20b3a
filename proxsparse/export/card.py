"""The model card of an export: what it is, how it was made, how it is loaded, what runs it faster.

Torch is not needed: a page shows the card before there is an export.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from proxsparse.config import DATASETS, text_name
from proxsparse.files import MASKS_FILE, PROVENANCE_FILE
from proxsparse.models.origin import HUB, Origin

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

CARD_FILE = "README.md"
RUN_AS_TWO_FOUR = ((2, 4), (1, 4), (1, 2))  # at most two of four are nonzero
# The Hub's documentation knows four relations (docs/hub/model-cards): adapter, merge, quantized, finetune; none for a pruned
# model. This is the one that says nothing wrong: the whole checkpoint, in the base model's precision, with weights that
# training on a text chose. `quantized` would promise a lower precision and a smaller file.
RELATION = "finetune"
LIBRARIES = {"dense": "transformers", "compact": "proxsparse"}  # that load it


def what_runs_it(n: int, m: int) -> str:
    """What executes a model under n:m masks faster, in one paragraph."""
    pattern = f"{n}:{m}"
    kernels = "torch.sparse.to_sparse_semi_structured (NVIDIA GPUs of compute capability 8.0 and above)"
    if (n, m) not in RUN_AS_TWO_FOUR:
        return f"No kernel that we know of runs {pattern} faster: those of {kernels} need 2:4, which 1:2 and 1:4 masks are as well."
    as_well = "" if (n, m) == (2, 4) else f"A {pattern} mask is 2:4 as well: "
    return (
        f"{as_well}{kernels} turns fp16 and bf16 layers of suitable shapes into sparse ones; `proxsparse.accelerate(model)` "
        "does it layer by layer. Whether that is faster depends on shapes and batch: nothing was timed here, and "
        "`proxsparse bench DIR` measures it on your GPU."
    )


HOW_TO_LOAD = {
    "dense": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
```

This is a dense checkpoint with zeros: it loads anywhere, and is by itself neither smaller nor faster.""",
    "compact": """```python
from proxsparse import load_compact

lm = load_compact("path/to/this/directory")  # lm.model, lm.tokenizer
```

This is a compact checkpoint: the zeros are not stored. proxsparse puts them back when it loads the model, which is then an
ordinary transformers model, as large in memory as the original; other programs do not read this format.""",
}


def model_card(
    origin: Origin, n: int, m: int, layers: int, provenance: dict, proof: str, format: str, size: str
) -> ModelCard:
    """The card, which `save` writes and `str` shows.

    origin: of the base model. layers: how many have a mask. provenance: as in the export's file; its "mask" names the
    perplexities that are the export's own. proof, size: sentences.
    """
    from huggingface_hub import ModelCard, ModelCardData

    title, pattern = f"{origin.title}, {n}:{m} sparse", f"{n}:{m}"
    results = _results(provenance)
    data = ModelCardData(
        base_model=origin.hub_id,
        base_model_relation=RELATION if origin.hub_id else None,
        license=origin.license,
        license_name=origin.license_name,
        license_link=origin.license_link,
        language=list(origin.language) or None,
        library_name=LIBRARIES[format],
        pipeline_tag="text-generation",
        tags=["sparsity", "pruning", "semi-structured", pattern, "proxsparse"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    text = f"""
# {as_text(title)}

At most {n} of every {m} consecutive input weights are nonzero in {layers} linear layers.
{_made_with(provenance)}The mask was applied to the original weights; no weight was updated.

{_base(origin)}
{_measured(provenance)}
{as_text(proof)}

{HOW_TO_LOAD[format]}

{size}

{what_runs_it(n, m)}

`{MASKS_FILE}` holds the masks (one bit a weight), `{PROVENANCE_FILE}` how they were made.
"""
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def as_text(name: str) -> str:
    """A name or a sentence as Markdown that shows it letter by letter: HTML, links and tables in it stay text."""
    return re.sub(r"([\\`*_\[\]<>|#&~$])", r"\\\1", " ".join(name.split()))


def _base(origin: Origin) -> str:
    base = f"[{as_text(origin.hub_id)}]({HUB}/{origin.hub_id})" if origin.hub_id else as_text(origin.title)
    if origin.license is None:
        license = "It names no license here: find out which one it has before you pass this model on"
    else:
        name = as_text(origin.license_name or origin.license)
        link = f"[{name}]({origin.license_link})" if origin.license_link else name
        license = f"This model has the license of the base model: {link}"
    return f"Base model: {base}. {license}."


def _made_with(provenance: dict) -> str:
    """What made the mask, where that is known."""
    if "method" not in provenance:
        return ""
    source = " (Liu et al. 2025, arXiv 2502.00258)" if provenance["method"] == "ProxSparse" else ""
    return f"The mask was made with {as_text(provenance['method'])}{source}. "


def _judged_on(entry: dict, provenance: dict) -> str:
    corpus = provenance.get("corpus")
    return entry.get("judged_on", f"{text_name(corpus) if corpus else 'the corpus'}, held-out part")


def _perplexity(entry: dict) -> str:
    stderr = entry.get("stderr")
    if not _finite(entry["perplexity"]):
        return "not finite"
    return f"{entry['perplexity']:.2f}" + (f" ± {stderr:.2f}" if _finite(stderr) else "")


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _measured(provenance: dict) -> str:
    """The perplexities, each with the text that its mask was made on and the one that it was judged on."""
    rows = [
        [
            as_text(entry["mask"]), as_text(entry.get("made_on") or "no text"), as_text(_judged_on(entry, provenance)),
            f"{entry['windows']} × {entry['context']} tokens", _perplexity(entry),
        ]
        for entry in provenance.get("perplexity", [])
    ]  # fmt: skip
    if not rows:
        return ""
    headers = ["mask", "made on", "judged on", "windows", "perplexity"]
    return f"""
Perplexity, ± standard error over windows. A mask does best on text like the one it was made on:

{tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)}
"""


def _results(provenance: dict) -> list[EvalResult]:
    """The perplexities of the model as it is exported, for the Hub's index of results."""
    from huggingface_hub import EvalResult

    found = []
    for entry in provenance.get("perplexity", []):
        if entry["mask"] != provenance.get("mask") or not _finite(entry["perplexity"]):
            continue
        text = _judged_on(entry, provenance)
        name = text.split(",")[0]
        # The Hub merges the results of one dataset and configuration: two texts need two. A text that is not there has the name of
        # the `datasets` builder that reads it.
        kind, config = DATASETS.get(name, ("json" if Path(name).suffix == ".jsonl" else "text", name))[:2]
        found.append(
            EvalResult(
                task_type="text-generation",
                task_name="Text Generation",
                dataset_type=kind,
                dataset_config=config,
                dataset_name=text,
                metric_type="perplexity",
                metric_name="Perplexity",
                metric_value=round(float(entry["perplexity"]), 4),
                metric_args={"windows": int(entry["windows"]), "context": int(entry["context"])},
            )
        )
    return found
