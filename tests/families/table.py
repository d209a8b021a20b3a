"""The walk over all families, and the table that it makes: `python tests/families/table.py` writes docs/families.md."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

if __name__ == "__main__":  # what pytest does for the tests
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import transformers
from families.walk import Family, walk
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
PAGE = Path(__file__).parents[2] / "docs" / "families.md"
INTRODUCTION = """# Which families of models work

Transformers {version} registers {all} configurations of causal language models. Each was made tiny, with random weights, one
block of every kind that it has, and walked through the product by `tests/families`; {right} come out right, {refused} are
refused with a sentence, {unmade} cannot be made. This page is written by `python tests/families/table.py`.
Encoders that can be decoders too, such as BERT, are taken as decoders.

Right means, all of it checked on the tiny model:

- every parameter of two dimensions or more in a decoder block is pruned, or listed with the reason; routers are dense;
- a model without memory, on torch's meta device, has the same layers, and the same reasons for the others;
- the activation metric sees what enters every pruned layer, but for experts that no token chose;
- two learning steps change masks, and afterwards every weight and buffer is as it came, bit for bit;
- the export, dense in plain transformers and compact, has the logits of the model that was masked by hand, bit for bit;
- the perplexity is that of a plain loop over tokens;
- streamed block by block the losses are the same, bit for bit, or streaming is refused with a sentence;
- `verify` refuses an export in which one bit of a weight was flipped, in a masked layer or elsewhere.

What is pruned and why the rest is not is found by one forward pass over a few tokens, not by names: see
`proxsparse/layers`. "Pruned" is the share of the weights (parameters of two dimensions or more) of the decoder blocks that
pruned layers hold, in the tiny model: shares in a large one differ. "Left dense" gives their shares likewise.
"""


def walk_all(names=FAMILIES, processes: int = 2) -> dict[str, Family]:
    """{family: what was found}. Every process has one thread."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_quiet) as pool:
        return {family.name: family for family in pool.map(walk, names)}


def _quiet() -> None:
    gc.freeze()  # as in tests/conftest.py
    atexit.register(gc.unfreeze)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def page(found: dict[str, Family]) -> str:
    """docs/families.md."""
    by_state = {state: [] for state in ("right", "refused", "not built", "wrong")}
    for family in found.values():
        by_state[family.state].append(family)
    if by_state["wrong"]:
        wrong = "\n".join(f"{family.name}: {family.why}" for family in by_state["wrong"])
        raise ValueError(f"Some families come out wrong, and no page says that they work:\n{wrong}")
    lines = [
        INTRODUCTION.format(
            version=transformers.__version__, all=len(found), right=len(by_state["right"]),
            refused=len(by_state["refused"]), unmade=len(by_state["not built"]),
        ),
        "| family | model | layers | pruned | left dense |",
        "|---|---|---|---|---|",
        *(_row(family) for family in by_state["right"]),
        "",
        "## Refused",
        "",
        *(f"- `{family.name}`: {family.why[0]}" for family in by_state["refused"]),
        "",
        "## Not made",
        "",
        *(f"- `{family.name}`: {family.why[0]}" for family in by_state["not built"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return "below 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _row(family: Family) -> str:
    left = [f"{reason} ({_percent(share)})" for reason, share in sorted(family.left.items(), key=lambda item: -item[1])]
    if family.unseen:
        left.append(f"pruned by magnitude alone: {family.unseen} layers of experts that no token chose")
    return f"| {family.name} | {family.model} | {family.layers} | {family.pruned:.1%} | {'; '.join(left)} |"


if __name__ == "__main__":
    PAGE.write_text(page(walk_all(processes=os.cpu_count() or 2)), encoding="utf-8")
