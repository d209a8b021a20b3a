"""ProxSparse: learn, compare and export 2:4 and other N:M masks of pretrained language models.

Names are imported on first use, so that reading a run or a configuration does not wait for torch. (No module has the
name of a function in it: a module once imported would hide the function.)
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "prox": "proximal.operator",
    "prox_": "proximal.operator",
    "regularizer": "proximal.regularizer",
    "Mask": "masks.mask",
    "MaskSet": "masks.mask_set",
    "LearnConfig": "config",
    "LearnJob": "config",
    "PRESETS": "config",
    "MaskLearner": "learning.learner",
    "StepReport": "learning.learner",
    "load_model": "models.load",
    "prunable_layers": "layers",
    "load_windows": "text",
    "load_heldout": "text",
    "perplexity": "evaluation.perplexity",
    "next_tokens": "evaluation.next_token",
    "what_if": "evaluation.what_if",
    "layer_costs": "evaluation.what_if",
    "export_model": "export.write",
    "load_compact": "models.compact",
    "verify": "export.verification",
    "accelerate": "export.acceleration",
    "reorder_model": "reordering.write",
    "magnitude": "methods",
    "random_mask": "methods",
    "wanda": "methods",
    "ria": "methods",
    "fisher": "methods",
    "sparsegpt": "methods",
    "admm": "methods",
    "swaps": "methods",
    "maskllm": "methods",
    "CompareJob": "config",
    "Comparison": "runs",
    "Sweep": "runs",
    "Run": "runs",
    "list_runs": "runs",
    "ProxSparseError": "errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "figures":  # the one module among the public names
        return import_module("proxsparse.figures")
    if name not in _HOME:
        raise AttributeError(f"module 'proxsparse' has no attribute {name!r}")
    return getattr(import_module(f"proxsparse.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
