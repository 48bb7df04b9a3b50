"""The risk of a stationary point: bounds for what IHT and mAIHT really return, not for a minimiser that nobody finds.

Model: y = X w + eps, w supported on S with k entries; x the returned point, S^ its support, P projector on the span
of the columns S^, M = S - S^. Letters: lam and alpha are penalty and step of |y - X w|^2 / 2, which are n lam and s / n
of the layer's f = |y - X w|^2 / 2n. The ridge is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import numpy as np

from solvers import iht, maiht
from solvers.solution import Solution, Stop
from solvers.sparsity import L0, Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.planted import Index, Planted, planted
from theory_checks.risk import project, smallest
from theory_checks.synthetic import Case, Check

TOL = 1e-10  # relative move at which a run counts as at rest
JUST = 1 + 2.0**-20  # how much the threshold exceeds a spike that is just missed


def stationary_threshold(lam: float, alpha: float) -> float:
    """sqrt(2 lam / alpha): how large a gradient off the support may be at a fixed point."""
    return sqrt(2 * lam / alpha)


def uncaught_noise(X: Array, missed: Index, residual: Array) -> float:
    """|X_M' (I - P) eps|_inf, `residual` = (I - P) eps."""
    return float(np.abs(X[:, missed].T @ residual).max(initial=0.0))


def _rest(problem: Planted, penalty: L0, found: Solution) -> tuple[str, float]:
    """Why the point is no fixed point, or how large |grad f| on its support may still be, times n."""
    if found.trace is None:
        return "the method takes no proximal steps", 0.0
    if found.stop is not Stop.CONVERGED:
        return f"{found.stop.value}; the last move was {sqrt(found.trace.move[-1]):.3g}", 0.0
    move = 2 * found.trace.tol * float(np.linalg.norm(found.weight)) / (1 - found.trace.tol)
    threshold = sqrt(2 * penalty.lam * found.trace.step)
    if move >= threshold:
        return f"the tolerated move {move:.3g} >= the threshold {threshold:.3g}", 0.0
    return "", problem.n * move / found.trace.step


def stationary_pythagoras(problem: Planted, penalty: L0, found: Solution) -> Certificate:
    """|X (x - w)|^2 = |P_S^ eps|^2 + |(I - P_S^) X w|^2 at a fixed point x of IHT: variance plus squared bias.

    Assumptions: the run converged and its tolerated move is below the threshold. Measured: the difference. Bound:
    what a gradient of the tolerated size on S^ can contribute, 2 |P eps| r + r^2, r^2 = |g|^2 / lambda_min(X_S^).
    Why: x is the least-squares solution on S^. No global optimality, no RIP. Where: derived here. Tight.
    """
    name, claim = "stationary-pythagoras", "|X(x - w)|^2 = |P_S^ eps|^2 + |(I - P_S^) X w|^2 at a fixed point"
    reason, gradient = _rest(problem, penalty, found)
    if reason:
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=reason)
    T = np.flatnonzero(found.weight[0])
    variance = float(np.square(project(problem.X, T, problem.eps)).sum())
    bias = float(np.square(problem.signal - project(problem.X, T, problem.signal)).sum())
    reach = gradient / sqrt(smallest(problem.X, T))
    slack = 2 * sqrt(variance) * reach + reach**2
    measured = abs(problem.risk(found.weight[0]) - variance - bias)
    return Certificate(name, claim, "derived here", measured, slack, _rounding(problem))


def stationary_bias(problem: Planted, penalty: L0, found: Solution) -> Certificate:
    """|(I - P_S^) X w|^2 <= |M| Lam^2 / m at a fixed point of IHT, M = S - S^ the missed part of the truth.

    Lam = sqrt(2 lam / alpha) + |X_M' (I - P_S^) eps|_inf, m = lambda_min of the columns S + S^. Assumptions: as for
    `stationary_pythagoras`, something missed. Why: bias^2 = <w_M, X_M' (r - (I - P) eps)> <= sqrt|M| |w_M| Lam, and
    m |w_M|^2 <= bias^2. With lam / alpha of order sigma^2 n log p this is the rate sigma^2 k log p that global
    minimisers have. Where: derived here. Upper bound; tight for one entry just below the threshold (`just_missed`).
    """
    name, claim = "stationary-bias", "|(I - P_S^) X w|^2 <= |M| (sqrt(2 lam/alpha) + |X_M'(I-P) eps|_inf)^2 / m"
    reason, gradient = _rest(problem, penalty, found)
    T = np.flatnonzero(found.weight[0])
    missed = np.setdiff1d(problem.support, T).astype(np.intp)
    if reason or not len(missed):
        why = reason or f"missed entries of the truth = 0 of {problem.k}"
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=why)
    assert found.trace is not None
    m = smallest(problem.X, np.union1d(problem.support, T).astype(np.intp))
    eps = problem.eps - project(problem.X, T, problem.eps)
    threshold = stationary_threshold(problem.n * penalty.lam, found.trace.step / problem.n)
    slack = gradient * (1 + problem.n * problem.problem.lipschitz / m)
    bound = len(missed) * (threshold + uncaught_noise(problem.X, missed, eps) + slack) ** 2 / m
    bias = float(np.square(problem.signal - project(problem.X, T, problem.signal)).sum())
    return Certificate(name, claim, "derived here", bias, bound, _rounding(problem))


def _rounding(problem: Planted) -> float:
    condition = problem.n * problem.problem.lipschitz / smallest(problem.X, np.arange(problem.p))
    return allowance(condition * problem.scale, problem.size)


def _at_rest(case: Case) -> Iterator[tuple[Planted, L0, Solution]]:
    drawn = planted(case.seed, designs=("gaussian", "orthonormal"))
    cramped = Planted("gaussian", n=20, p=8, k=4, sigma=0.3, seed=case.seed)
    for problem, cut in ((drawn, float(case.rng(23).choice([0.7, 1.2]))), (cramped, 1.0)):
        for method in (iht.iht, maiht.maiht):
            penalty = L0((cut * problem.height) ** 2 / 2)
            yield problem, penalty, method(problem.problem, penalty, iters=300, tol=TOL)
    yield just_missed(case.seed)


def just_missed(seed: int) -> tuple[Planted, L0, Solution]:
    """One spike, no noise, orthonormal columns, a threshold just above the spike: the bias bound is used up."""
    problem = Planted("orthonormal", n=12, p=4, k=1, sigma=0.0, seed=seed)
    penalty = L0(float(np.square(problem.w).sum()) * problem.problem.lipschitz / 2 * JUST)
    return problem, penalty, iht.iht(problem.problem, penalty, safety=1.0, tol=TOL)


def _pythagoras(case: Case) -> Iterator[Certificate]:
    for problem, penalty, found in _at_rest(case):
        yield stationary_pythagoras(problem, penalty, found)


def _bias(case: Case) -> Iterator[Certificate]:
    for problem, penalty, found in _at_rest(case):
        yield stationary_bias(problem, penalty, found)


CHECKS: dict[str, Check] = {
    "stationary-pythagoras": _pythagoras,
    "stationary-bias": _bias,
}
