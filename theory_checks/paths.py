"""What the claims about whole runs share: the states of a run, gaps to a reference minimiser, that minimiser.

Letters: X the reference, found without any proximal method; D = |x_0 - X|; S a row's support.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

from solvers.problem import LayerProblem
from solvers.sparsity import L1, Array, Mask, Sparsity
from theory_checks.certificate import Certificate, allowance


def walk(
    step: Callable[..., Any], state: Any, problem: LayerProblem, sparsity: Sparsity, s: float, n: int
) -> list[Any]:
    """The states k_0, ..., k_n of a method."""
    states = [state]
    for _ in range(n):
        states.append(step(problem, sparsity, s, states[-1]))
    return states


def iterates(states: Sequence[Any]) -> Array:
    """(n + 1, out, in) the x of every state."""
    return np.array([k.x for k in states])


def too_long(problem: LayerProblem, s: float, limit: float = 1.0) -> str:
    """Empty if s L <= limit, else the reason with the number."""
    product = s * problem.lipschitz
    return f"step * L = {product:.3g} > {limit:g}" if product > limit + allowance(limit, 1) else ""


def curvature(H: Array) -> float:
    """m = lambda_min(H), zero where rounding would make it negative."""
    return max(float(np.linalg.eigvalsh(H)[0]), 0.0)


def tightest(name: str, claim: str, where: str, measured: Array, bound: Array, rounding: Array) -> Certificate:
    """The certificate of the n that is nearest to failing, in units of its own sides; nan is nearest of all."""
    sides = np.abs(measured) + np.abs(bound) + rounding
    near = np.divide(measured - bound - rounding, sides, out=np.full(len(sides), -1.0), where=sides != 0)
    n = int(np.argmax(near))
    return Certificate(name, claim, where, float(measured[n]), float(bound[n]), float(rounding[n]))


def gaps(problem: LayerProblem, sparsity: Sparsity, best: Array, path: Array) -> tuple[Array, Array]:
    """F(x_n) - F(best) in the difference form, and what rounding may add to each.

    The last term is the value of a reference that is itself off by its own rounding.
    """
    E, A = path - best, np.abs(problem.H)
    penalties = np.array([sparsity.value(x) for x in path]) - sparsity.value(best)
    values = (E * (problem.grad(best) + E @ problem.H / 2)).sum(axis=(1, 2)) + penalties
    size, g = np.abs(best) + np.abs(problem.W0), allowance(1.0, best.size)
    reach = size @ A + (0.0 if problem.R is None else np.abs(problem.R))
    absolute = (np.abs(E) * (reach + np.abs(E) @ A)).sum(axis=(1, 2)) + np.abs(penalties) + 2 * sparsity.value(best)
    return values, g * absolute + g**2 * float(np.vdot(size @ A, size))


def on_support(problem: LayerProblem, mask: Mask) -> Array:
    """argmin of f over weights supported on `mask`, by a dense solve of every row's normal equations."""
    W, target = np.zeros_like(problem.W0), problem.W0 @ problem.H - (0.0 if problem.R is None else problem.R)
    for row, S in enumerate(mask):
        W[row, S] = np.linalg.solve(problem.H[np.ix_(S, S)], target[row, S])
    return W


@lru_cache(maxsize=32)
def lasso(problem: LayerProblem, lam: float) -> Array:
    """A minimiser of f + lam |W|_1 for H = CC' and no drift: box-constrained least squares in the dual, then exact.

    The dual of a row is max_u over |u| <= lam of -|C^-1 u - C' w0|^2 / 2: an active-set method finds the entries at
    the box, which are the support, and the normal equations H_SS x_S = (H w0)_S - lam sign u_S give the weights.
    """
    H, W = problem.H, np.zeros_like(problem.W0)
    if lam == 0 or not H.any():
        return problem.W0.copy() if lam == 0 else W
    C = np.linalg.cholesky(H)
    inverse = scipy.linalg.solve_triangular(C, np.eye(len(H)), lower=True)
    for row, w0 in enumerate(problem.W0):
        found = scipy.optimize.lsq_linear(inverse, C.T @ w0, bounds=(-lam, lam), method="bvls")
        S = found.active_mask != 0
        W[row, S] = np.linalg.solve(H[np.ix_(S, S)], (H @ w0)[S] - lam * found.active_mask[S])
    return W


def not_minimal(problem: LayerProblem, lam: float, best: Array) -> str:
    """Empty if `best` meets the optimality conditions: grad = -lam sign x on the support, |grad| <= lam off it."""
    g = (best - problem.W0) @ problem.H
    defect = float(np.where(best != 0, np.abs(g + lam * np.sign(best)), np.maximum(np.abs(g) - lam, 0.0)).max())
    condition = float(np.linalg.cond(problem.H)) if problem.H.any() else 1.0
    scale = float(((np.abs(best) + np.abs(problem.W0)) @ np.abs(problem.H)).max()) + lam
    enough = defect <= allowance(condition * scale, len(problem.H))
    return "" if enough else f"the reference violates its optimality conditions by {defect:.3g}"


def reference(problem: LayerProblem, penalty: L1, s: float) -> tuple[Array, str]:
    """A minimiser of f + lam |W|_1, and why a rate does not apply: s L > 1, drift, or a poor reference."""
    reason = too_long(problem, s) or ("the problem has drift" if problem.R is not None else "")
    best = problem.W0 if reason else lasso(problem, penalty.lam)
    return best, reason or not_minimal(problem, penalty.lam, best)
