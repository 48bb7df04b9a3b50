"""Where a run may rest: fixed points by their explicit clauses, least squares on a support.

Letters: S support, S^c its complement, M the smallest kept magnitude of a window, s step, lam penalty.
"""

from __future__ import annotations

import numpy as np

from solvers.problem import LayerProblem
from solvers.solution import Solution, Stop
from solvers.sparsity import L0, L1, Array, KeepGroups, Mask, Sparsity
from theory_checks.certificate import Certificate, allowance
from theory_checks.support import windows

BECK_ELDAR = "Beck, Eldar 2013, Lemma 2.2"


def fixed_point(problem: LayerProblem, sparsity: Sparsity, solution: Solution) -> Certificate:
    """A converged run rests at a fixed point of x -> prox(x - s grad f(x)).

    Clauses, each in units of x: s |grad_i f| = 0 on S; with a penalty |x_i| >= sqrt(2 lam s) on S and
    s |grad_i f| <= sqrt(2 lam s) off S; with a budget s |grad_i f| <= M off S. Measured: the worst violation.
    Bound: the move at which the run was told to stop, twice (once for x_{t+1} - x_t, once for v - x_t).
    Assumptions: the run stopped because it converged. Where: Beck, Eldar 2013, Lemma 2.2 (budget). Tight.
    """
    name, claim = "fixed-point", "s |grad f| = 0 on the support, s |grad f| <= the threshold off it, |x| >= it on it"
    worst = _clauses(problem, sparsity, solution)
    if worst is None:
        return Certificate(name, claim, BECK_ELDAR, 0.0, 0.0, applies=f"{sparsity} has no such clauses, or no steps")
    if solution.stop is not Stop.CONVERGED:
        return Certificate(name, claim, BECK_ELDAR, worst, 0.0, applies=f"{solution.stop.value}; residual {worst:.3g}")
    assert solution.trace is not None
    x = solution.weight
    size = float(np.sqrt(np.square(x).sum()))
    scale = float((np.abs(x - problem.W0) @ np.abs(problem.H)).max()) * solution.trace.step
    rounding = allowance(scale + size, x.shape[1], solution.trace.dtype)
    return Certificate(name, claim, BECK_ELDAR, worst, 2 * solution.trace.tol * size, rounding)


def _clauses(problem: LayerProblem, sparsity: Sparsity, solution: Solution) -> float | None:
    if solution.trace is None or isinstance(sparsity, L1 | KeepGroups):
        return None
    s, x = solution.trace.step, windows(sparsity, np.abs(solution.weight))
    pull = windows(sparsity, s * np.abs(problem.grad(solution.weight)))
    S = x > 0
    on = np.where(S, pull, 0.0).max()
    if isinstance(sparsity, L0):
        threshold = np.sqrt(2 * sparsity.lam * s)
        short = np.where(S, threshold - x, 0.0).max()
        return float(max(on, short, np.where(S, 0.0, pull - threshold).max()))
    M = np.where(S, x, np.inf).min(axis=1, keepdims=True)
    room = np.where(S.sum(axis=1, keepdims=True) < sparsity.keep, 0.0, M)
    return float(max(on, np.where(S | (sparsity.keep == 0), 0.0, pull - room).max()))


def masked_least_squares(problem: LayerProblem, mask: Mask, W: Array, *, tol: float) -> Certificate:
    """On its support W solves the normal equations of every row to the relative residual `tol`.

    |grad_S f(W)| <= tol |grad_S f(0)| row by row. Assumptions: W is supported on `mask`. Why: f is convex, so a
    zero gradient on the support is the minimum there. Where: ALPS, Meng et al. 2024, eq. (6). Tight.
    """
    name, claim = "masked-least-squares", "|grad f(W)| on the support <= tol |grad f(0)| on it, for every row"
    where = "normal equations on a support"
    if np.any(W[~mask]):
        return Certificate(name, claim, where, float("inf"), tol)
    gradient, origin = (np.linalg.norm(np.where(mask, problem.grad(V), 0.0), axis=1) for V in (W, np.zeros_like(W)))
    D = np.abs(W - problem.W0)
    rounding = allowance(1.0, W.shape[1]) * np.linalg.norm(D @ np.abs(problem.H), axis=1)
    judged = origin > 0
    worst = np.where(judged, np.maximum(gradient - rounding, 0.0) / np.where(judged, origin, 1.0), 0.0).max()
    return Certificate(name, claim, where, float(worst), tol)


def refinement_descends(problem: LayerProblem, before: Array, after: Array) -> Certificate:
    """Refinement on a fixed support never raises f, and never leaves the support.

    f(after) - f(before) <= 0 in the difference form. Assumptions: none. Where: derived here. Upper bound.
    """
    name, claim, where = (
        "refinement-descends",
        "f(refined) - f(found) <= 0 on the same support",
        "gradient descent, s < 2/L",
    )
    if np.any(after[before == 0]):
        return Certificate(name, claim, where, float("inf"), 0.0)
    d = np.abs(after - before)
    reach = (np.abs(before - problem.W0) + d) @ np.abs(problem.H)
    return Certificate(
        name, claim, where, problem.change(before, after), 0.0, allowance(float(np.vdot(reach, d)), len(reach.T))
    )
