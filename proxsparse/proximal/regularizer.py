"""The N:M regularizer: zero exactly when every group is N:M.

For 2:4 (Liu et al. 2025, arXiv 2502.00258, section 3.1) it is, group by group and summed over the groups,

    R(w) = |w1 w2 w3| + |w2 w3 w4| + |w3 w4 w1| + |w4 w1 w2|,

the elementary symmetric polynomial e_3 of the four magnitudes. For N:M the same idea gives e_{N+1} of M magnitudes:
it vanishes iff at most N of them are nonzero.
"""

from __future__ import annotations

from torch import Tensor

from proxsparse.masks.groups import check_groups, in_planes, magnitudes


def elementary_symmetric(planes: Tensor, degree: int) -> Tensor:
    """e_degree of the entries of each column of `planes` (m, groups); shape (groups,).

    One pass over the planes, in `degree` running sums: e_k(x1…xi) = e_k(x1…x(i−1)) + xi·e_{k−1}(x1…x(i−1)).
    """
    sums = [planes.new_ones(()), *(planes.new_zeros(planes.shape[1]) for _ in range(degree))]
    for plane in planes:
        for k in range(degree, 0, -1):
            sums[k] = sums[k] + plane * sums[k - 1]
    return sums[degree]


def regularizer(w: Tensor, n: int = 2, m: int = 4, scale: Tensor | None = None) -> Tensor:
    """R(w), summed over the groups of `w`; a scalar tensor, differentiable in `w`.

    Parameters
    ----------
    w : Tensor
        (out, in), groups of `m` along `in`.
    n, m : int
        The pattern.
    scale : Tensor, optional
        The metric, (in,) or (out, in); then R is taken of `scale * w`.

    Returns
    -------
    Tensor
        A scalar, in the unit weight^(n+1).

    Raises
    ------
    ProxSparseError
        For a shape that groups of m do not fit.

    References
    ----------
    Liu et al. 2025, arXiv 2502.00258, section 3.1.

    Examples
    --------
    >>> import torch
    >>> regularizer(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))     # 1·2·3 + 2·3·4 + 3·4·1 + 4·1·2
    tensor(50.)
    >>> regularizer(torch.tensor([[1.0, 0.0, 3.0, 0.0]]))     # already 2:4
    tensor(0.)
    """
    check_groups(w, n, m, scale)
    return elementary_symmetric(in_planes(magnitudes(w, scale), m), n + 1).sum()
