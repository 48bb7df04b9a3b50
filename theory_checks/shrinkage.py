"""Exact risks of thresholding, and the rates of the Lasso on the event under which they hold.

Letters: theta mean and tau threshold of one normal observation with variance 1; phi, Phi normal density and
distribution. Lasso: |y - X w|^2 / 2n + lam |w|_1, nu = w^ - w, S the support of w with k entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import log, sqrt

import numpy as np
from scipy.special import ndtr

from solvers import iht
from solvers.sparsity import L0, L1, Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.planted import Planted, along_the_cone, level, opposed, planted
from theory_checks.synthetic import Case, Check

SLOW, CONE, FAST = 3.0, 3.0, 9.0
NODES, REACH = 128, 12.0  # Gauss nodes per smooth piece; normal densities beyond REACH are below rounding


def _density(x: Array | float) -> float:
    return float(np.exp(-np.square(x) / 2) / sqrt(2 * np.pi))


def hard_risk(theta: float, tau: float) -> float:
    """E (H(theta + z) - theta)^2 for the hard threshold H at tau."""
    inside = ndtr(tau - theta) - ndtr(-tau - theta)
    tails = ndtr(theta - tau) + ndtr(-tau - theta)
    edges = (tau - theta) * _density(tau - theta) + (tau + theta) * _density(tau + theta)
    return float(theta**2 * inside + tails + edges)


def soft_risk(theta: float, tau: float) -> float:
    """E (S(theta + z) - theta)^2 for the soft threshold S at tau."""
    inside = ndtr(tau - theta) - ndtr(-tau - theta)
    edges = (tau - theta) * _density(tau + theta) + (tau + theta) * _density(tau - theta)
    return float(1 + tau**2 + (theta**2 - tau**2 - 1) * inside - edges)


def universal_threshold(p: float) -> float:
    """sqrt(2 log p): above the largest of p standard normal variables, nearly always."""
    return sqrt(2 * log(p))


def event_value(problem: Planted) -> float:
    """2 |X'eps|_inf / n: the smallest lam for which the Lasso's rates hold."""
    return 2 * float(np.abs(problem.X.T @ problem.eps).max()) / problem.n


@lru_cache(maxsize=1)
def _gauss() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights


def by_quadrature(operator: L0 | L1, theta: float, tau: float) -> float:
    """E (prox(theta + z) - theta)^2, integrated over the three pieces on which the prox is smooth."""
    nodes, weights = _gauss()
    far = REACH + theta + tau
    total = 0.0
    for a, b in ((-far, -tau - theta), (-tau - theta, tau - theta), (tau - theta, far)):
        z = (a + b) / 2 + (b - a) / 2 * nodes
        loss = np.square(operator.prox(theta + z, 1.0) - theta) * np.exp(-np.square(z) / 2) / sqrt(2 * np.pi)
        total += (b - a) / 2 * float(weights @ loss)
    return total


def thresholding_risk(theta: float, tau: float) -> Certificate:
    """The closed risks of hard and soft thresholding are the risks of the proximal operators of l0 and l1.

    Assumptions: theta, tau >= 0, variance 1. Measured: the larger difference to a quadrature through `L0.prox` at
    lam = tau^2 / 2 and `L1.prox` at lam = tau. Why: integration by parts. Where: Donoho, Johnstone 1994.
    Tight: bound 0.
    """
    name, claim, where = "thresholding-risk", "E (prox(theta + z) - theta)^2 = closed form", "Donoho, Johnstone 1994"
    if min(theta, tau) < 0:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"min(theta, tau) = {min(theta, tau):.3g} < 0")
    hard = abs(hard_risk(theta, tau) - by_quadrature(L0(tau**2 / 2), theta, tau))
    soft = abs(soft_risk(theta, tau) - by_quadrature(L1(tau), theta, tau))
    return Certificate(name, claim, where, max(hard, soft), 0.0, allowance((1 + theta + tau) ** 2, NODES))


def donoho_johnstone(theta: float, p: int) -> Certificate:
    """R_S(theta, sqrt(2 log p)) <= (2 log p + 1) (1/p + min(theta^2, 1)): soft thresholding nearly has oracle risk.

    Assumptions: p >= 4. Where: Donoho, Johnstone 1994, Thm 1. Upper bound; 99 % used near theta = 4.
    """
    name, claim = "oracle-inequality", "R_soft(theta, sqrt(2 log p)) <= (2 log p + 1)(1/p + min(theta^2, 1))"
    where = "Donoho, Johnstone 1994, Thm 1"
    if p < 4:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"p = {p} < 4")
    bound = (2 * log(p) + 1) * (1 / p + min(theta**2, 1))
    rounding = allowance((1 + theta + universal_threshold(p)) ** 2, 8)
    return Certificate(name, claim, where, soft_risk(theta, universal_threshold(p)), bound, rounding)


def lasso(problem: Planted, lam: float) -> Array:
    """(p,) an approximate minimiser, by proximal gradient steps."""
    return np.asarray(iht.iht(problem.problem, L1(lam), iters=400, tol=1e-9).weight[0])


def _error(problem: Planted, lam: float, w: Array) -> tuple[str, Array]:
    """Why the rates do not apply to an estimate w, and nu = w^ - w."""
    if lam < event_value(problem) * (1 - allowance(1.0, problem.size)):
        return f"lam = {lam:.3g} < 2 |X'eps|_inf / n = {event_value(problem):.3g}", problem.w
    gap = _lasso_objective(problem, lam, w) - _lasso_objective(problem, lam, problem.w)
    return (f"F(w^) - F(w) = {gap:.3g} > 0" if gap > 0 else ""), w - problem.w


def _lasso_objective(problem: Planted, lam: float, w: Array) -> float:
    return float(np.square(problem.y - problem.X @ w).sum()) / (2 * problem.n) + lam * float(np.abs(w).sum())


def _mean_square(problem: Planted, nu: Array) -> float:
    return float(np.square(problem.X @ nu).mean())


def lasso_slow_rate(problem: Planted, lam: float, w: Array) -> Certificate:
    """|X nu|^2 / n <= 3 lam |w|_1: no condition on the design.

    Assumptions: lam >= 2 |X'eps|_inf / n, F(w^) <= F(w). Why: the basic inequality, |nu|_1 <= |w|_1 + |w^|_1. Where:
    Hastie, Tibshirani, Wainwright 2015, Thm 11.2 (with 12). Tight under these assumptions (`opposed`, w^ near 0); the
    exact minimiser has at most half of it, because its optimality replaces |X nu|^2 / 2n by |X nu|^2 / n.
    """
    name, claim, where = "lasso-slow-rate", "|X nu|^2 / n <= 3 lam |w|_1", "derived here"
    reason, nu = _error(problem, lam, w)
    bound = SLOW * lam * float(np.abs(problem.w).sum())
    rounding = allowance(problem.scale / problem.n + bound, problem.size)
    return Certificate(name, claim, where, _mean_square(problem, nu), bound, rounding, applies=reason)


def lasso_fast_rate(problem: Planted, lam: float, w: Array) -> Certificate:
    """|X nu|^2 / n <= 9 k lam^2 / gamma and |nu|^2 <= (3 lam)^2 k / gamma^2, gamma = lambda_min(X'X / n).

    The second follows from the first by gamma |nu|^2 <= |X nu|^2 / n, so the larger of the first's left side and
    gamma |nu|^2 is measured. Assumptions: as for the slow rate; gamma > 0 (it bounds the restricted eigenvalue from
    below). Why: |X nu|^2 / 2n <= 3/2 lam |nu on S|_1. Where: Bickel, Ritov, Tsybakov 2009. Tight as the slow rate is.
    """
    name, claim = "lasso-fast-rate", "max(|X nu|^2 / n, gamma |nu|^2) <= 9 k lam^2 / gamma"
    gamma = float(np.linalg.eigvalsh(problem.problem.H)[0])
    reason, nu = _error(problem, lam, w)
    if gamma <= allowance(problem.p, problem.size):
        reason = reason or f"gamma = {gamma:.3g}, zero to rounding"
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=reason)
    bound = FAST * problem.k * lam**2 / gamma
    measured = max(_mean_square(problem, nu), gamma * float(np.square(nu).sum()))
    rounding = allowance(problem.scale / problem.n + bound, problem.size)
    return Certificate(name, claim, "derived here", measured, bound, rounding, applies=reason)


def lasso_cone(problem: Planted, lam: float, w: Array) -> Certificate:
    """|nu off S|_1 <= 3 |nu on S|_1: the error lies in the cone over which gamma is taken.

    Assumptions: as for the slow rate. Why: 0 <= 3/2 lam |nu_S|_1 - 1/2 lam |nu_{S^c}|_1 in the basic inequality.
    Where: Bickel, Ritov, Tsybakov 2009. Tight: `opposed`, nu small beside lam (`along_the_cone`).
    """
    name, claim = "lasso-cone", "|nu off S|_1 <= 3 |nu on S|_1"
    reason, nu = _error(problem, lam, w)
    on = float(np.abs(nu[problem.w != 0]).sum())
    off = float(np.abs(nu[problem.w == 0]).sum())
    rounding = allowance(float(np.abs(problem.w).sum() + np.abs(nu).sum()), problem.size)
    return Certificate(name, claim, "derived here", off, CONE * on, rounding, applies=reason)


def _risks(case: Case) -> Iterator[Certificate]:
    rng = case.rng(20)
    for theta, tau in ((0.0, 1.0), (rng.uniform(0, 5), rng.uniform(0.3, 4)), (rng.uniform(0, 1), rng.uniform(1, 5))):
        yield thresholding_risk(float(theta), float(tau))


def _oracle(case: Case) -> Iterator[Certificate]:
    for p in (10, 100, 1000, 10_000, 10**8):
        for theta in (0.0, float(case.rng(21).uniform(0, 2)), 1.0, 4.0, 8.0):
            yield donoho_johnstone(theta, p)


def _lassos(case: Case) -> Iterator[tuple[Planted, float, Array]]:
    for problem in (planted(case.seed, 1), level(case.seed)):
        for factor in (1.0, 2.0):
            lam = factor * event_value(problem)
            yield problem, lam, lasso(problem, lam)
    problem = opposed(case.seed)
    for w in (problem.w * 2.0**-20, along_the_cone(problem)):
        yield problem, event_value(problem), w


CHECKS: dict[str, Check] = {
    "thresholding-risk": _risks,
    "oracle-inequality": _oracle,
    "lasso-slow-rate": lambda case: (lasso_slow_rate(*problem) for problem in _lassos(case)),
    "lasso-fast-rate": lambda case: (lasso_fast_rate(*problem) for problem in _lassos(case)),
    "lasso-cone": lambda case: (lasso_cone(*problem) for problem in _lassos(case)),
}
