"""Exact selection by one partition or by radix passes, and proximal operators written over their argument.

Letters: A = |Z| magnitudes; a_(1) >= a_(2) >= ... the ordered scores of a window; k = keep; s step; lam penalty;
b_j the bits of a_j as an integer of the same order.

    j stays  iff  a_j > a_(k),  or  a_j = a_(k) and at most k - #{i : a_i > a_(k)} of i <= j have a_i = a_(k)   (1)
    j stays  iff  #{i < j : a_i >= a_j} + #{i > j : a_i > a_j} < k                                              (2)
    b_(k) = max {t : #{j : b_j >= t} >= k}, bit by bit from the highest, one count of each window a bit         (3)

(1) and (2) say: the k largest, of equal scores the lower index. Where a_(k) > a_(k+1), (1) is a_j >= a_(k).
Comparisons are exact, so for equal scores every library finds the mask of `solvers.sparsity.largest`, bit for bit.

On the CPU a partition finds a_(k); elsewhere (3) does, which sorts nothing, moves nothing and adds only integers. For
torch on a CUDA device the Triton kernels of `solvers.gpu.kernels` do the same in one pass: `kernels_for` decides.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import array_api_compat

from solvers.array import into, keep_only, neighbours, on_device, ordered_bits
from solvers.refusal import Refusal
from solvers.sparsity import L0, L1, Budget, KeepNofM, KeepPerLayer, KeepPerRow, OnTheWay, Sparsity

NARROW = 8  # windows up to this width are compared pair by pair


def kernels_for(array: Any) -> Any:
    """The Triton kernels for a contiguous torch array on a CUDA device; None for all others and without Triton."""
    if not array_api_compat.is_torch_array(array) or array.device.type != "cuda" or not array.is_contiguous():
        return None
    from solvers.gpu import kernels

    return kernels if kernels.AVAILABLE else None


def largest(scores: Any, keep: int, scratch: Any = None) -> Any:
    """Mark the `keep` largest scores along the last axis; of equal scores the lower index wins.

    Parameters
    ----------
    scores : (..., n) array without NaN
    keep : int in 0..n
    scratch : an array like `scores` that may be overwritten; a new one where None
    """
    xp, n = array_api_compat.array_namespace(scores), scores.shape[-1]
    if keep <= 0 or keep >= n:
        return xp.full(scores.shape, keep >= n, dtype=xp.bool, device=array_api_compat.device(scores))
    kernels = kernels_for(scores)
    if kernels and n <= kernels.WIDEST:
        return kernels.marked(scores, keep)
    if n <= NARROW:
        return pairwise(xp, scores, keep)
    if on_device(scores):
        return radix(xp, scores, keep)
    kth, next_to_it = neighbours(scores, n - keep, xp.empty_like(scores) if scratch is None else scratch)
    return first_of_tied(xp, scores, kth, keep) if xp.any(next_to_it == kth) else scores >= kth


def radix(xp: Any, scores: Any, keep: int) -> Any:
    """The mask (1) with a_(k) from (3): as many counts as a score has bits, the sign bit first."""
    bits, width = ordered_bits(scores)
    kth = xp.full_like(bits[..., :1], -(2 ** (width - 1)))
    reached = xp.full_like(kth, scores.shape[-1], dtype=xp.int64)
    for n in reversed(range(width)):
        trial = kth + 2**n if n < width - 1 else xp.zeros_like(kth)
        count = xp.astype(xp.count_nonzero(bits >= trial, axis=-1, keepdims=True), xp.int64)
        kth, reached = xp.where(count >= keep, trial, kth), xp.where(count >= keep, count, reached)
    return bits >= kth if xp.all(reached == keep) else first_of_tied(xp, bits, kth, keep)


def first_of_tied(xp: Any, scores: Any, kth: Any, keep: int) -> Any:
    """The mask (1) where scores tie across the threshold `kth`."""
    above, tied = scores > kth, scores == kth
    room = keep - xp.count_nonzero(above, axis=-1, keepdims=True)
    return above | (tied & (xp.cumulative_sum(xp.astype(tied, xp.int64), axis=-1) <= room))


def pairwise(xp: Any, scores: Any, keep: int) -> Any:
    """The mask (2): one comparison for each pair of columns."""
    columns = [scores[..., j] for j in range(scores.shape[-1])]
    ahead = [xp.zeros_like(column, dtype=xp.int8) for column in columns]
    for j, later in enumerate(columns):
        for i, earlier in enumerate(columns[:j]):
            won = xp.astype(earlier >= later, xp.int8)
            ahead[j] += won
            ahead[i] += 1 - won
    return xp.stack([count < keep for count in ahead], axis=-1)


def mask(budget: Budget, scores: Any, scratch: Any = None) -> Any:
    """The pattern of a budget per row, per layer or n:m, with the exact count; `Budget.mask` for any library.

    On the way to n:m an entry without a score may count among the extra ones, and what `prox` keeps is the same.
    """
    xp = array_api_compat.array_namespace(scores)
    if isinstance(budget, OnTheWay):
        safe = mask(budget.goal, scores, scratch)
        return safe | mask(KeepPerRow(budget.extra), xp.where(safe, xp.zeros_like(scores), scores), scratch)
    if not isinstance(budget, KeepPerRow | KeepPerLayer | KeepNofM):
        raise Refusal(f"a fast twin keeps entries per row, per layer or n:m; got {budget}. Use the reference solver.")
    windows = (-1, budget.most(scores.shape))  # all that may be kept is the width of a window
    rows = None if scratch is None else xp.reshape(scratch, windows)
    return xp.reshape(largest(xp.reshape(scores, windows), budget.keep, rows), scores.shape)


def prox(sparsity: Sparsity, Z: Any, s: float, scratch: tuple[Any, Any]) -> Any:
    """prox_{sg}(Z), written over Z and both scratch arrays where the library can."""
    xp = array_api_compat.array_namespace(Z)
    if isinstance(sparsity, L1):
        reach = sparsity.lam * s
        Z -= xp.clip(Z, -reach, reach)  # Moreau: the prox and the projection to the dual ball add up to Z
        return Z
    kernels = kernels_for(Z)
    if kernels and kernels.serves(sparsity, Z):
        return kernels.candidate(sparsity, [(1.0, Z)], s, Z)[0]
    A = into(xp.abs, Z, out=scratch[0])
    if isinstance(sparsity, L0):
        return keep_only(Z, sqrt(2 * sparsity.lam * s) < A)
    return keep_only(Z, mask(sparsity, A, scratch[1]))


def penalty(sparsity: Sparsity, W: Any) -> float:
    """g(W) of a W that `prox` returned: a budget is met."""
    xp = array_api_compat.array_namespace(W)
    if isinstance(sparsity, L0):
        return sparsity.lam * int(xp.count_nonzero(W))
    if isinstance(sparsity, L1):
        return sparsity.lam * float(xp.sum(xp.sum(xp.abs(W), axis=-1), dtype=xp.float64))
    return 0.0
