"""Relaxed masks: the value of one, its distance from the best, and the best, found without Frank-Wolfe.

Letters: g(m) = f(m o w0) of one row over P = {m in [0, 1]^p, sum m = k}; Q = w0 o H o w0 its Hessian.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize

from solvers.problem import LayerProblem
from solvers.sparsity import Array
from theory_checks.certificate import allowance

ABOUT = float(np.sqrt(np.finfo(np.float64).eps))  # what counts as 0 or 1 before the exact solve on the rest


def squared_diameter(k: int, p: int) -> float:
    """D^2 = 2 min(k, p - k): two masks differ most where they share as little as they can."""
    return 2.0 * min(k, p - k)


def row_values(problem: LayerProblem, M: Array) -> Array:
    """(out,) g of every row."""
    d = (M - 1) * problem.W0
    return np.asarray((d * (d @ problem.H / 2 + (0.0 if problem.R is None else problem.R))).sum(axis=1))


def above(problem: LayerProblem, best: Array, path: Array) -> tuple[Array, Array]:
    """(n + 1, out) g(M_n) - g(best) in the difference form, and what rounding may add to each."""
    W0, X = problem.W0, best * problem.W0
    E = path * W0 - X
    values = (E * (problem.grad(X) + E @ problem.H / 2)).sum(axis=2)
    return values, np.tile(allowance(1.0, W0.shape[1]) * terms(problem), (len(path), 1))


def terms(problem: LayerProblem) -> Array:
    """(out,) the absolute terms that meet in g and in a gap, over all of P."""
    w = np.abs(problem.W0)
    pull = w @ np.abs(problem.H) + (0.0 if problem.R is None else np.abs(problem.R))
    return np.asarray(2 * (w * pull).sum(axis=1))


def relaxed(problem: LayerProblem, k: int) -> tuple[Array, str]:
    """A minimiser of g over P for every row, and why it is none: its own duality gap, computed here.

    A mask that minimises its own tangent is a minimiser. Otherwise sequential quadratic programming finds the entries
    between 0 and 1, and a dense solve of their optimality conditions gives the values.
    """
    best = np.array([_relaxed(w, problem, row, k) for row, w in enumerate(problem.W0)])
    G = problem.W0 * problem.grad(best * problem.W0)
    gap = (G * best).sum(axis=1) - np.sort(G, axis=1)[:, :k].sum(axis=1)
    excess = float((gap - allowance(1.0, len(problem.H)) * terms(problem)).max())
    return best, "" if excess <= 0 else f"the reference misses its minimum by up to {excess:.3g}"


def _relaxed(w: Array, problem: LayerProblem, row: int, k: int) -> Array:
    p, Q = len(w), w[:, None] * problem.H * w
    c = Q.sum(axis=1) - (0.0 if problem.R is None else w * problem.R[row])
    m = np.full(p, k / p)
    for _ in range(3):
        order = np.argsort(Q @ m - c, kind="stable")
        mask = np.isin(np.arange(p), order[:k]).astype(np.float64)
        if np.array_equal(mask, m):
            return mask
        m = mask
    unit = max(float(np.abs(Q).max()), float(np.abs(c).max())) or 1.0
    found = scipy.optimize.minimize(  # type: ignore[call-overload]  # the stubs know no options of SLSQP
        lambda m: float((m @ Q @ m / 2 - c @ m) / unit),
        np.full(p, k / p),
        jac=lambda m: np.asarray((Q @ m - c) / unit),
        bounds=scipy.optimize.Bounds(np.zeros(p), np.ones(p)),
        constraints=scipy.optimize.LinearConstraint(np.ones((1, p)), k, k),
        method="SLSQP",
        options={"maxiter": 1000},
        tol=float(np.finfo(np.float64).eps),
    )
    full = np.asarray(found.x >= 1 - ABOUT)
    free = np.flatnonzero(~full & (found.x > ABOUT))
    m = full.astype(np.float64)
    ones = np.ones((len(free), 1))
    system = np.block([[Q[np.ix_(free, free)] / unit, ones], [ones.T, np.zeros((1, 1))]])
    right = np.append((c - Q @ m)[free] / unit, k - m.sum())
    m[free] = np.linalg.lstsq(system, right)[0][:-1]
    return np.asarray(np.clip(m, 0.0, 1.0))
