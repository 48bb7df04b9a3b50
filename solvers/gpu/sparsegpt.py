"""SparseGPT in three widths of blocks, every update beyond a narrow one a product, in float32 where asked.

Letters as in `solvers.sparsegpt`; B a block of columns that is decided together or holds whole n:m groups, N its narrow
blocks. W and E are held with the inputs along the rows, so that a column of the paper is contiguous.

    E_j  = W_j / U_jj where it goes,   W_j' -= U_jj' E_j   for j' > j in N                        (1)
    W_B' -= U_N,B'' E_N                for the rest B' of B                                       (2)
    W_+  -= U_B,+' E_B                 for the inputs + beyond B                                  (3)

The sums are the reference's in another order. U is found in float64, once per site, and rounded once. Rungs below
float32 pass in float32: W_start - W = E U adds up over all columns what a product loses, and one pass costs no more
than half a product with the Gram.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from solvers.array import Place, full_precision, keep_only, to_numpy
from solvers.gpu import factor, select
from solvers.gpu.layer import require_representable
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Solution
from solvers.sparsegpt import blocks, damped
from solvers.sparsity import Budget, KeepNofM

NARROW = 16  # columns that are eliminated one by one before a product carries them further


class Pass(NamedTuple):
    """W and E, (in, out) both, U, and which inputs are alive, (in,) ones and zeros."""

    W: Any
    E: Any
    U: Any
    live: Any


def start(problem: LayerProblem, damping: float, place: Place) -> Pass:
    """U in the precision of the place, and W where the pass begins: the optimum on the damped Gram under a drift."""
    xp, dtype = place.xp, getattr(place.xp, place.dtype)
    U = factor.upper(problem.gram, damped(problem.H, damping), damping, place)
    exact = factor.exact(place)
    W = exact.put(np.ascontiguousarray(problem.W0.T))
    if problem.R is not None:
        W -= xp.matmul(U.T, xp.matmul(U, exact.put(problem.R.T)))
    W = xp.astype(W, dtype)
    return Pass(W, xp.zeros_like(W), xp.astype(U, dtype), place.put((problem.norms > 0).astype(np.float64)))


def decided(k: Pass, group: slice, budget: Budget) -> tuple[Any, Any]:
    """The entries of a group of inputs that stay, (group, out), by |W_j| / U_jj; and 1 / U_jj for those that go."""
    xp = array_api_compat.array_namespace(k.W)
    roots = 1 / xp.linalg.diagonal(k.U[group, group])[:, None]
    stays = select.mask(budget, (xp.abs(k.W[group, :]) * (k.live[group, None] * roots)).T).T
    return stays, xp.where(stays, xp.zeros_like(roots), roots)


def prune(k: Pass, sparsity: Budget, blocksize: int) -> Pass:
    """The pass over all columns; W and E are written over where the library can."""
    W, E, U, _ = k
    narrow = max(1, NARROW // sparsity.of) * sparsity.of if isinstance(sparsity, KeepNofM) else NARROW
    for block, period, budget in blocks(sparsity, W.shape[0], blocksize):
        group = slice(block.start, block.start)
        stays: Any = None
        goes: Any = None
        for first in range(block.start, block.stop, narrow):
            last = min(first + narrow, block.stop)
            for j in range(first, last):
                if j == group.stop:
                    group = slice(j, min(j + period, block.stop))
                    stays, goes = decided(k, group, budget)
                eliminate(k, j, last, goes[j - group.start, :])
                if j + 1 == group.stop:
                    W[group, :] = keep_only(W[group, :], stays)
            W[last : block.stop, :] -= U[first:last, last : block.stop].T @ E[first:last, :]  # (2)
        W[block.stop :, :] -= U[block, block.stop :].T @ E[block, :]  # (3)
    return k


def eliminate(k: Pass, j: int, last: int, goes: Any) -> None:
    """The errors of input j, and what they change in the inputs up to `last` (1)."""
    W, E, U, _ = k
    E[j, :] = W[j, :] * goes
    if j + 1 < last:
        W[j + 1 : last, :] -= U[j, j + 1 : last, None] * E[j, None, :]


def sparsegpt(
    problem: LayerProblem,
    sparsity: Budget,
    place: Place,
    *,
    damping: float = 0.01,
    blocksize: int = 128,
) -> Solution:
    """The fast twin of `solvers.sparsegpt.sparsegpt`: the same removals and compensations to rounding.

    Parameters
    ----------
    place : library, precision and device of the computation
    damping, blocksize : as in the reference
    """
    if blocksize < 1:
        raise Refusal(f"blocksize is at least 1; got {blocksize}. The release decides 128 columns at a time.")
    sparsity.windows(problem.W0)  # refuses a width that it does not divide
    require_representable(problem, place)
    place = place.on_host  # a call of NumPy costs a fifth of one of torch, and most are short
    with full_precision(place.xp):
        W = prune(start(problem, damping, place), sparsity, blocksize).W
    return Solution(to_numpy(W, "weight").T.copy())
