"""Gradients of several passes, summed in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def summed_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """While open, the gradients that arrive at float32 parameters are summed beside them, so that the parameters may hold other
    values in another dtype, in which their gradients then arrive; on leaving they are the parameters' own."""
    parameters, sums = list(parameters), dict[nn.Parameter, Tensor]()

    def add(parameter: nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad, None
        if parameter in sums:
            sums[parameter].add_(gradient)
        else:
            sums[parameter] = gradient.float()

    hooks = [parameter.register_post_accumulate_grad_hook(add) for parameter in parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for parameter, gradient in sums.items():
        parameter.grad = gradient
