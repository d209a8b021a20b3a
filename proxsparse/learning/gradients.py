"""Gradients of several passes, summed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def summed_gradients(owners: Mapping[nn.Parameter, nn.Parameter], dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """While open, the gradients that arrive are summed in `dtype` beside the parameters; on leaving they are their owners'.

    owners: {parameter at which a gradient arrives: parameter that it is for}. Both may be one, which may then hold other values in another
    dtype while its gradients arrive. Of a parameter that several ranks share, each has the gradient of its own part.
    """
    sums = dict[nn.Parameter, Tensor]()

    def add(parameter: nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad, None
        if hasattr(gradient, "to_local"):  # a DTensor
            gradient = gradient.to_local()
        if parameter in sums:
            sums[parameter].add_(gradient)
        else:
            sums[parameter] = gradient.to(dtype)

    hooks = [parameter.register_post_accumulate_grad_hook(add) for parameter in owners]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for parameter, gradient in sums.items():
        owners[parameter].grad = gradient
