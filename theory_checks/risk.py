"""Risk bounds of l0 regression that need no algorithm: best subsets by brute force, and near-minimisers.

Model: y = X w + eps, w supported on S with k entries. Letters: P_T projector on the span of the columns T,
w^ an estimate with support S^ of k^ entries, v = X (w^ - w), lam the penalty beside |y - X w|^2 / 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from math import e, log, sqrt

import numpy as np

from solvers.sparsity import Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.planted import Index, Planted, against, level, planted, twins
from theory_checks.synthetic import Case, Check

CONSTRAINED = 4.0  # of the noise that 2k columns can catch, for k-sparse least squares
PENALISED_NOISE, PENALISED_COUNT = 4.0, 4.0  # of the noise on both supports and of lam (k - k^), for the penalty
NEAR = 2.0  # of sqrt(k^ + k) |X'eps|_inf / m, for near-minimisers
JUST = 1 + 2.0**-20  # how much a penalty exceeds what a spike is worth to it
BRUTE = 10  # inputs up to which all subsets are visited


def universal_penalty(sigma: float, p: int) -> float:
    """lam0 = sigma^2 (2 + 3 log(2 e p)): large enough to pay for every false support."""
    return sigma**2 * (2 + 3 * log(2 * e * p))


@lru_cache(maxsize=64)
def subsets(p: int, size: int) -> Index:
    """(number, size): all subsets of range(p) of that size."""
    return np.array(list(combinations(range(p), size)), dtype=np.intp)


def caught(X: Array, size: int, v: Array) -> Array:
    """|P_T v|^2 for every T of `subsets`, by QR."""
    Q = np.linalg.qr(X[:, subsets(X.shape[1], size)].transpose(1, 0, 2))[0]
    return np.asarray(np.square(v @ Q).sum(axis=-1))


def project(X: Array, T: Index, v: Array) -> Array:
    """P_T v by QR."""
    Q = np.linalg.qr(X[:, T])[0]
    return Q @ (Q.T @ v)


def smallest(X: Array, T: Index) -> float:
    """lambda_min(X_T'X_T); inf for the empty set."""
    return float(np.linalg.eigvalsh(X[:, T].T @ X[:, T])[0]) if len(T) else float("inf")


def fit(problem: Planted, T: Index) -> Array:
    """Least squares on T, zero elsewhere."""
    w = np.zeros(problem.p)
    w[T] = np.linalg.lstsq(problem.X[:, T], problem.y)[0]
    return w


def best_subset(problem: Planted, lam: float, sizes: range) -> Index:
    """argmin_T |y - P_T y|^2 / 2 + lam |T| over all T of the given sizes."""
    found: list[tuple[float, Index]] = []
    for size in sizes:
        gains = caught(problem.X, size, problem.y)
        found.append((lam * size - float(gains.max()) / 2, subsets(problem.p, size)[int(gains.argmax())]))
    return min(found, key=lambda pair: pair[0])[1]


def constrained_risk(problem: Planted) -> Certificate:
    """|X (w^ - w)|^2 <= 4 max_{|T| <= 2k} |P_T eps|^2 for w^ = argmin |y - X w|^2 over k-sparse w.

    Assumptions: p <= 10 (all subsets are visited). Why: |v|^2 <= 2 <v, eps> and v lies in the span of 2k columns.
    Where: Rigollet, Hutter, ch. 2. Tight: reached by near-duplicate columns and noise towards the copy.
    """
    name, claim, where = "l0-constrained-risk", "|X(w^ - w)|^2 <= 4 max_{|T| <= 2k} |P_T eps|^2", "derived here"
    if problem.p > BRUTE:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"inputs = {problem.p} > {BRUTE}")
    w = fit(problem, best_subset(problem, 0.0, range(problem.k, problem.k + 1)))
    noise = float(caught(problem.X, min(2 * problem.k, problem.p), problem.eps).max())
    return Certificate(name, claim, where, problem.risk(w), CONSTRAINED * noise, allowance(problem.scale, problem.size))


