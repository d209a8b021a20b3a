"""Parameters whose values stay in a file until they are needed: how a model that is larger than memory is gone through in parts.

Between its turns such a parameter is on torch's meta device: it has a shape and no values, and whoever computes with it by mistake gets
an error and no zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils import swap_tensors


class Stored:
    """Where the values of one parameter lie. read: makes them, on `device`."""

    def __init__(self, read: Callable[[], Tensor], device: torch.device):
        self.read, self.device = read, device
        self._users, self._without_values = 0, None

    @contextmanager
    def values_in(self, parameter: nn.Parameter) -> Iterator[None]:
        """While open, `parameter` holds its values; it stays the same object, so that layers and modules need not know."""
        if not self._users:
            with torch.inference_mode(False):  # what is read there could not be put into a parameter
                other = nn.Parameter(self.read(), requires_grad=False)
            other.stored = self
            swap_tensors(parameter, other)
            self._without_values = other
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                swap_tensors(parameter, self._without_values)
                self._without_values = None


@contextmanager
def in_memory(parameters: Iterable[Tensor]) -> Iterator[None]:
    """While open, these parameters hold their values: stored ones are read first and let go afterwards, others are there anyhow, as
    buffers are."""
    with ExitStack() as held:
        for parameter in parameters:
            stored = getattr(parameter, "stored", None)
            if stored is not None:
                held.enter_context(stored.values_in(parameter))
        yield


def read_when_called(module: nn.Module, parameters: list[nn.Parameter]) -> None:
    """Let `parameters` hold their values while `module` computes."""
    forward = module.forward

    @functools.wraps(forward)
    def read_and_forward(*args, **kwargs):
        if any(isinstance(value, Tensor) and value.is_meta for value in (*args, *kwargs.values())):
            # torch would compute garbage
            raise RuntimeError("a tensor without values, on the meta device, enters a module")
        with in_memory(parameters):
            return forward(*args, **kwargs)

    read_and_forward.reads = True
    module.forward = read_and_forward


def read_for_good(module: nn.Module) -> None:
    """Let the parameters of `module`, which may be a whole model, hold their values from now on; those that do stay as they are."""
    for parameter in module.parameters():
        stored = getattr(parameter, "stored", None)
        if stored is not None:
            swap_tensors(parameter, nn.Parameter(stored.read(), requires_grad=False))
    for part in module.modules():
        if hasattr(vars(part).get("forward"), "reads"):
            del part.forward
    vars(module).pop("streaming", None)  # of a whole model, with what it keeps in a temporary folder


def is_stored(model: nn.Module) -> bool:
    """Whether the values of the parameters of `model` lie in files."""
    return any(hasattr(parameter, "stored") for parameter in model.parameters())


def device_of(model: nn.Module) -> torch.device:
    """Where `model` computes."""
    parameter = next(model.parameters())
    stored = getattr(parameter, "stored", None)
    return parameter.device if stored is None else stored.device
