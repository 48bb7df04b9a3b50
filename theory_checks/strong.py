"""Accelerated rates of the strongly convex problem f + lam |W|_1: constant momentum, and FISTA restarted.

Letters: X the reference minimiser (`paths.lasso`), F* = F(X), D = |x_0 - X|, s step, m = lambda_min(H),
L >= lambda_max(H), K = ceil(sqrt(8 / sm)) steps of a cycle. Bounds are checked at every n and every cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import ceil, sqrt

import numpy as np

from solvers import fista, restart
from solvers.problem import LayerProblem
from solvers.sparsity import L1, Array
from theory_checks import paths
from theory_checks.certificate import Certificate, allowance
from theory_checks.linear import slow_start
from theory_checks.paths import gaps, iterates, reference, tightest, walk
from theory_checks.synthetic import Case, Check

BECK = "Beck 2017, Thm 10.42"
HALVES = "Beck, Teboulle 2009, Thm 4.4, per cycle"
LONGEST = 10_000  # steps of a cycle that a check is willing to take


def strong_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_n) - F* <= (1 - sqrt(sm))^n (F(x_0) - F* + m/2 D^2) for the constant momentum, from any x.

    Assumptions: s L <= 1, m > 0. Why: F(x_n) - F* + m/2 |z_n - X|^2 contracts by 1 - sqrt(sm), z_n =
    x_n-1 + (x_n - x_n-1) / sqrt(sm). Where: Beck 2017, Thm 10.42. Upper bound; `gentle` uses 96 % of it at n = 50; a
    quadratic without penalty decays like its square.
    """
    name, claim = "strong-rate", "F(x_n) - F* <= (1 - sqrt(sm))^n (F(x_0) - F* + m/2 D^2) for every n"
    best, m, reason = _strongly(problem, penalty, s)
    if reason:
        return Certificate(name, claim, BECK, 0.0, 0.0, applies=reason)
    path = iterates(walk(partial(restart.strong_step, m=m), restart.State(x, x, x), problem, penalty, s, n))
    values, rounding = gaps(problem, penalty, best, path)
    factor = decay(s * m, n)
    bound = factor * (values[0] + m / 2 * float(np.square(x - best).sum()))
    scale = rounding + factor * rounding[0] + allowance(n * bound[0], x.size)
    return tightest(name, claim, BECK, values[1:], bound[1:], scale[1:])


def restart_halves(problem: LayerProblem, penalty: L1, x: Array, s: float, cycles: int = 3) -> Certificate:
    """F(x_K) - F* <= (F(x_0) - F*) / 2 for every cycle of K = ceil(sqrt(8 / sm)) steps of FISTA, from any x.

    Assumptions: s L <= 1, m > 0. Why: 2 D^2 / s(K + 1)^2 <= 4 (F(x_0) - F*) / sm(K + 1)^2, for m/2 D^2 <= F(x_0) - F*.
    Where: Beck, Teboulle 2009, Thm 4.4, per cycle. Upper bound: `gentle` uses 19 % of it.
    """
    name, claim = "restart-halves", "F(x_K) - F* <= (F(x_0) - F*) / 2 for every cycle of K = ceil(sqrt(8 / sm)) steps"
    best, m, reason = _strongly(problem, penalty, s)
    if not reason and (K := ceil(sqrt(8 / (s * m)))) > LONGEST:
        reason = f"K = {K} > {LONGEST}"
    if reason:
        return Certificate(name, claim, HALVES, 0.0, 0.0, applies=reason)
    path = iterates(walk(partial(restart.cycle, m=m), fista.start(x), problem, penalty, s, cycles))
    values, rounding = gaps(problem, penalty, best, path)
    scale = rounding[1:] + rounding[:-1] + allowance(1.0, x.size) * np.abs(values[:-1])
    return tightest(name, claim, HALVES, values[1:], values[:-1] / 2, scale)


def decay(q: float, n: int) -> Array:
    """(1 - sqrt(q))^i for i = 0, ..., n; zero where rounding takes q above one."""
    return np.array([max(1 - sqrt(q), 0.0) ** i for i in range(n + 1)])


def _strongly(problem: LayerProblem, penalty: L1, s: float) -> tuple[Array, float, str]:
    m = paths.curvature(problem.H)
    if not m > 0:
        return problem.W0, m, f"lambda_min(H) = {m:.3g}"
    best, reason = reference(problem, penalty, s)
    return best, m, reason


def gentle(q: float, ratio: float) -> tuple[LayerProblem, L1, Array, float]:
    """f = q x^2 / 2, lam = ratio q, s = 1, start at 1: momentum has hardly gathered when the bound already falls."""
    return LayerProblem.of(np.zeros((1, 1)), np.full((1, 1), q)), L1(ratio * q), np.ones((1, 1)), 1.0


def _starts(
    claim: Callable[..., Certificate], constructed: tuple[LayerProblem, L1, Array, float]
) -> Callable[[Case], Iterator[Certificate]]:
    def check(case: Case) -> Iterator[Certificate]:
        problem, L = case.judge, case.judge.lipschitz
        yield claim(problem, case.absolute, problem.W0, 1 / L)
        yield claim(problem, case.absolute, case.some_weight(), 0.95 / L)
        yield claim(*slow_start(case))
        yield claim(*constructed)

    return check


CHECKS: dict[str, Check] = {
    "strong-rate": _starts(strong_rate, gentle(1e-4, 1.55)),
    "restart-halves": _starts(restart_halves, gentle(2e-3, 0.8)),
}
