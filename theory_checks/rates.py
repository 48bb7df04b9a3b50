"""Global rates of f + lam |W|_1 from any start: ISTA, FISTA, and the two monotone accelerations.

Letters: x_n the n-th iterate, X a minimiser found without a proximal method (`paths.lasso`), F* = F(X), D = |x_0 - X|,
s step, L >= lambda_max(H), t_n = 1, 1.618, 2.194, ... Every bound is checked at every n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any

import numpy as np

from solvers import fista, iht, maiht
from solvers.problem import LayerProblem
from solvers.sparsity import L1, Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.paths import gaps, iterates, reference, tightest, walk
from theory_checks.synthetic import Case, Check

ISTA = "Beck, Teboulle 2009, Thm 3.1"
FISTA = "Beck, Teboulle 2009, Thm 4.4"
LYAPUNOV = "Beck, Teboulle 2009, Lemma 4.1"
MFISTA = "Beck, Teboulle 2009b, Thm 5.1"
LI_LIN = "Li, Lin 2015, Thm 1"
PEP = "PEPit, proximal_gradient"
FPGM1 = "Taylor, Hendrickx, Glineur 2017, Table 1"


def numbers(n: int) -> Array:
    """t_1, ..., t_n: t_1 = 1, t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2."""
    t = [1.0]
    while len(t) < n:
        t.append((1 + sqrt(1 + 4 * t[-1] ** 2)) / 2)
    return np.array(t)


FACTORS: dict[str, Callable[[Array], Array]] = {
    "ista-rate": lambda n: 0.5 / n,
    "ista-tight": lambda n: 0.25 / n,
    "fista-rate": lambda n: 0.5 / numbers(len(n)) ** 2,
    "fista-halves-rate": lambda n: 2 / (n**2 + 5 * n + 2),
    "mfista-rate": lambda n: 2 / (n + 1) ** 2,
    "maiht-convex-rate": lambda n: 2 / (n + 1) ** 2,
}
"""What each rate claims of (F(x_n) - F*) s / D^2 for n = 1, 2, ..."""


def ista_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_n) - F* <= D^2 / 2sn for ISTA from any x.

    Assumptions: s L <= 1. Why: sum the three-point inequality over n steps. Where: Beck, Teboulle 2009, Thm 3.1.
    Upper bound, twice the worst case (`ista_tight`).
    """
    claim = "F(x_n) - F* <= D^2 / 2sn for every n of ISTA"
    return _convex("ista-rate", claim, ISTA, iht.step, iht.State(x, x), problem, penalty, s, n)


def ista_tight(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_n) - F* <= D^2 / 4sn for ISTA from any x.

    Assumptions: s L <= 1. Why: the worst case over all f and g as a semidefinite program. Where: PEPit's worst case,
    found numerically. Tight: equality for f = 0, lam = D / 2sn in one dimension.
    """
    claim = "F(x_n) - F* <= D^2 / 4sn for every n of ISTA"
    return _convex("ista-tight", claim, PEP, iht.step, iht.State(x, x), problem, penalty, s, n)


def fista_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_n) - F* <= D^2 / 2s t_n^2 <= 2 D^2 / s(n+1)^2 for FISTA from any x.

    Assumptions: s L <= 1. Why: the sum of `fista_lyapunov` starts below D^2 / 2s. Where: Beck, Teboulle 2009, Thm 4.4.
    Upper bound; the worst case is 0.87 of it at n = 8 (PEPit) and attained for f = 0 in one dimension.
    """
    claim = "F(x_n) - F* <= D^2 / 2s t_n^2 for every n of FISTA"
    return _convex("fista-rate", claim, FISTA, fista.step, fista.start(x), problem, penalty, s, n)


def halves_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_n) - F* <= 2 D^2 / s(n^2 + 5n + 2) for FISTA with momentum i/(i + 3), i = n - 1, from any x.

    Assumptions: s L <= 1. Where: Taylor, Hendrickx, Glineur 2017, Table 1, found numerically as a worst case. Tight:
    equality for f = 0, lam = D / 2sc in one dimension, c = (n^2 + 5n + 2) / 8 the distance run in n steps.
    """
    claim = "F(x_n) - F* <= 2 D^2 / s(n^2 + 5n + 2) for every n of FISTA with momentum i/(i + 3)"
    return _convex("fista-halves-rate", claim, FPGM1, fista.halves_step, fista.start(x), problem, penalty, s, n)


def mfista_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_n) - F* <= 2 D^2 / s(n+1)^2 for MFISTA from any x.

    Assumptions: s L <= 1. Why: FISTA's argument with F(x_n) <= F(z_n). Where: Beck, Teboulle 2009b, Thm 5.1. Upper.
    """
    claim = "F(x_n) - F* <= 2 D^2 / s(n+1)^2 for every n of MFISTA"
    return _convex("mfista-rate", claim, MFISTA, fista.monotone_step, fista.start(x), problem, penalty, s, n)


