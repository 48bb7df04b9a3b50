"""Frank-Wolfe on the relaxed choice of a mask.

Weights keep their dense values; a mask M says how much of each stays. Every row is a problem of its own:

    minimise g(M) = f(M o W0) over M in [0, 1]^(out x in), every row of which sums to k

    G_n   = W0 o grad f(M_n o W0), the gradient of g                                              (1)
    S_n   = argmin_S <G_n, S>: one on the k smallest entries of every row of G_n                  (2)
    M_n+1 = M_n + 2/(n + 2) (S_n - M_n)                                          [1, Alg. 1]      (3)
    gap_n = <G_n, M_n - S_n> >= g(M_n) - g*, row by row                          [1, eq. 2]       (4)

The relaxation g* is below the value of every 0/1 mask with k ones per row, and by (4) so is g(M_n) - gap_n; below
that of refitted weights it need not be. A reference page: no row of METHODS, one of its uses is that lower bound.

[1] M. Jaggi. Revisiting Frank-Wolfe: Projection-Free Sparse Convex Optimization. ICML 2013.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Solution, Stop
from solvers.sparsity import Array, KeepPerRow, largest


class State(NamedTuple):
    M: Array
    n: int = 0


def start(problem: LayerProblem, k: int) -> State:
    """The centre of the polytope, k / in everywhere."""
    return State(np.full(problem.shape, k / problem.shape[1]))


def gradient(problem: LayerProblem, M: Array) -> Array:
    """(out, in) the gradient (1)."""
    return problem.W0 * problem.grad(M * problem.W0)  # (1)


def vertex(G: Array, k: int) -> Array:
    """(out, in) the vertex (2), of 0 and 1; of equal entries the lower index stays."""
    return largest(-G, k).astype(np.float64)  # (2)


def gaps(problem: LayerProblem, k: int, M: Array) -> Array:
    """(out,) the duality gaps (4) of the rows."""
    G = gradient(problem, M)
    return np.asarray((G * (M - vertex(G, k))).sum(axis=1))  # (4)


def length(n: int) -> float:
    """How far step n goes towards the vertex."""
    return 2 / (n + 2)


def step(problem: LayerProblem, k: int, now: State) -> State:
    S = vertex(gradient(problem, now.M), k)
    return State(now.M + length(now.n) * (S - now.M), now.n + 1)  # (3)


def frank_wolfe(problem: LayerProblem, sparsity: KeepPerRow, *, iters: int = 50) -> Solution:
    """Steps (1)-(3) from the centre; the k largest entries of the last mask keep their dense weights.

    Parameters
    ----------
    iters : steps
    """
    if not isinstance(sparsity, KeepPerRow):
        raise Refusal(f"frank_wolfe chooses k weights per row; got {sparsity}. Use KeepPerRow(k).")
    now = start(problem, sparsity.keep)
    for _ in range(iters):
        now = step(problem, sparsity.keep, now)
    return Solution(np.where(sparsity.mask(now.M), problem.W0, 0.0), Stop.EXHAUSTED)
