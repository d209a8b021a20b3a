r"""The proximal operator of the 2:4 regularizer, exact on every group.

    prox_{λR}(v) = argmin_w  ½‖w − v‖² + λ (|w1w2w3| + |w2w3w4| + |w3w4w1| + |w4w1w2|)

(Liu et al. 2025, arXiv 2502.00258, section 3.2.) The groups do not interact, signs and order carry over from v to w,
and with x = λ|w|, p = λ|v| the problem loses its parameter: minimize f(x) = ½‖x − p‖² + e3(x) over x ≥ 0. From here
on p1 ≥ p2 ≥ p3 ≥ p4 ≥ 0, and so is x.

*Which points can win.* A stationary point solves x_i = p_i − e2(the other three) on its support. On one or two
nonzeros R vanishes, so the best is x = (p1, p2, 0, 0). On a support of three or four a minimum has a positive
semidefinite Hessian; the Hessian is linear in x, so the points where it is semidefinite form a convex set, f is convex
on it, and *each support holds at most one local minimum* (Kübler et al. 2025, arXiv 2501.18015, make the same
observation for the region without zeros). Three candidates then, and the smallest f decides. (`proxsparse.proximal.supports`
has them for groups of any size.)

*Support of three.* With a = x3 fixed, (x1, x2) solve a 2×2 linear system, and what remains is one equation,

    g(a) = a − p3 + x1 x2 = 0,   x1 = (p1 − a p2)/(1 − a²),   x2 = (p2 − a p1)/(1 − a²).

The minimum is the root where g rises. g'' = −6 (a x1 − x2)(x1 − a x2)/(1 − a²)² is positive as long as x2 > a x1, which
holds at the minimum (x1 ≤ 1, x2 ≥ a). Started to the right of the root, Newton's method on a convex rising function
descends to it without overshooting. To the right of the root lie: the a with x2 = a x1; the solution of a + a² = p3
(because x1 x2 ≥ a²); and 1/√2, because a stationary point beats (p1, p2, 0, 0) iff x1² + x2² ≤ 1.

*Support of four.* All x_i solve the same quadratic x² + (1 − E1) x + e2 − p_i = 0, so with s = (1 − E1)/2 + x4 and
r_i = √(s² + p_i − p4) they are x_i = t + r_i (r_4 = s), t = (1 − r1 − r2 − r3 − s)/2. One equation remains,

    φ(s) = x4 − p4 + x1x2 + x2x3 + x3x1 = 0.

On 0 ≤ s ≤ ½ it falls, and Newton's method, with bisection when it leaves the bracket, finds the root; where φ(0) < 0
the root, if there is one, lies just below 0 and Newton's method reaches it from 0.

*Small groups.* Where p1 + p2 + p3 + p4 is small the Hessian is diagonally dominant on the whole box 0 ≤ x ≤ p, so f is
convex there and has one minimum, whatever its support. Cyclic minimization over one x_i at a time converges at
a rate of about (2 Σp)², so a few sweeps reach rounding error, with no sorting. At the usual strengths nearly all
groups are small.

*When the support of four is not tried.* The compiled passes skip it where the other candidate is the minimum already:
where p1 + p2 + p3 ≤ 1, since then f is convex on the whole box 0 ≤ x ≤ p (its Hessian is at least 1 − the sum of the
other x_i on the diagonal) and a point that satisfies the conditions of a minimum, p4 ≤ e2(x1, x2, x3), is the minimum;
and, with margins found by search and tested against brute force rather than proved, where p3 ≤ p1 p2,
p4 ≤ 0.8 e2(x1, x2, x3) or p1 > 1 (a support of four has won only above 1.005 p1 p2, above 0.93 e2, and below 0.91).

Candidates that were not found, or not to full accuracy, cannot do harm: every candidate is feasible, and the
comparison is of true objective values. The tests compare with brute force in float64.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings

import torch
from torch import Tensor

from proxsparse.errors import ProxSparseError
from proxsparse.masks.groups import check_groups, from_planes, in_planes, keep_largest, magnitudes
from proxsparse.masks.mask import Mask
from proxsparse.masks.packing import bits_set, pack_planes
from proxsparse.proximal.counts import CHUNK, Counts
from proxsparse.proximal.n_of_m import n_of_m, one_of_m
from proxsparse.proximal.regularizer import elementary_symmetric
from proxsparse.proximal.stochastic_rounding import writer
from proxsparse.proximal.supports import best_of_supports

SMALL = 0.25  # Σp up to which cyclic minimization is used: 8 sweeps then leave an error below float32's rounding
SWEEPS = 8
WEAKEST, STRONGEST = 1e-35, 1e30  # what float32 multiplies and divides by: a weaker λ moves nothing, a stronger no more


def prox(v: Tensor, lam: float, n: int = 2, m: int = 4, scale: Tensor | None = None) -> Tensor:
    """prox_{λR}(v), the global minimum of ½‖w − v‖² + λR(w) on every group, as a new tensor.

    Parameters
    ----------
    v, lam, n, m, scale
        As `prox_` takes them.

    Returns
    -------
    Tensor
        Like `v`: shape, dtype and device.

    Raises
    ------
    ProxSparseError
        As `prox_`.

    References
    ----------
    Liu et al. 2025, arXiv 2502.00258, section 3.2.

    Examples
    --------
    >>> prox(torch.tensor([[1.0, -2.0, 3.0, 4.0]]), lam=10.0)      # a large λ keeps the two largest
    tensor([[0., 0., 3., 4.]])
    """
    return prox_(v.clone(), lam, n, m, scale)


def prox_(v: Tensor, lam: float, n: int = 2, m: int = 4, scale: Tensor | None = None) -> Tensor:
    """Replace `v` by prox_{λR}(v), the global minimum of ½‖w − v‖² + λR(w) on every group; returns `v`.

    Parameters
    ----------
    v : Tensor
        (out, in), any strides; fp32, bf16, fp16 or fp64.
    lam : float
        λ ≥ 0, absolute, in the unit weight^(1−n) (weight⁻¹ for 2:4), where `scale` is given of the scaled weights.
    n, m : int
        The pattern. 1:m and 2:m are exact; for the others see `proxsparse.proximal.n_of_m`.
    scale : Tensor, optional
        The metric, (in,) or (out, in), positive: the operator is applied to u = scale·v, and the result divided back.

    Returns
    -------
    Tensor
        `v` itself.

    Raises
    ------
    ProxSparseError
        For a λ that is negative or not a number, a shape that groups of m do not fit, and weights that are not finite.

    References
    ----------
    Liu et al. 2025, arXiv 2502.00258, section 3.2; the solver is ours, see the module's text.
    """
    if not 0 <= lam < float("inf"):
        raise ProxSparseError(f"λ is {lam}: give a number that is 0 or more.")
    check_groups(v, n, m, scale)
    prox_and_count_(v, lam, n, m, scale).read()
    return v


@torch.no_grad()
def prox_and_count_(
    v: Tensor,
    lam: float,
    n: int = 2,
    m: int = 4,
    scale: Tensor | None = None,
    previous: Mask | None = None,
    start: Mask | None = None,
    original: Tensor | None = None,
    seed: int | None = None,
) -> Counts:
    """`prox_`, and what can be counted in the same pass: see `Counts`.

    Shapes are checked here; values (λ, the scale, the weights) are not, because a GPU would have to be waited for.

    Parameters
    ----------
    v, lam, n, m, scale
        As for `prox_`.
    previous, start
        Masks of the shape of `v` to count flips from; each may be given without the other.
    original
        Like `v`, of any dtype, to measure the drift from.
    seed
        Round to bf16 stochastically, see `proxsparse.proximal.stochastic_rounding`; None: to nearest.

    Returns
    -------
    Counts
        The projected mask, and the sums of what was counted.

    Raises
    ------
    ProxSparseError
        For a scale, a mask or an original whose shape does not fit `v`.

    Examples
    --------
    >>> from proxsparse.masks.mask import Mask
    >>> v = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> prox_and_count_(v, 10.0, start=Mask.project(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))).read().flips_from_start
    4
    """
    _check_shapes(v, m, scale, previous, start, original)
    if v.numel() == 0:  # compiled code divides the work by its size
        return Counts(Mask.project(v, n, m), torch.zeros(5 + m - n + 2, dtype=torch.float64, device=v.device))
    lam = min(lam, STRONGEST) if lam >= WEAKEST else 0.0
    if (n, m) == (2, 4) and v.dtype != torch.float64:
        if v.device.type == "cpu" and available("numba", "the CPU"):
            from proxsparse.proximal.numba_kernel import prox_and_count_cpu_  # here: numba takes a second to import

            return prox_and_count_cpu_(v, lam, scale, previous, start, original, seed)
        if v.device.type == "cuda" and available("triton", "the GPU"):
            from proxsparse.proximal.triton_kernel import prox_and_count_cuda_

            return prox_and_count_cuda_(v, lam, scale, previous, start, original, seed)
    return _eager_pass(v, lam, n, m, scale, previous, start, original, seed)


def _check_shapes(
    v: Tensor, m: int, scale: Tensor | None, previous: Mask | None, start: Mask | None, original: Tensor | None
) -> None:
    """Raise ProxSparseError where compiled code would read beside what it was given."""
    shape = tuple(v.shape)
    if v.ndim != 2 or shape[1] % m:
        raise ProxSparseError(f"A weight has shape {shape}: give an (out, in) matrix whose columns are groups of {m}.")
    if scale is not None and tuple(scale.shape) not in (shape, shape[1:]):
        raise ProxSparseError(
            f"The scale has shape {tuple(scale.shape)} and the weight {shape}: give one scale an input feature, or one a "
            "weight."
        )
    if original is not None and tuple(original.shape) != shape:
        raise ProxSparseError(
            f"The original weight has shape {tuple(original.shape)} and the weight {shape}: give one of the same shape."
        )
    packed = (shape[0], -(-shape[1] // 8))
    for name, mask in (("previous", previous), ("start", start)):
        if mask is not None and (tuple(mask.shape) != shape or tuple(mask.packed.shape) != packed):
            raise ProxSparseError(
                f"The {name} mask has shape {tuple(mask.shape)}, packed as {tuple(mask.packed.shape)}, and the weight "
                f"{shape}: give a mask of this weight."
            )


@functools.cache
def available(compiler: str, device: str) -> bool:
    """Whether the compiled pass can be used; says once when not."""
    if importlib.util.find_spec(compiler):
        return True
    warnings.warn(
        f"{compiler} is not installed: on {device} the proximal operator takes its slower path.", stacklevel=3
    )
    return False


def _eager_pass(
    v: Tensor,
    lam: float,
    n: int,
    m: int,
    scale: Tensor | None,
    previous: Mask | None,
    start: Mask | None,
    original: Tensor | None,
    seed: int | None,
) -> Counts:
    """Plain torch, on any device and for any pattern, a few rows at a time."""
    packed, sums = [], torch.zeros(6 + m - n + 1, dtype=torch.float64, device=v.device)
    rows_at_a_time, write = max(1, CHUNK // v.shape[1]), writer(v, seed)
    for begin in range(0, v.shape[0], rows_at_a_time):
        rows = slice(begin, begin + rows_at_a_time)
        block = v[rows]
        block_scale = scale[rows] if scale is not None and scale.ndim == 2 else scale
        u = in_planes(magnitudes(block, block_scale), m)
        sums[4] += (u * 0).sum()
        kept = keep_largest(u, n)  # the operator keeps order: asked before it, rounding cannot split what was equal
        if lam > 0:
            change, alive = _change(u, lam, n)
            u = torch.where(alive, u + change, 0)
            change = from_planes(change, block.shape)
            change = change if block_scale is None else change / block_scale
            # Added, not replaced: a weight that is left alone keeps its very bits.
            write(block, torch.where(from_planes(u > 0, block.shape), block + change * block.sign(), 0))
        packed.append(pack_planes(kept, block.shape))
        sums[0] += elementary_symmetric(u, n + 1).sum(dtype=torch.float64)
        if original is not None:
            sums[1] += (block.float() - original[rows].float()).double().square().sum()
        for entry, other in ((2, previous), (3, start)):
            if other is not None:
                sums[entry] += bits_set(packed[-1] ^ other.packed[rows])
        count = (u > 0).sum(0, dtype=torch.uint8)
        sums[5] += (count == m).sum()
        for k in range(m - 1, n - 1, -1):
            sums[5 + m - k] += (count == k).sum()
        sums[-1] += (count < n).sum()
    return Counts(Mask(torch.cat(packed), (v.shape[0], v.shape[1]), n, m), sums)


def _change(u: Tensor, lam: float, n: int) -> tuple[Tensor, Tensor]:
    """How the operator changes the magnitudes u (m, groups), and which of them stay above zero."""
    if n == 1:
        x = one_of_m(u, lam)
        return x - u, x > 0
    # With p = c·u, c = λ^(1/(n−1)), the problem loses its parameter. The bounds keep a tiny weight from becoming a
    # zero, which the operator would take for a dropped one, and a huge one finite.
    unit, limits = lam ** (1 / (n - 1)), torch.finfo(u.dtype)
    p = (u * unit).clamp_(limits.tiny, limits.max)
    x = solve(p) if (n, len(u)) == (2, 4) else n_of_m(p, n)
    return (x - p).div_(unit), x > 0


def solve(p: Tensor) -> Tensor:
    """argmin over x ≥ 0 of ½‖x − p‖² + e3(x), column by column. p, result: (4, groups), p ≥ 0 in any order."""
    x = _cyclic_minimization(p)
    large = p.sum(0) > SMALL
    if bool(large.any()):
        x[:, large] = best_of_supports(p[:, large].double()).to(p.dtype)
    return x


def _cyclic_minimization(p: Tensor) -> Tensor:
    x1, x2, x3, x4 = p.clone()
    p1, p2, p3, p4 = p
    for _ in range(SWEEPS):
        product, total = x1 * x2, x1 + x2
        x4 = torch.addcmul(product, x3, total).neg_().add_(p4).clamp_(min=0)
        x3 = torch.addcmul(product, x4, total).neg_().add_(p3).clamp_(min=0)
        product, total = x3 * x4, x3 + x4
        x2 = torch.addcmul(product, x1, total).neg_().add_(p2).clamp_(min=0)
        x1 = torch.addcmul(product, x2, total).neg_().add_(p1).clamp_(min=0)
    return torch.stack((x1, x2, x3, x4))