def maiht_convex_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_{n+1}) - F* <= 2 D^2 / s(n+1)^2 for mAIHT's scheme with an L1 penalty, n steps from any x = x_1.

    Assumptions: s L <= 1. Where: Li, Lin 2015, Thm 1 (convex case). Upper bound: PEPit's worst case at n = 1, 2, 3 is
    0.25, 0.125, 0.0762 of D^2 / s, the bound 0.5, 0.222, 0.125.
    """
    claim = "F(x_{n+1}) - F* <= 2 D^2 / s(n+1)^2 for every n of mAPG"
    start = maiht.State(x, x, x, x)
    return _convex("maiht-convex-rate", claim, LI_LIN, maiht.step, start, problem, penalty, s, n)


def fista_lyapunov(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """E_n = t_n^2 (F(x_n) - F*) + |t_n x_n - (t_n - 1) x_{n-1} - X|^2 / 2s never rises, and E_1 <= D^2 / 2s.

    Assumptions: s L <= 1. Why: t_{n+1}^2 - t_{n+1} = t_n^2 and convexity between x_n and X. Where: Beck, Teboulle
    2009, Lemma 4.1. Tight: equality for f = 0 while no entry has reached zero. Rounding grows with t_n^2.
    """
    name, claim = "fista-lyapunov", "t_n^2 (F(x_n) - F*) + |t_n x_n - (t_n - 1) x_{n-1} - X|^2 / 2s never rises"
    best, reason = reference(problem, penalty, s)
    if reason:
        return Certificate(name, claim, LYAPUNOV, 0.0, 0.0, applies=reason)
    path = iterates(walk(fista.step, fista.start(x), problem, penalty, s, n))
    values, rounding = gaps(problem, penalty, best, path)
    t = numbers(n)
    u = t[:, None, None] * path[1:] - (t - 1)[:, None, None] * path[:-1] - best
    E = np.concatenate([[_square(x - best) / (2 * s)], t**2 * values[1:] + np.square(u).sum(axis=(1, 2)) / (2 * s)])
    spread = np.square(t[:, None, None] * (np.abs(path[1:]) + np.abs(path[:-1])) + np.abs(best)).sum(axis=(1, 2))
    scale = 2 * allowance(1.0, x.size) * (E[0] + spread / s) + 2 * t**2 * rounding[1:]
    return tightest(name, claim, LYAPUNOV, E[1:], E[:-1], scale)


def mfista_monotone(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_{n+1}) <= F(x_n) for MFISTA. Assumptions: s L <= 1. Where: Beck, Teboulle 2009b, sec. V. Tight: it may rest.

    Measured: the largest rise of the gap F(x_n) - F* in the difference form.
    """
    name, claim = "mfista-monotone", "F(x_{n+1}) <= F(x_n) for every n of MFISTA"
    best, reason = reference(problem, penalty, s)
    if reason:
        return Certificate(name, claim, MFISTA, 0.0, 0.0, applies=reason)
    path = iterates(walk(fista.monotone_step, fista.start(x), problem, penalty, s, n))
    values, rounding = gaps(problem, penalty, best, path)
    told = allowance(problem.magnitude(x) + problem.magnitude(best) + penalty.value(x), x.size)
    return tightest(name, claim, MFISTA, np.diff(values), np.zeros(n), rounding[1:] + rounding[:-1] + told)


def _convex(
    name: str,
    claim: str,
    where: str,
    step: Callable[..., Any],
    start: Any,
    problem: LayerProblem,
    penalty: L1,
    s: float,
    n: int,
) -> Certificate:
    """F(x_n) - F* <= factor_n D^2 / s: the form that the rates above share."""
    best, reason = reference(problem, penalty, s)
    if reason:
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    path = iterates(walk(step, start, problem, penalty, s, n))
    values, rounding = gaps(problem, penalty, best, path)
    bound = FACTORS[name](np.arange(1.0, n + 1)) * _square(path[0] - best) / s
    return tightest(name, claim, where, values[1:], bound, rounding[1:] + allowance(1.0, best.size) * bound)


def _square(d: Array) -> float:
    return float(np.square(d).sum())


def flat(n: float) -> tuple[LayerProblem, L1, Array, float]:
    """f = 0, lam = D / 2sn, one weight: ISTA attains D^2 / 4sn at n, and FISTA its worst case, in exact arithmetic.

    A method that runs the distance c lam s in its first steps attains D^2 / 4sc there with n = c.
    """
    return LayerProblem.of(np.zeros((1, 1)), np.zeros((1, 1))), L1(1 / (2 * n)), np.ones((1, 1)), 1.0


def bowl() -> tuple[LayerProblem, L1, Array, float]:
    """f = x^2 / 2 without penalty, s = 1/L: any step that is longer than it says diverges with momentum."""
    problem = LayerProblem.of(np.zeros((1, 1)), np.ones((1, 1)))
    return problem, L1(0.0), np.ones((1, 1)), 1 / problem.lipschitz


def _starts(claim: Callable[..., Certificate], run: float = 8) -> Callable[[Case], Iterator[Certificate]]:
    def check(case: Case) -> Iterator[Certificate]:
        problem, L = case.judge, case.judge.lipschitz
        yield claim(problem, case.absolute, problem.W0, 1 / L)
        yield claim(problem, case.absolute, case.some_weight(), 0.95 / L)
        yield claim(*flat(run))
        yield claim(*bowl())

    return check


CHECKS: dict[str, Check] = {
    "ista-rate": _starts(ista_rate),
    "ista-tight": _starts(ista_tight),
    "fista-rate": _starts(fista_rate),
    "fista-halves-rate": _starts(halves_rate, run=(8**2 + 5 * 8 + 2) / 8),
    "fista-lyapunov": _starts(fista_lyapunov),
    "mfista-rate": _starts(mfista_rate),
    "mfista-monotone": _starts(mfista_monotone),
    "maiht-convex-rate": _starts(maiht_convex_rate),
}
