"""Fisher pruning: what the loss says about dropping a weight (LeCun et al. 1989, "Optimal Brain Damage").

Dropping w raises the loss by ½·w²·h, with h the diagonal of its Hessian. h is estimated by the empirical Fisher
information E[g²], g the gradient of the mean loss of one window. It needs the gradient of the whole model at once, and
is hence the one method here that does not go block by block: all blocks are judged in the dense model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from proxsparse.errors import ProxSparseError
from proxsparse.layers import PrunableLayers, only_these_learn, prunable_layers
from proxsparse.masks.groups import magnitudes
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.methods.result import Pruned
from proxsparse.models.activations import check_windows
from proxsparse.models.forward import autocast, next_token_losses, quick_attention
from proxsparse.progress import Progress, no_progress


def fisher(
    model,
    windows: Tensor,
    n: int = 2,
    m: int = 4,
    *,
    layers: PrunableLayers | None = None,
    progress: Progress = no_progress,
    precision: str = "auto",
) -> Pruned:
    """The n largest w²·E[g²] of every group of m; compared as |w|·√E[g²], whose order is the same and whose range float32
    holds.

    One backward pass a window; memory for the gradient and a float32 sum of squares of every prunable weight. Equal
    scores, such as those without any gradient, are ranked by |w|.

    Parameters
    ----------
    model : transformers model
        A causal language model; left as it came.
    windows : Tensor
        Calibration text, int64 (count, length) tokens.
    n, m : int
        The pattern: n of every m weights along the input dimension are kept.
    layers : PrunableLayers, optional
        What is pruned; default: `prunable_layers(model, m)`.
    progress : Progress
        Called before each piece of work; what it raises ends the method.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic of the matrix products; see `proxsparse.models.forward.autocast`.

    Returns
    -------
    Pruned
        Masks for the original weights.

    Raises
    ------
    ProxSparseError
        Without a window, or when a loss is not finite.

    References
    ----------
    LeCun et al. 1989, "Optimal Brain Damage", NeurIPS 1989, with the empirical Fisher information for the Hessian.
    """
    check_windows(windows)
    layers = layers if layers is not None else prunable_layers(model, m)
    squares = squared_gradients(model, windows, layers.parameters(), precision, progress)
    masks = MaskSet()
    for name, layer in layers.items():
        sizes = magnitudes(layer.matrix)
        information = layer.matrix_of(squares[layer.parameter])
        masks[name] = Mask.of_scores(sizes * information.sqrt(), n, m, ties=sizes)
    return Pruned(masks)


def squared_gradients(
    model, windows: Tensor, parameters: list[nn.Parameter], precision: str = "auto", progress: Progress = no_progress
) -> dict[nn.Parameter, Tensor]:
    """The sum over windows of the squared gradient of a window's mean loss, float32, in the layout of each parameter."""
    device = parameters[0].device
    squares = {parameter: torch.zeros_like(parameter.data, dtype=torch.float32) for parameter in parameters}
    with only_these_learn(model, parameters), quick_attention(model, device, windows.shape[1]), torch.enable_grad():
        for index, window in enumerate(windows):
            progress(index, len(windows), "measuring gradients")
            with autocast(device, precision):
                loss = next_token_losses(model, window.unsqueeze(0).to(device)).mean()
            if not loss.isfinite():
                raise ProxSparseError("The loss on the calibration text is not a finite number: this model is broken.")
            loss.backward()
            for parameter in parameters:
                if parameter.grad is not None:  # none for an expert kept apart that was not chosen
                    squares[parameter] += parameter.grad.float().square()
                    parameter.grad = None
    return squares
