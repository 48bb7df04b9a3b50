"""Once the support rests: exact dynamics of IHT on it, its slope, the length of its tail, the local factor of mAIHT.

Letters: S the support at rest, X the least squares on it, e_t = x_t - X, d_t = x_{t+1} - x_t, s step,
m_S = lambda_min(H_SS), the least over the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from solvers import iht, maiht
from solvers.problem import LayerProblem
from solvers.sparsity import L0, Array, Mask
from theory_checks.certificate import Certificate, allowance
from theory_checks.identification import ball, fixed
from theory_checks.linear import rest
from theory_checks.paths import curvature, gaps, iterates, on_support, tightest, too_long, walk
from theory_checks.synthetic import Case, Check

WHERE = "gradient descent on a fixed support"
LI_LIN = "Li, Lin 2015, Alg. 1"


def restricted(H: Array, S: Mask) -> float:
    """m_S = lambda_min(H_SS)."""
    return curvature(H[np.ix_(S, S)])


def local_dynamics(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 60) -> Certificate:
    """e_{t+1} = e_t - s (e_t H)_S exactly while the support of IHT is S.

    Assumptions: the support rests before iteration n. Measured: the largest entry of the difference. Where: derived
    here.
    Tight: bound 0.
    """
    name, claim = "local-dynamics", "x_{t+1} - X = (I - s H_SS)(x_t - X) on the support at rest"
    path, X, reason = _tail(problem, penalty, x, s, n)
    if reason:
        return Certificate(name, claim, WHERE, 0.0, 0.0, applies=reason)
    E, S = path - X, path[-1] != 0
    differences = np.abs(E[1:] - E[:-1] + s * np.where(S, E[:-1] @ problem.H, 0.0)).max(axis=(1, 2))
    reach = np.abs(path).max() + np.abs(X).max() + np.abs(problem.W0).max()
    scale = reach + s * (reach * np.abs(problem.H).sum(axis=0)).max()
    return tightest(
        name, claim, WHERE, differences, np.zeros(len(E) - 1), np.full(len(E) - 1, allowance(float(scale), x.size))
    )


def local_slope(problem: LayerProblem, penalty: L0, X: Array, s: float, n: int = 40) -> Certificate:
    """|x_t - X| = (1 - s m_S)^t |x_0 - X| for IHT from X plus the slow eigenvector of one row's H_SS.

    Assumptions: X is a fixed point with a ball in which the support stays (`identification-ball`), s L <= 1. Measured:
    the largest difference of the two sides. Where: derived here. Tight: bound 0.
    """
    name, claim = "local-slope", "|x_t - X| = (1 - s m_S)^t |x_0 - X| from a start on the slow eigenvector of H_SS"
    radius, rows = ball(problem, penalty, X, s), np.flatnonzero((X != 0).any(axis=1))
    reason = too_long(problem, s) or ("" if radius > 0 and rows.size else f"radius = {radius:.3g}, rows = {rows.size}")
    if reason:
        return Certificate(name, claim, WHERE, 0.0, 0.0, applies=reason)
    x, row = slow(problem, X, radius / 2), int(rows[0])
    E = iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n)) - X
    far = np.sqrt(np.square(E).sum(axis=(1, 2)))
    factor = 1 - s * restricted(problem.H, X[row] != 0)
    expected = np.array([factor**t for t in range(n + 1)]) * far[0]
    scale = float(np.abs(X).sum() + np.abs(problem.W0).sum() + far[0]) * (1 + s * float(np.abs(problem.H).sum()))
    rounding = np.full(n + 1, n * allowance(scale, X.size))
    return tightest(name, claim, WHERE, np.abs(far - expected), np.zeros(n + 1), rounding)


def finite_length(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 60) -> Certificate:
    """sum_{t >= k} |d_t| <= |d_k| / (s m_S) once the support of IHT rests from k on.

    Assumptions: s L <= 1, m_S > 0, the support rests before iteration n. Why: d_{t+1} = (I - s H_SS) d_t. Where:
    Attouch, Bolte, Svaiter 2013, Thm 2.9 (finite length), constant derived here. Tight: on the slow eigenvector.
    """
    name, claim = "finite-length", "sum over t >= k of |x_{t+1} - x_t| <= |x_{k+1} - x_k| / (s m_S)"
    path, X, reason = _tail(problem, penalty, x, s, n)
    m = _least(problem, path[-1])
    if reason or not 0 < m < np.inf:
        return Certificate(name, claim, WHERE, 0.0, 0.0, applies=reason or f"m_S = {m:.3g}")
    d = np.sqrt(np.square(np.diff(path, axis=0)).sum(axis=(1, 2)))
    length = np.cumsum(d[::-1])[::-1]
    scale = float(np.abs(path).max() + np.abs(X).max() + np.abs(problem.W0).max())
    rounding = allowance(scale * len(d) * problem.lipschitz / m * (1 + s * problem.lipschitz), x.size)
    return tightest(name, claim, WHERE, length, d / (s * m), np.full(len(d), rounding))


def maiht_local_factor(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int = 60) -> Certificate:
    """r_{t+1} <= (1 - s m_S)^2 r_t, r = <e, e H> / 2, for mAIHT once the supports of x and v rest, whichever is taken.

    Assumptions: s L <= 1; supports rest and agree before iteration n. Why: v is a gradient step on S and x no worse.
    Rounding: the safeguard subtracts two objectives. Where: derived here. Tight where v is taken on the slow
    eigenvector.
    """
    name, claim = "maiht-local-factor", "F(x_{t+1}) - F(X) <= (1 - s m_S)^2 (F(x_t) - F(X)) once the supports rest"
    states = walk(maiht.step, maiht.State(x, x, x, x), problem, penalty, s, n)
    path, v = iterates(states), np.array([k.v for k in states])
    k0 = rest(np.concatenate([path, v], axis=1))
    reason = too_long(problem, s) or (f"the support still moves in iteration {k0} of {n}" if k0 >= n else "")
    if not reason and np.any((path[-1] != 0) != (v[-1] != 0)):
        reason = f"x and v rest on {np.count_nonzero(path[-1])} and {np.count_nonzero(v[-1])} weights"
    if reason:
        return Certificate(name, claim, LI_LIN, 0.0, 0.0, applies=reason)
    X = on_support(problem, path[-1] != 0)
    values, rounding = gaps(problem, L0(0.0), X, path[k0:])
    m = min(_least(problem, path[-1]), 1 / s)
    told = allowance(problem.magnitude(path[k0]) + problem.magnitude(X) + penalty.value(path[-1]), x.size)
    return tightest(
        name, claim, LI_LIN, values[1:], (1 - s * m) ** 2 * values[:-1], rounding[1:] + rounding[:-1] + told
    )


def slow(problem: LayerProblem, X: Array, far: float) -> Array:
    """X plus `far` times the slow eigenvector of H_SS in the first row that has a support."""
    x = X.copy()
    for row in np.flatnonzero((X != 0).any(axis=1))[:1]:
        S = X[row] != 0
        x[row, S] += far * np.linalg.eigh(problem.H[np.ix_(S, S)])[1][:, 0]
    return x


def _least(problem: LayerProblem, X: Array) -> float:
    return min((restricted(problem.H, S) for S in X != 0 if S.any()), default=float("inf"))


def _tail(problem: LayerProblem, penalty: L0, x: Array, s: float, n: int) -> tuple[Array, Array, str]:
    path = iterates(walk(iht.step, iht.State(x, x), problem, penalty, s, n))
    k0 = rest(path)
    reason = too_long(problem, s) or (f"the support still moves in iteration {k0} of {n}" if k0 >= n else "")
    return path[k0:], on_support(problem, path[-1] != 0), reason


def _runs(case: Case) -> Iterator[tuple[LayerProblem, L0, Array, float]]:
    problem, s = case.judge, 0.95 / case.judge.lipschitz
    yield problem, case.penalty, case.some_weight(), s
    X, s, penalty = _fixed(case)
    yield problem, penalty, slow(problem, X, max(ball(problem, penalty, X, s), 0.0) / 2 if X.any() else 0.0), s
    yield problem, L0(0.0), slow(problem, problem.W0, float(np.abs(problem.W0).max())), 0.95 / problem.lipschitz


def _fixed(case: Case) -> tuple[Array, float, L0]:
    return fixed(case.judge, case.budgets[0].mask(np.abs(case.judge.W0)), 0.95)


def _slope(case: Case) -> Iterator[Certificate]:
    X, s, penalty = _fixed(case)
    yield local_slope(case.judge, penalty, X, s)


CHECKS: dict[str, Check] = {
    "local-dynamics": lambda case: (local_dynamics(*run) for run in _runs(case)),
    "local-slope": _slope,
    "finite-length": lambda case: (finite_length(*run) for run in _runs(case)),
    "maiht-local-factor": lambda case: (maiht_local_factor(*run) for run in _runs(case)),
}
