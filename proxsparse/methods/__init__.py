"""Ways to choose a mask: the same inputs, a `Pruned` out, the model left as it came.

Each is called as method(model, windows, n, m, layers=…, progress=…). windows: int64 (count, length), calibration
tokens. layers: what `prunable_layers` gives, by default all of the model. progress(done, total, what) is called before
each piece of work; what it raises ends the method. Those that learn also take budget=LearnConfig(…).
"""

from functools import partial
from importlib import import_module

from proxsparse import config
from proxsparse.methods.admm import admm
from proxsparse.methods.fisher import fisher
from proxsparse.methods.learned import learned
from proxsparse.methods.magnitude import magnitude
from proxsparse.methods.maskllm import maskllm
from proxsparse.methods.random import random_mask
from proxsparse.methods.result import Pruned
from proxsparse.methods.ria import ria
from proxsparse.methods.sparsegpt import sparsegpt
from proxsparse.methods.swaps import swaps
from proxsparse.methods.wanda import wanda


def _loaded(method: config.Method):
    module, _, name = method.function.rpartition(".")
    function = getattr(import_module(f"proxsparse.methods.{module}"), name)
    return partial(function, **method.options) if method.options else function


METHODS = {name: _loaded(method) for name, method in config.METHODS.items()}

__all__ = [
    "METHODS",
    "Pruned",
    "admm",
    "fisher",
    "learned",
    "magnitude",
    "maskllm",
    "random_mask",
    "ria",
    "sparsegpt",
    "swaps",
    "wanda",
]
