"""The frozen-weight penalty: it holds the weights that are kept where they were (Liu et al. 2025, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor


def frozen_weight_gradient(weight: Tensor, original: Tensor, epsilon: float) -> Tensor:
    """Gradient of ‖W/(W0 + ε·sign W0) ⊙ (W − W0)‖_F², with sign(0) = 1.

    Parameters
    ----------
    weight, original
        W and W0, of one shape.
    epsilon
        ε, in units of weight; above 0.

    Returns
    -------
    Tensor
        In the shape and dtype of `weight`.

    References
    ----------
    Liu et al. 2025, arXiv 2502.00258, section 3.3.

    Examples
    --------
    >>> import torch
    >>> frozen_weight_gradient(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0]), epsilon=1.0)
    tensor([3., 0.])
    """
    original = original.to(weight.dtype)
    denominator = original + epsilon * torch.where(original < 0, -1.0, 1.0)
    ratio, difference = weight / denominator, weight - original
    return 2 * ratio * difference * (difference / denominator + ratio)
