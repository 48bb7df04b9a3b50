"""Linear rates of the strongly convex problem f + lam |W|_1, and rates of f + lam |W|_0 once its supports rest.

Letters: X the reference minimiser, of F or of f on the support at rest S, found without a proximal method; s step,
m = lambda_min(H), L >= lambda_max(H), q = max(|1 - sL|, |1 - sm|); k_0 the first iteration with its final support.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import sqrt

import numpy as np

from solvers import aiht, iht
from solvers.problem import LayerProblem
from solvers.sparsity import L0, L1, Array
from theory_checks import paths
from theory_checks.certificate import Certificate, allowance
from theory_checks.paths import gaps, iterates, on_support, reference, tightest, too_long, walk
from theory_checks.rates import numbers
from theory_checks.synthetic import Case, Check

STRONG = "PEPit, proximal_gradient with strong convexity"
YANG_YU_PGD, YANG_YU = "Yang, Yu 2019, Thm 2", "Yang, Yu 2019, Thms 3, 4"


def linear_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 40) -> Certificate:
    """|x_n - X| <= q^n |x_0 - X|, q = max(|1 - sL|, |1 - sm|), for ISTA from any x.

    Assumptions: s L <= 2, m > 0 (the ridge makes it so). Why: I - sH contracts by q and the prox expands nothing.
    Where: PEPit. Tight: equality without penalty from a start on the slow eigenvector.
    """
    name, claim = "linear-rate", "|x_n - X| <= q^n |x_0 - X|, q = max(|1 - sL|, |1 - sm|)"
    best, q, reason = _contraction(problem, penalty, s)
    if reason:
        return Certificate(name, claim, STRONG, 0.0, 0.0, applies=reason)
    path = iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n))
    far = np.sqrt(np.square(path - best).sum(axis=(1, 2)))
    scale = sqrt(_square(problem.W0)) + far[0] + sqrt(_square(best))
    rounding = allowance(problem.lipschitz / paths.curvature(problem.H) * scale, x.size)
    return tightest(name, claim, STRONG, far, _powers(q, n) * far[0], np.full(n + 1, rounding))


def linear_value_rate(problem: LayerProblem, penalty: L1, x: Array, s: float, n: int = 40) -> Certificate:
    """F(x_n) - F* <= q^2n (F(x_0) - F*), q = max(|1 - sL|, |1 - sm|), for ISTA from any x.

    Assumptions: s L <= 2, m > 0. Where: PEPit. Tight as `linear_rate`.
    """
    name, claim = "linear-value-rate", "F(x_n) - F* <= q^2n (F(x_0) - F*), q = max(|1 - sL|, |1 - sm|)"
    best, q, reason = _contraction(problem, penalty, s)
    if reason:
        return Certificate(name, claim, STRONG, 0.0, 0.0, applies=reason)
    values, rounding = gaps(problem, penalty, best, iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n)))
    rounding += rounding[0] + allowance(n * float(values[0]), x.size)
    return tightest(name, claim, STRONG, values, _powers(q**2, n) * values[0], rounding)


def frozen_rate(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 60) -> Certificate:
    """F(x_{k0+j}) - F(X) <= |x_{k0} - X|^2 / 2sj for IHT, X the least squares on the support that it came to rest on.

    Assumptions: s L <= 1; the support rests from k0 < n on. Why: from there on IHT is gradient descent on the support.
    Where: Yang, Yu 2019, Thm 2. Upper bound: a quadratic uses at most 1/e of half of it.
    """
    name, claim = "frozen-rate", "F(x_{k0+j}) - F(X) <= |x_{k0} - X|^2 / 2sj for every j after the support rests"
    path = iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n))
    k0 = rest(path)
    if reason := too_long(problem, s) or _restless(k0, n):
        return Certificate(name, claim, YANG_YU_PGD, 0.0, 0.0, applies=reason)
    best = on_support(problem, path[-1] != 0)
    values, rounding = gaps(problem, L0(0.0), best, path[k0:])
    bound = _square(path[k0] - best) / (2 * s * np.arange(1.0, n - k0 + 1))
    return tightest(name, claim, YANG_YU_PGD, values[1:], bound, rounding[1:] + allowance(1.0, x.size) * bound)


def yang_yu_rate(
    problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 60, monotone: bool = True
) -> Certificate:
    """F(x_m) - F(X) <= V / t_m^2 for every m >= k0 of Yang and Yu's two forms, X the least squares at rest.

    V = |t_{k0} z_{k0} - (t_{k0} - 1) x_{k0-1} - X|^2 / 2s + t_{k0}^2 (F(x_{k0}) - F(X)), t_0 = 0. Assumptions:
    s L <= 1; the supports of x and z are equal and rest from k0 < n on. Why: from there on it is MFISTA on the
    support, or FISTA, where z = x. Where: Yang, Yu 2019, Thm 4, or 3, whose proofs give t_m^2 for the printed
    (m + 1)^2 / 4. Upper bound.
    """
    name, claim = "yang-yu-rate", "F(x_m) - F(X) <= V(k0) / t_m^2 for every m after the supports rest"
    step = aiht.step if monotone else aiht.nonmonotone_step
    states = walk(step, aiht.start(x), problem, penalty, s, n)
    path, z = iterates(states), np.array([k.z for k in states])
    k0 = rest(np.concatenate([path, z], axis=1))
    reason = too_long(problem, s) or _restless(k0, n)
    if not reason and np.any((path[-1] != 0) != (z[-1] != 0)):
        reason = f"x and z rest on supports of {np.count_nonzero(path[-1])} and {np.count_nonzero(z[-1])} weights"
    if reason:
        return Certificate(name, claim, YANG_YU, 0.0, 0.0, applies=reason)
    best = on_support(problem, path[-1] != 0)
    values, rounding = gaps(problem, L0(0.0), best, path[k0:])
    t = np.concatenate([[0.0], numbers(n)])[k0:]
    V = _square(t[0] * z[k0] - (t[0] - 1) * path[max(k0 - 1, 0)] - best) / (2 * s) + t[0] ** 2 * values[0]
    told = allowance(n * (problem.magnitude(path[k0]) + problem.magnitude(best) + penalty.value(path[k0])), x.size)
    bound = V / t[1:] ** 2
    spread = t[0] ** 2 * (np.abs(z[k0]).sum() + np.abs(path[max(k0 - 1, 0)]).sum() + np.abs(best).sum()) ** 2 / s
    scale = rounding[1:] + told + allowance(1.0, x.size) * (bound + spread / t[1:] ** 2)
    return tightest(name, claim, YANG_YU, values[1:], bound, scale)


def rest(path: Array) -> int:
    """k0: from this iterate on the support is the last one."""
    moved = np.flatnonzero(((path != 0) != (path[-1] != 0)).any(axis=(1, 2)))
    return int(moved[-1]) + 1 if moved.size else 0


def _restless(k0: int, n: int) -> str:
    return f"the support still moves in iteration {k0} of {n}" if k0 >= n else ""


def _contraction(problem: LayerProblem, penalty: L1, s: float) -> tuple[Array, float, str]:
    m = paths.curvature(problem.H)
    reason = too_long(problem, s, 2.0) or ("" if m > 0 else f"lambda_min(H) = {m:.3g}")
    best, why = reference(problem, penalty, 0.0) if not reason else (problem.W0, reason)
    return best, slowest(s, m, problem.lipschitz), why


def slowest(s: float, m: float, L: float) -> float:
    """q = max(|1 - sL|, |1 - sm|), the largest factor of I - sH."""
    return max(abs(1 - s * L), abs(1 - s * m))


def _powers(q: float, n: int) -> Array:
    return np.array([q**k for k in range(n + 1)])


def _square(d: Array) -> float:
    return float(np.square(d).sum())


def slow_start(case: Case) -> tuple[LayerProblem, L1, Array, float]:
    """No penalty, a start on the slow eigenvector around W0, s = 0.95/L: both linear rates are equalities."""
    problem = case.judge
    eigenvector = np.linalg.eigh(problem.H)[1][:, 0]
    return problem, L1(0.0), problem.W0 + eigenvector * (1 + np.abs(problem.W0).max()), 0.95 / problem.lipschitz


def shallow(n: int) -> tuple[LayerProblem, L0, Array, float]:
    """f = h (x - 1)^2 / 2 with h = 1 / 2n and s = 1: the quadratic that is slowest after n steps."""
    return LayerProblem.of(np.ones((1, 1)), np.full((1, 1), 1 / (2 * n))), L0(0.0), np.full((1, 1), 2.0), 1.0


def late() -> tuple[LayerProblem, L0, Array, float]:
    """Three correlated weights whose support still moves when most of the error is gone: k0 > 1 matters."""
    problem = LayerProblem.of(np.array([[1.0, 2, 2]]), np.array([[1.0, -3, -3], [-3, 10, 10], [-3, 10, 11]]))
    return problem, L0(32.0), problem.W0, 1 / problem.lipschitz


def _linear(case: Case, claim: Callable[..., Certificate]) -> Iterator[Certificate]:
    problem, L = case.judge, case.judge.lipschitz
    for safety in (0.95, 1.9):
        yield claim(problem, case.absolute, case.some_weight(), safety / L)
    yield claim(*slow_start(case))


def _frozen(case: Case, claim: Callable[..., Certificate]) -> Iterator[Certificate]:
    problem, L = case.judge, case.judge.lipschitz
    for x in (problem.W0, case.some_weight()):
        yield claim(problem, case.penalty, x, 0.95 / L)
    yield claim(*shallow(60))


def _yang_yu(case: Case) -> Iterator[Certificate]:
    for monotone in (True, False):
        yield from _frozen(case, partial(yang_yu_rate, monotone=monotone))
        yield yang_yu_rate(*late(), monotone=monotone)


CHECKS: dict[str, Check] = {
    "linear-rate": partial(_linear, claim=linear_rate),
    "linear-value-rate": partial(_linear, claim=linear_value_rate),
    "frozen-rate": partial(_frozen, claim=frozen_rate),
    "yang-yu-rate": _yang_yu,
}
