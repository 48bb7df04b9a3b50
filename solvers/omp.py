"""Orthogonal matching pursuit (OMP): the support grows by one input at a time, and the weights are refitted.

Minimise f(W), the layer's quadratic, with k nonzeros in every row; x a row, S its support, x_0 = 0.

    j_t   = argmax over j not in S_t of |grad_j f(x_t)| / sqrt(H_jj)                              (1)
    S_t+1 = S_t + {j_t}                                                                           (2)
    x_t+1 = argmin of f over weights supported on S_t+1                                           (3)

(1) is the largest correlation of an input with the residual. A reference for recovery, not one of `solvers.METHODS`.

[1] Y. Pati, R. Rezaiifar, P. Krishnaprasad. Orthogonal matching pursuit. Asilomar 1993.
"""

from __future__ import annotations

import numpy as np

from solvers.linalg import least_squares_exact
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Solution
from solvers.sparsity import Array, KeepPerRow, Mask


def pulls(problem: LayerProblem, W: Array, mask: Mask) -> Array:
    """(out, in) |grad f| / sqrt(H_jj) off the support, 0 on it and where an input is dead."""
    live = (problem.norms > 0) & ~mask
    return np.divide(np.abs(problem.grad(W)), problem.norms, out=np.zeros(problem.shape), where=live)


def omp(problem: LayerProblem, sparsity: KeepPerRow) -> Solution:
    """k rounds of (1)-(3), all rows at once.

    Parameters
    ----------
    problem : rows share the Gram, whose blocks on every support met must be positive definite
    sparsity : KeepPerRow(k)

    Returns
    -------
    Solution
        k nonzeros in every row; fewer where a row is fitted exactly, so that nothing is left to correlate with.

    Raises
    ------
    Refusal
        On a budget that is not per row, and where the inputs of a support are linearly dependent.
    """
    if not isinstance(sparsity, KeepPerRow):
        raise Refusal(f"omp keeps a number of inputs in every row, KeepPerRow(k); got {sparsity!r}.")
    if not 0 <= sparsity.keep <= problem.shape[1]:
        raise Refusal(f"omp keeps 0 to {problem.shape[1]} inputs of this layer; got {sparsity!r}.")
    W, mask = np.zeros(problem.shape), np.zeros(problem.shape, dtype=bool)
    rows = np.arange(problem.shape[0])
    for _ in range(sparsity.keep):
        scores = pulls(problem, W, mask)
        j = scores.argmax(axis=1)  # (1)
        mask[rows, j] |= scores[rows, j] > 0  # (2)
        W = least_squares_exact(problem, mask)  # (3)
    return Solution(W)
