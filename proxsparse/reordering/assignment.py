"""An order of columns in which the groups of every row keep more of their scores.

As in RIA's channel permutation (Zhang et al. 2024, Plug-and-Play, ICLR): the columns are dealt out to the groups by their
scores, then, place by place, those that stand there are dealt out anew, by the assignment that keeps the most (the Hungarian algorithm).
"""

from __future__ import annotations

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError

SWEEPS = 2  # over all places of a group; a third gains next to nothing
ENTRIES = 2**25  # laid out at once, 128 MB in float32


def kept(scores: Tensor, n: int = 2, m: int = 4) -> float:
    """What the n largest of every m neighbours of a row keep, summed. scores: (rows, columns)."""
    return scores.view(len(scores), -1, m).topk(n, dim=-1).values.sum(dtype=torch.float64).item()


def best_order(scores: Tensor, n: int = 2, m: int = 4, sweeps: int = SWEEPS) -> Tensor:
    """An order of the columns that keeps at least what their own order keeps, and as a rule more.

    Parameters
    ----------
    scores : Tensor
        Not negative, (rows, columns), columns a multiple of m: what keeping a weight is worth.
    n, m : int
        How many of every m are kept.
    sweeps : int
        How often every place is dealt out anew.

    Returns
    -------
    Tensor
        int64 (columns,): `scores[:, order]` is the reordered matrix.

    Raises
    ------
    ProxSparseError
        Where SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ProxSparseError("Reordering needs SciPy: pip install 'proxsparse[reorder]'.") from None
    groups = scores.shape[1] // m
    own = torch.arange(scores.shape[1], device=scores.device)
    dealt = scores.sum(0).argsort(descending=True).view(m, groups)
    dealt[1::2] = dealt[1::2].flip(1)  # there and back, so that no group has the largest of all places
    members = dealt.t().contiguous()
    for _ in range(sweeps):
        for place in range(m):
            others = scores[:, members[:, [each for each in range(m) if each != place]]]  # (rows, groups, m − 1)
            largest = others.topk(n, dim=-1).values
            # With one more column, c, a group keeps its n − 1 largest others and the larger of the n-th and c.
            sure, last = largest[..., :-1].sum((0, 2)), largest[..., -1]
            moved = scores[:, members[:, place]]  # (rows, groups)
            gains = sure.unsqueeze(1).expand(-1, groups).clone()  # (group, column that may come)
            rows = max(1, ENTRIES // groups**2)
            for mine, theirs in zip(last.split(rows), moved.split(rows), strict=True):
                gains += torch.maximum(mine.unsqueeze(2), theirs.unsqueeze(1)).sum(0)
            _, chosen = linear_sum_assignment(gains.double().cpu().numpy(), maximize=True)
            members[:, place] = members[torch.as_tensor(chosen, device=members.device), place]
    order = members.flatten()
    return order if kept(scores[:, order], n, m) > kept(scores, n, m) else own
