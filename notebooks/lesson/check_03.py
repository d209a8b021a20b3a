"""Checks of the exercises of lesson 03."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lesson.checking import Wrong, close, numbers, right, tensor
from proxsparse import Mask


def masked_weights(function: Callable) -> None:
    """The original weights under the mask that the soft weights project to."""
    soft = torch.tensor([[0.9, 0.2, -0.5, 0.4], [0.1, -0.8, 0.3, 0.2], [0.6, 0.5, 0.4, 0.3]])
    scale = torch.tensor([1.0, 1.0, 1.0, 2.0])
    original = torch.tensor([[0.7, 0.6, -0.4, 0.3], [0.5, -0.7, 0.2, 0.1], [0.6, 0.5, 0.4, 0.2]])
    found = tensor(function, soft, scale, original, shape=(3, 4))
    wanted = Mask.project(soft, scale=scale).applied_to(original)
    hints = (
        (Mask.project(soft, scale=scale).applied_to(soft), "the values are the original ones, not the soft ones"),
        (Mask.project(original, scale=scale).applied_to(original), "the soft weights choose, not the original ones"),
        (Mask.project(soft).applied_to(original), "sizes are compared times `scale`"),
        (Mask.project(soft.clamp(min=0), scale=scale).applied_to(original), "compare magnitudes, not signed values"),
        (wanted * scale, "`scale` compares, and does not multiply what is kept"),
    )
    hint = next((words for value, words in hints if close(found, value)), "")
    for row, (ours, right_values) in enumerate(zip(found, wanted, strict=True)):
        if close(ours, right_values):
            continue
        kept = int((ours != 0).sum())
        hint = hint or (
            f"{kept} of four are kept, not 2" if kept != 2 else "the two largest of |soft| · scale are kept"
        )
        raise Wrong(f"Group {row} is {numbers(right_values)}, and you have {numbers(ours)}: {hint}.")
    right("soft weights choose, original weights are kept; seen on 3 groups.")


def straight_through(function: Callable) -> None:
    """The gradient at the masked weights, taken for that of the soft weights."""
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(3, 4, generator=generator)
    soft = original + 0.6 * torch.randn(3, 4, generator=generator)
    inputs = torch.randn(4, 9, generator=generator)
    gram = inputs @ inputs.T

    def loss(weights: Tensor) -> Tensor:
        return ((weights - original - 0.1) @ inputs).square().sum()

    def gradient_at(weights: Tensor) -> Tensor:
        return 2 * (weights - original - 0.1) @ gram

    mask = Mask.project(soft)
    masked = mask.applied_to(original)
    wanted, found = gradient_at(masked), tensor(function, soft, original, loss, shape=(3, 4))
    if close(found, wanted, 1e-4):
        right("every weight has a gradient, dropped ones too; seen on 3 groups.")
        return
    hints = (
        (torch.zeros(3, 4), "that is the true derivative, which says nothing: differentiate at the masked weights"),
        (mask.applied_to(wanted), "dropped weights have none: they could never come back. Do not mask the gradient"),
        (gradient_at(soft), "that is the gradient at the soft weights, as in the paper: take it at the masked original ones"),
        (gradient_at(mask.applied_to(soft)), "under the mask stand the original weights, not the soft ones"),
        (gradient_at(original), "that is the gradient at the dense weights: mask them first"),
        (gradient_at(Mask.project(original).applied_to(original)), "the soft weights choose the mask"),
        (-wanted, "that is the direction of descent: the gradient points the other way"),
    )  # fmt: skip
    hint = next(
        (words for value, words in hints if close(found, value, 1e-4)),
        "differentiate the loss at the masked original weights",
    )
    worst = int((found - wanted).abs().flatten().argmax())
    raise Wrong(
        f"The gradient of weight {worst % 4} of group {worst // 4}, which is {'kept' if masked.flatten()[worst] else 'dropped'}, is "
        f"{float(wanted.flatten()[worst]):.4g}, and you have {float(found.flatten()[worst]):.4g}: {hint}."
    )


def exchanged(function: Callable) -> None:
    """How many weights of each group one mask keeps and the other does not."""
    generator = torch.Generator().manual_seed(0)
    before, after = (Mask.project(torch.randn(3, 16, generator=generator)).dense() for _ in range(2))
    after[0, :4] = before[0, :4]
    wanted = (before & ~after).reshape(3, 4, 4).sum(2)
    found = tensor(function, before, after, shape=(3, 4))
    if close(found, wanted):
        right("0, 1 or 2 in every group; seen on 12 groups.")
        return
    hints = (
        (wanted * 2, "an exchange lets one weight in and another out, and counts once"),
        (wanted > 0, "that says whether a group changed, not how many weights it exchanged"),
        (2 - wanted, "those are the weights that stayed"),
    )  # fmt: skip
    hint = next(
        (words for value, words in hints if close(found, value)), "count what was kept before and is not kept after"
    )
    row, group = ((found.double() - wanted).abs() > 1e-6).nonzero()[0].tolist()
    place = slice(4 * group, 4 * group + 4)
    shown = ["".join("●" if kept else "○" for kept in mask[row, place]) for mask in (before, after)]
    raise Wrong(
        f"Group ({row}, {group}) went from {shown[0]} to {shown[1]} and exchanged {int(wanted[row, group])}, and you have "
        f"{float(found[row, group]):g}: {hint}."
    )
