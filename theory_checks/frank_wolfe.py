"""Frank-Wolfe on relaxed masks: its rate, its duality gap, and the lower bound on every 0/1 mask that follows.

Letters: g(m) = f(m o w0) of one row over P = {m in [0, 1]^p, sum m = k}, M_n its iterates, L = lambda_max of the
Hessian w0 o H o w0, D the diameter of P, X a minimiser found without Frank-Wolfe (`relaxation`), g* = g(X). Statements
are checked for every row and every n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from solvers import frank_wolfe
from solvers.problem import LayerProblem
from solvers.sparsity import Array
from theory_checks import relaxation
from theory_checks.certificate import Certificate, allowance
from theory_checks.enumeration import MOST
from theory_checks.paths import tightest
from theory_checks.relaxation import above, relaxed, row_values, terms
from theory_checks.synthetic import Case, Check

JAGGI = "Jaggi 2013, Thm 1"
GAP = "Jaggi 2013, eq. 2"


def value_rate(problem: LayerProblem, k: int, M: Array, n: int = 60) -> Certificate:
    """g(M_n) - g* <= 2 L D^2 / (n + 2) for every n >= 1 of Frank-Wolfe from any M in P.

    Assumptions: f is the layer's quadratic, with drift or without. Why: g(M_n+1) <= g(M_n) - h gap_n + h^2 L D^2 / 2
    with h = 2 / (n + 2), and gap_n >= g(M_n) - g*. Where: Jaggi 2013, Thm 1. Upper bound: at most 3/4 of it at n = 1,
    3/8 of it on `slide`; tight without curvature (`tilted`), where the first step must reach the minimum.
    """
    name, claim = "frank-wolfe-rate", "g(M_n) - g* <= 2 L D^2 / (n + 2) for every n >= 1"
    best, reason = relaxed(problem, k)
    if reason:
        return Certificate(name, claim, JAGGI, 0.0, 0.0, applies=reason)
    path = walk(problem, k, M, n)
    values, rounding = above(problem, best, path)
    w, p = problem.W0, problem.shape[1]
    L = np.linalg.eigvalsh(w[:, :, None] * problem.H * w[:, None, :])[:, -1]
    bound = 2 * np.maximum(L, 0.0) * relaxation.squared_diameter(k, p) / (np.arange(1.0, n + 1)[:, None] + 2)
    scale = rounding[1:] + allowance(1.0, p) * bound
    return tightest(name, claim, JAGGI, values[1:].ravel(), bound.ravel(), scale.ravel())


def duality_gap(problem: LayerProblem, k: int, M: Array, n: int = 60) -> Certificate:
    """g(M_n) - g* <= gap_n = <grad g(M_n), M_n - S_n> for every n of Frank-Wolfe from any M in P.

    Assumptions: as for `value_rate`. Why: g lies above its tangent at M_n, S_n minimises the tangent over P. Where:
    Jaggi 2013, eq. 2. Tight: equality for f linear (`tilted`).
    """
    name, claim = "frank-wolfe-gap", "g(M_n) - g* <= <grad g(M_n), M_n - S_n> for every n"
    best, reason = relaxed(problem, k)
    if reason:
        return Certificate(name, claim, GAP, 0.0, 0.0, applies=reason)
    path = walk(problem, k, M, n)
    values, rounding = above(problem, best, path)
    bound = np.array([frank_wolfe.gaps(problem, k, m) for m in path])
    return tightest(name, claim, GAP, values.ravel(), bound.ravel(), rounding.ravel())


def lower_bound(problem: LayerProblem, k: int, M: Array, n: int = 60) -> Certificate:
    """max_n g(M_n) - gap_n <= g(m) for every mask m of zeros and k ones, per row.

    Assumptions: at most 12 inputs, for the masks are enumerated; kept weights keep their dense values, for refitted
    ones may go below. Why: `duality_gap`, and masks lie in P. Where: Jaggi 2013, eq. 2. Tight: equality where the
    relaxation is solved by a mask (`copies`).
    """
    name, claim = "mask-lower-bound", "max_n g(M_n) - gap_n <= g(m) for every mask m with k ones"
    rows, p = problem.shape
    if p > MOST:
        return Certificate(name, claim, GAP, 0.0, 0.0, applies=f"inputs = {p} > {MOST}")
    dual = np.max([row_values(problem, m) - frank_wolfe.gaps(problem, k, m) for m in walk(problem, k, M, n)], axis=0)
    masks = np.zeros((1 if k in (0, p) else len([*combinations(range(p), k)]), p))
    for mask, kept in zip(masks, combinations(range(p), k), strict=True):
        mask[list(kept)] = 1.0
    least = np.min([row_values(problem, np.tile(mask, (rows, 1))) for mask in masks], axis=0)
    return tightest(name, claim, GAP, dual, least, allowance(1.0, p) * terms(problem))


def diameter(k: int, points: Array) -> Certificate:
    """|m - m'|^2 <= 2 min(k, p - k) for all m, m' in P. Where: derived here. Tight: two masks that share least.

    Assumptions: every row of `points` (n, p) lies in P. Why: |m - m'|^2 <= |m - m'|_1 = 2 sum (m - m')_+, and the
    sum is at most k, and at most sum (1 - m') = p - k.
    """
    name, claim = "mask-diameter", "|m - m'|^2 <= 2 min(k, p - k) for all relaxed masks m, m' with sum k"
    p = points.shape[1]
    outside = max(float(np.abs(points.sum(axis=1) - k).max()), float((-points).max()), float((points - 1).max()))
    if outside > allowance(2.0 * p, p):
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=f"a point is outside P by {outside:.3g}")
    far = float(np.square(points[:, None] - points).sum(axis=2).max())
    return Certificate(name, claim, "derived here", far, relaxation.squared_diameter(k, p), allowance(2.0 * p, p))


def walk(problem: LayerProblem, k: int, M: Array, n: int) -> Array:
    """(n + 1, out, in) the masks M_0, ..., M_n."""
    states = [frank_wolfe.State(M)]
    for _ in range(n):
        states.append(frank_wolfe.step(problem, k, states[-1]))
    return np.array([state.M for state in states])


def slide() -> tuple[LayerProblem, int, Array]:
    """Two weights, one of them all but zero and of the other sign: the first step leaves the better mask."""
    return LayerProblem.of(np.array([[1.0, -1 / 1024]]), np.ones((2, 2))), 1, np.array([[1.0, 0.0]])


def tilted() -> tuple[LayerProblem, int, Array]:
    """f = <R, W - W0> without curvature: the gap is g(M_n) - g*."""
    zero = LayerProblem.of(np.ones((1, 3)), np.zeros((3, 3)))
    return LayerProblem(zero.W0, zero.gram, R=np.array([[3.0, 1.0, 2.0]])), 1, np.array([[1.0, 0.0, 0.0]])


def copies() -> tuple[LayerProblem, int, Array]:
    """Two inputs that are one, the first weight twice the second: the relaxation keeps the first alone."""
    return LayerProblem.of(np.array([[2.0, 1.0]]), np.ones((2, 2))), 1, np.full((1, 2), 0.5)


def distant(p: int = 160) -> tuple[LayerProblem, int, Array]:
    """One large weight, p - 1 small copies, a start that keeps a small one: far above g* for this curvature."""
    w, M = np.full((1, p), 0.1), np.zeros((1, p))
    w[0, 0], M[0, -1] = 1.0, 1.0
    return LayerProblem.of(w, np.ones((p, p))), 1, M


def _on_masks(
    claim: Callable[..., Certificate], *constructed: Callable[[], tuple[LayerProblem, int, Array]]
) -> Callable[[Case], Iterator[Certificate]]:
    def check(case: Case) -> Iterator[Certificate]:
        problem, k = case.judge, round(case.keep * case.inputs)
        centre = frank_wolfe.start(problem, k).M
        yield claim(problem, k, centre)
        yield claim(problem, k, frank_wolfe.vertex(np.abs(problem.W0), k))  # the smallest weights: a poor start
        for make in constructed:
            yield claim(*make())

    return check


def _diameters(case: Case) -> Iterator[Certificate]:
    problem, p, k = case.judge, case.inputs, round(case.keep * case.inputs)
    ends = np.array([np.arange(p) < k, np.arange(p) >= p - k]).astype(np.float64)
    path = walk(problem, k, frank_wolfe.start(problem, k).M, 20)
    yield diameter(k, np.concatenate([ends, path[:, 0]]))
    yield diameter(2, np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]]))


CHECKS: dict[str, Check] = {
    "frank-wolfe-rate": _on_masks(value_rate, slide, distant, tilted),
    "frank-wolfe-gap": _on_masks(duality_gap, tilted),
    "mask-lower-bound": _on_masks(lower_bound, copies),
    "mask-diameter": _diameters,
}
