"""Ways to choose a mask: the same inputs, a `Pruned` out, the model left as it came.

Each is called as method(model, windows, n, m, layers=…, progress=…). windows: int64 (count, length), calibration
tokens. layers: what `prunable_layers` gives, by default all of the model. progress(done, total, what) is called before
each piece of work; what it raises ends the method. Those that learn also take budget=LearnConfig(…).
"""

from functools import partial

from proxsparse.methods.fisher import fisher
from proxsparse.methods.learned import learned
from proxsparse.methods.magnitude import magnitude
from proxsparse.methods.maskllm import maskllm
from proxsparse.methods.random import random_mask
from proxsparse.methods.result import Pruned
from proxsparse.methods.ria import ria
from proxsparse.methods.sparsegpt import sparsegpt
from proxsparse.methods.wanda import wanda

METHODS = {
    "random": random_mask,
    "magnitude": magnitude,
    "wanda": wanda,
    "ria": ria,
    "fisher": fisher,
    "sparsegpt": partial(sparsegpt, update=False),
    "sparsegpt-update": sparsegpt,
    "maskllm": maskllm,
    "proxsparse-paper": partial(learned, metric="weight", loss_at="soft", lambda1=0.02, ramp=1.0),
    "proxsparse": learned,
}

__all__ = ["METHODS", "Pruned", "fisher", "learned", "magnitude", "maskllm", "random_mask", "ria", "sparsegpt", "wanda"]
