"""The model card of an export: what it is, how it was made, how it is loaded, what runs it faster."""

from __future__ import annotations

import math
from pathlib import Path

from tabulate import tabulate

from proxsparse.export.verification import PROVENANCE_FILE
from proxsparse.masks.mask_set import MASKS_FILE, MaskSet
from proxsparse.models.language_model import LanguageModel

RUN_AS_TWO_FOUR = ((2, 4), (1, 4), (1, 2))  # at most two of four are nonzero


def what_runs_it(masks: MaskSet) -> str:
    """What executes a model under these masks faster, in one paragraph."""
    kernels = "torch.sparse.to_sparse_semi_structured (NVIDIA GPUs of compute capability 8.0 and above)"
    if (masks.n, masks.m) not in RUN_AS_TWO_FOUR:
        return (
            f"No kernel that we know of runs {masks.pattern} faster: those of {kernels} need 2:4, which 1:2 and 1:4 masks "
            "are as well."
        )
    as_well = "" if (masks.n, masks.m) == (2, 4) else f"A {masks.pattern} mask is 2:4 as well: "
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


def _origin(provenance: dict) -> str:
    """What made the mask, where that is known."""
    if "method" not in provenance:
        return ""
    source = " (Liu et al. 2025, arXiv 2502.00258)" if provenance["method"] == "ProxSparse" else ""
    return f"The mask was made with {provenance['method']}{source}. "


def _perplexity(entry: dict) -> str:
    stderr = entry.get("stderr")
    return f"{entry['perplexity']:.2f}" + ("" if stderr is None or math.isnan(stderr) else f" ± {stderr:.2f}")


def _measured(provenance: dict) -> str:
    """The perplexities, each with the text that its mask was made on and the one that it was judged on."""
    own = f"{provenance.get('corpus', 'the corpus')}, held-out part"
    rows = [
        [
            entry["mask"], entry.get("made_on") or "no text", entry.get("judged_on", own),
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


def model_card(lm: LanguageModel, masks: MaskSet, provenance: dict, proof: str, format: str, size: str) -> str:
    pattern, measured = masks.pattern, _measured(provenance)
    return f"""---
base_model: {lm.name}
tags: [sparsity, "{pattern}", proxsparse]
---

# {Path(lm.name).name}, {pattern} sparse

At most {masks.n} of every {masks.m} consecutive input weights are nonzero in {len(masks)} linear layers.
{_origin(provenance)}The mask was applied to the original weights; no weight was updated.
{measured}
{proof}

{HOW_TO_LOAD[format]}
{size}
{what_runs_it(masks)}

`{MASKS_FILE}` holds the masks (one bit a weight), `{PROVENANCE_FILE}` how they were made.
"""