def penalised_risk(problem: Planted, lam: float) -> Certificate:
    """|X (w^ - w)|^2 <= 4 |P_{S + S^} eps|^2 + 4 lam (k - k^) for w^ = argmin |y - X w|^2 / 2 + lam |w|_0.

    Assumptions: p <= 10. Why: the basic inequality |v|^2 / 2 <= <v, eps> + lam (k - k^) and 2ab <= a^2/2 + 2 b^2.
    Where: derived here, the shape of Rigollet, Hutter, Thm 2.14. Tight in the first term
    (near-duplicate columns); 75 % used where both terms count (a spike dropped because noise runs against it).
    """
    name, claim = "l0-penalised-risk", "|X(w^ - w)|^2 <= 4 |P_{S+S^} eps|^2 + 4 lam (k - k^)"
    if problem.p > BRUTE:
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=f"inputs = {problem.p} > {BRUTE}")
    found = best_subset(problem, lam, range(problem.p + 1))
    both = np.union1d(problem.support, found).astype(np.intp)
    noise = float(np.square(project(problem.X, both, problem.eps)).sum())
    bound = PENALISED_NOISE * noise + PENALISED_COUNT * lam * (problem.k - len(found))
    rounding = allowance(problem.scale + lam * problem.p, problem.size)
    return Certificate(name, claim, "derived here", problem.risk(fit(problem, found)), bound, rounding)


def near_minimiser(problem: Planted, w: Array) -> Certificate:
    """|w^ - w| <= 2 sqrt(k^ + k) |X'eps|_inf / m + sqrt(2 gap / m) for any w^, gap = max(0, f(w^) - f(w)).

    f = |y - X w|^2 / 2, m = lambda_min of the columns S + S^. Assumptions: m > 0. Why: m |d|^2 / 2 <= gap +
    |X'eps|_inf |d|_1. Where: Jain, Tewari, Kar 2014, Thm 3 (read second-hand). Upper bound, tight for
    orthonormal columns that see the same noise.
    """
    name, claim = "near-minimiser", "|w^ - w| <= 2 sqrt(k^ + k) |X'eps|_inf / m + sqrt(2 (f(w^) - f(w)) / m)"
    where = "Jain, Tewari, Kar 2014, Thm 3"
    both = np.flatnonzero((w != 0) | (problem.w != 0))
    m = smallest(problem.X, both)
    if m <= allowance(problem.n, problem.size):
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"m = {m:.3g}, zero to rounding")
    gap = max(0.0, (float(np.square(problem.y - problem.X @ w).sum()) - float(np.square(problem.eps).sum())) / 2)
    count = np.count_nonzero(w) + problem.k
    noise = float(np.abs(problem.X.T @ problem.eps).max())
    bound = NEAR * sqrt(count) * noise / m + sqrt(2 * gap / m)
    measured = float(np.linalg.norm(w - problem.w))
    return Certificate(name, claim, where, measured, bound, allowance(measured + bound, problem.size))


def _constrained(case: Case) -> Iterator[Certificate]:
    yield constrained_risk(planted(case.seed))
    yield constrained_risk(twins(case.seed))


def _penalised(case: Case) -> Iterator[Certificate]:
    for problem in (planted(case.seed), twins(case.seed)):
        for factor in (0.1, 1.0):
            yield penalised_risk(problem, factor * universal_penalty(problem.sigma, problem.p))
    problem = against(case.seed)
    yield penalised_risk(problem, JUST * float(np.square(problem.y).sum()) / 2)


def reflected(problem: Planted, T: Index, stretch: float) -> Array:
    """w + stretch (least squares on T - w): at stretch 2 the objective is that of w again."""
    return problem.w + stretch * (fit(problem, T) - problem.w)


def _near(case: Case) -> Iterator[Certificate]:
    for problem in (planted(case.seed), level(case.seed)):
        worst = np.abs(problem.X.T @ problem.eps).argmax()
        T = np.union1d(problem.support, worst).astype(np.intp)
        for stretch in (1.0, 2.0, 3.0):
            yield near_minimiser(problem, reflected(problem, T, stretch))


CHECKS: dict[str, Check] = {
    "l0-constrained-risk": _constrained,
    "l0-penalised-risk": _penalised,
    "near-minimiser": _near,
}
