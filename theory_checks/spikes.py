"""Spikes at the universal threshold, the truth on which thresholding errs most, and what solvers make of it.

    y = X w + sigma eps,   w_1 = ... = w_k = sigma tau,   tau = sqrt(2 log p)                      (1)
    W0 = w + sigma H^-1 X'eps / n ~ w + (sigma / sqrt(n)) C^-T z,   H = X'X / n = C C'             (2)

Letters: n observations, p inputs, k nonzeros, z standard normal; tau in units of an entry's standard deviation. W0 is
the least-squares solution, from which every solver starts and which is all that it needs beside H.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt

import numpy as np

from solvers.problem import LayerProblem
from solvers.solution import Solution
from solvers.sparsity import L0, Array
from theory_checks.synthetic import Rng


def selection_threshold(p: int) -> float:
    """tau, the threshold at which entries are kept, in standard deviations."""
    return sqrt(2 * log(p))


def per_observation(squares: Array, n: int) -> Array:
    """|X (w^ - w)|^2 / n: the risk is a mean over observations, not a sum."""
    return squares / n


def spikes(p: int, k: int) -> Array:
    """(p,) k entries at the universal threshold, where hard thresholding errs most."""
    return np.where(np.arange(p) < k, sqrt(2 * log(p)), 0.0)


def gaussian_root(rng: Rng, n: int, p: int) -> Array:
    """(p, p) C lower triangular with C C' = X'X / n in law for a normal X (n, p), n >= p [Bartlett 1933].

    n enters only through the chi-square diagonal, so that a million observations cost as much as a hundred.
    """
    C = np.tril(rng.standard_normal((p, p)), -1) + np.diag(np.sqrt(rng.chisquare(n - np.arange(p))))
    return np.asarray(C / sqrt(n))


def orthonormal_risks(rng: Rng, p: int, k: int, reps: int) -> Array:
    """(reps,) |w^ - w|^2 / sigma^2 of hard thresholding at `selection_threshold`: all that IHT does when H = I."""
    w = spikes(p, k)
    found = L0(selection_threshold(p) ** 2 / 2).prox(w + rng.standard_normal((reps, p)), 1.0)
    return np.asarray(np.square(found - w).sum(axis=1))


def gaussian_risks(
    rng: Rng, solver: Callable[..., Solution], n: int, p: int, k: int, reps: int, designs: int = 1
) -> Array:
    """(about reps,) risks of the points that a solver returns from least squares on Gaussian designs, sigma = 1.

    Parameters
    ----------
    solver : `iht.iht` or `maiht.maiht`; lam makes its threshold sqrt(2 lam s) = tau / sqrt(n)
    designs : designs over which `reps` draws of the noise are spread; a spike at the threshold feels its design
    """
    each = max(1, reps // designs)
    return np.concatenate([_on_one_design(rng, solver, n, p, k, each) for _ in range(designs)])


def _on_one_design(rng: Rng, solver: Callable[..., Solution], n: int, p: int, k: int, reps: int) -> Array:
    C = gaussian_root(rng, n, p)
    H = C @ C.T
    w = spikes(p, k) / sqrt(n)
    W0 = w + np.linalg.solve(C.T, rng.standard_normal((p, reps))).T / sqrt(n)  # (2)
    problem = LayerProblem.of(W0, (H + H.T) / 2)
    penalty = L0(selection_threshold(p) ** 2 / n * problem.lipschitz / (2 * 0.95))
    found = solver(problem, penalty, iters=60, safety=0.95, tol=1e-5).weight
    return per_observation(n * np.square((found - w) @ C).sum(axis=1), n)
