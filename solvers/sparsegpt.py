"""SparseGPT: columns from left to right, each removal made good by the columns to its right.

    H_d  = H + damping * mean(diag H) I,  diagonal 1 for a dead input                             (1)
    H_d^-1 = U'U,  U upper triangular                                                             (2)
    score_ij = |W_ij| / U_jj                                                                      (3)
    E_ij = W_ij / U_jj where W_ij goes, 0 where it stays                                          (4)
    W_i,j: <- W_i,j: - E_ij U_j,j:                                                                (5)

U_jj^2 is the first entry of the inverse of H_d on the inputs j, j+1, ...: (3) squared is what a removal costs while
the weights to its left are frozen, and it is not W_ij^2 / (H_d^-1)_jj. From (5) W0 - W = E U, hence
sum E^2 = tr((W - W0) H_d (W - W0)'), twice the objective on the damped Gram.

A block of columns is decided when it is reached, on the weights as they then are; n:m decides every m columns. The
release cuts each block at a quantile with `<=`, so that ties, one entry at least, go beyond the budget; here each
block keeps its share floor(keep * end / in) - floor(keep * start / in) and the total is exact.

The update (5) reaches the columns beyond the block once per block, as one product: 2.0 s instead of 21.7 s for a
weight of 2048 x 2048 on one core, the same sums in another order.

[1] E. Frantar, D. Alistarh. SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot. ICML 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import scipy.linalg

from solvers.linalg import cholesky
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Solution
from solvers.sparsity import Array, Budget, KeepNofM, Mask


def damped(H: Array, damping: float) -> Array:
    """H_d (1); the mean runs over all inputs, the dead ones included."""
    diagonal = np.diag(H)
    lift: Array = np.where(diagonal > 0, damping * diagonal.mean(), 1.0)
    return H + np.diag(lift)


def upper_factor(H: Array) -> Array:
    """U (2) without an inverse: H = R R' by Cholesky from the last input to the first, U = R^-1."""
    L = np.tril(cholesky(H[::-1, ::-1], "the damped Gram")[0])
    U: Array = scipy.linalg.solve_triangular(L[::-1, ::-1], np.eye(len(H)), check_finite=False)
    return U


def blocks(sparsity: Budget, n: int, blocksize: int) -> Iterator[tuple[slice, int, Budget]]:
    """Columns that are updated together, how many of them are decided at a time, and the budget of one decision."""
    width = max(1, blocksize // sparsity.of) * sparsity.of if isinstance(sparsity, KeepNofM) else blocksize
    for start in range(0, n, width):
        stop = min(start + width, n)
        if isinstance(sparsity, KeepNofM):
            yield slice(start, stop), sparsity.of, sparsity
        else:
            share = sparsity.keep * stop // n - sparsity.keep * start // n
            yield slice(start, stop), width, replace(sparsity, keep=share)


def eliminate(W: Array, U: Array, kept: Mask) -> tuple[Array, Array]:
    """Remove the entries of the first column that are not kept (4), the columns of W make them good (5)."""
    e = np.where(kept, 0.0, W[:, 0]) / U[0, 0]  # (4)
    W = W - e[:, None] * U[0]  # (5)
    W[~kept, 0] = 0.0
    return W, e


def prune(problem: LayerProblem, sparsity: Budget, U: Array, blocksize: int) -> tuple[Array, Array]:
    """The pruned weight and the errors E of (4), both (out, in)."""
    W = problem.W0.copy() if problem.R is None else problem.W0 - problem.R @ U.T @ U
    E, live = np.zeros_like(W), problem.norms > 0
    for block, period, budget in blocks(sparsity, W.shape[1], blocksize):
        for j in range(block.start, block.stop):
            if (j - block.start) % period == 0:
                group = slice(j, min(j + period, block.stop))
                kept = budget.mask(score(W[:, group], U[group, group], live[group]))
            within = slice(j, block.stop)
            W[:, within], E[:, j] = eliminate(W[:, within], U[within, within], kept[:, j - group.start])
        W[:, block.stop :] -= E[:, block] @ U[block, block.stop :]  # (5)
    return W, E


def score(W: Array, U: Array, live: Mask) -> Array:
    """(3); nothing is lost with the weight of a dead input."""
    return np.where(live, np.abs(W) / np.diag(U), 0.0)


def sparsegpt(problem: LayerProblem, sparsity: Budget, *, damping: float = 0.01, blocksize: int = 128) -> Solution:
    """One pass over the columns of the layer in its own coordinates; no ridge but the damping.

    Parameters
    ----------
    damping : share of the mean of diag H that is added to it, 0.01 in the release
    blocksize : columns that are decided at a time, 128 in the release; n:m decides every m columns whatever it is

    Raises
    ------
    Refusal
        On a damped Gram that is not positive definite: with damping = 0 and dependent inputs.

    Notes
    -----
    The weights of a dead input go first in their block; where the budget keeps them they stay as they are, where the
    release sets them to zero. Permuting rows permutes the result, bit for bit in a single block, to rounding in
    several. A drift moves the start to the optimum on the damped Gram, W0 - R H_d^-1.
    """
    if blocksize < 1:
        raise Refusal(f"blocksize is at least 1; got {blocksize}. The release decides 128 columns at a time.")
    W, _ = prune(problem, sparsity, upper_factor(damped(problem.H, damping)), blocksize)
    return Solution(W)
