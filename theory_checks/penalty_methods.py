"""The quadratic penalty in place of equations: its path, and how its miss and its error decay with the weight.

    minimise f(d) = <d, H d> / 2  subject to  A d = r                                             (1)
    F_rho(d) = f(d) + rho/2 |A d - r|^2                                                           (2)
    H d* + A' nu = 0,  A d* = r                                                                   (3)

Letters: d = w - w0, so that A w = b reads A d = r = b - A w0; d*, nu and f* solution, multiplier and value of (1);
d_rho minimiser of (2); S = A H^-1 A' with eigenvalues in [s, s+]. H positive definite (p, p), A (m, p) of full rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from solvers.sparsity import Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check


@dataclass(frozen=True, eq=False)
class Constrained:
    """Problem (1): H (p, p), A (m, p), r (m,)."""

    H: Array
    A: Array
    r: Array

    @cached_property
    def pulls(self) -> Array:
        """(p, m) H^-1 A'."""
        return np.asarray(np.linalg.solve(self.H, self.A.T))

    @cached_property
    def S(self) -> Array:
        """(m, m) A H^-1 A'."""
        S = self.A @ self.pulls
        return np.asarray((S + S.T) / 2)

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """The smallest and largest eigenvalue of S."""
        values = np.linalg.eigvalsh(self.S)
        return float(values[0]), float(values[-1])

    @cached_property
    def solution(self) -> tuple[Array, Array]:
        """d* and nu, from the linear system (3)."""
        m, p = self.A.shape
        system = np.block([[self.H, self.A.T], [self.A, np.zeros((m, m))]])  # (3)
        both = np.linalg.solve(system, np.concatenate([np.zeros(p), self.r]))
        return both[:p], both[p:]

    def f(self, d: Array) -> float:
        return float(d @ self.H @ d) / 2

    def miss(self, d: Array) -> Array:
        """(m,) A d - r."""
        return np.asarray(self.A @ d - self.r)

    def spread(self, rho: float) -> float:
        """By how much the solves of (2), (3) multiply rounding: the condition of H + rho A'A times that of S."""
        return float(np.linalg.cond(self.H + rho * self.A.T @ self.A)) * self.extremes[1] / self.extremes[0]


def penalised(problem: Constrained, rho: float) -> Array:
    """d_rho, from the normal equations (H + rho A'A) d = rho A'r of (2)."""
    A = problem.A
    return np.asarray(np.linalg.solve(problem.H + rho * A.T @ A, rho * A.T @ problem.r))


def penalty_path(problem: Constrained, rhos: tuple[float, ...]) -> Certificate:
    """As rho rises, f(d_rho) and F_rho(d_rho) rise, |A d_rho - r| falls, and F_rho(d_rho) stays at most f*.

    Assumptions: rhos increase, H positive definite. Why: each of two neighbours is optimal for its own rho; adding the
    inequalities. Measured: the largest step the wrong way, misses as rho/2 |A d - r|^2. Where: Nocedal, Wright 2006,
    sec. 17.1. Tight: 0 is approached as rho grows.
    """
    name, claim = "penalty-path", "rho up: f(d_rho) up, |A d_rho - r| down, F_rho up and <= f*"
    found = [penalised(problem, rho) for rho in rhos]
    misses = [float(np.square(problem.miss(d)).sum()) for d in found]
    values = [problem.f(d) + rho / 2 * c for d, rho, c in zip(found, rhos, misses, strict=True)]  # (2)
    wrong = [values[-1] - problem.f(problem.solution[0])]
    for i, rho in enumerate(rhos[:-1]):
        wrong += [problem.f(found[i]) - problem.f(found[i + 1]), rho / 2 * (misses[i + 1] - misses[i])]
        wrong += [values[i] - values[i + 1]]
    lengths = float(np.square(problem.solution[0]).sum()) * float(np.abs(problem.H).sum())
    scale = problem.spread(rhos[-1]) * (lengths + rhos[-1] * float(np.square(problem.r).sum()))
    where = "Nocedal, Wright 2006, sec. 17.1"
    return Certificate(name, claim, where, max(wrong), 0.0, allowance(scale, problem.A.size))


def penalty_multiplier(problem: Constrained, rho: float) -> Certificate:
    """|rho (A d_rho - r) - nu| <= |nu| / (1 + rho s): the scaled miss tends to the multiplier at the rate 1 / rho.

    Assumptions: H positive definite, A of full rank. Why: with nu_rho = rho (A d_rho - r), (S + I/rho) nu_rho = S nu.
    Where: derived here; the limit is in Nocedal, Wright 2006, sec. 17.1. Tight: nu along the lowest eigenvector of S
    (`slowest`), one constraint always.
    """
    name, claim = "penalty-multiplier", "|rho (A d_rho - r) - nu| <= |nu| / (1 + rho s)"
    d, nu = penalised(problem, rho), problem.solution[1]
    measured = float(np.linalg.norm(rho * problem.miss(d) - nu))
    bound = float(np.linalg.norm(nu)) / (1 + rho * problem.extremes[0])
    reach = rho * (float(np.abs(problem.A).sum()) * float(np.linalg.norm(d)) + float(np.linalg.norm(problem.r)))
    scale = problem.spread(rho) * (reach + float(np.linalg.norm(nu)))
    return Certificate(name, claim, "derived here", measured, bound, allowance(scale, problem.A.size))


def penalty_error(problem: Constrained, rho: float) -> Certificate:
    """|1 - rho |d_rho - d*|_H / |H^-1 A' S^-1 nu|_H| <= 1 / (1 + rho s): the error is a known constant over rho.

    Assumptions: as for `penalty_multiplier`, and nu not zero. Why: d_rho - d* = H^-1 A' (I + rho S)^-1 nu, and
    |H^-1 A' v|_H^2 = <v, S v>. Where: derived here. Tight as `penalty_multiplier` is.
    """
    name, claim = "penalty-error", "|1 - rho |d_rho - d*|_H / |H^-1 A' S^-1 nu|_H| <= 1 / (1 + rho s)"
    best, nu = problem.solution
    constant = float(np.sqrt(max(0.0, float(nu @ np.linalg.solve(problem.S, nu)))))
    if constant <= allowance(problem.spread(1.0) * float(np.linalg.norm(problem.r)), problem.A.size):
        reason = f"|H^-1 A' S^-1 nu|_H = {constant:.3g}: w0 is feasible"
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=reason)
    d = penalised(problem, rho)
    measured = abs(1 - rho * float(np.sqrt(2 * problem.f(d - best))) / constant)
    reach = float(np.linalg.norm(d) + np.linalg.norm(best)) * float(np.sqrt(np.abs(problem.H).sum()))
    scale = problem.spread(rho) * (1 + rho * reach / constant)
    bound = 1 / (1 + rho * problem.extremes[0])
    return Certificate(name, claim, "derived here", measured, bound, allowance(scale, problem.A.size))


def constrained(case: Case, m: int) -> Constrained:
    """The layer's H with m orthonormal rows A and a random r."""
    rng = case.rng(60 + m)
    A = np.linalg.qr(rng.standard_normal((case.inputs, m)))[0].T
    return Constrained(case.judge.H, A, rng.standard_normal(m))


def slowest(problem: Constrained) -> Constrained:
    """The same with nu along the lowest eigenvector of S, where the error of the penalty is largest."""
    values, vectors = np.linalg.eigh(problem.S)
    return Constrained(problem.H, problem.A, -values[0] * vectors[:, 0])


def problems(case: Case) -> Iterator[Constrained]:
    """One constraint, several, and several with the slowest right side."""
    yield constrained(case, 1)
    several = constrained(case, max(1, min(3, case.inputs // 2)))
    yield from (several, slowest(several))


def _path(case: Case) -> Iterator[Certificate]:
    for problem in problems(case):
        yield penalty_path(problem, tuple(float(x) / problem.extremes[0] for x in np.logspace(-2, 2, 9)))


def _quadratic(claim: Callable[[Constrained, float], Certificate]) -> Check:
    def check(case: Case) -> Iterator[Certificate]:
        for problem in problems(case):
            for share in (0.1, 1.0, 30.0, 2000.0):
                yield claim(problem, share / problem.extremes[0])

    return check


CHECKS: dict[str, Check] = {
    "penalty-path": _path,
    "penalty-multiplier": _quadratic(penalty_multiplier),
    "penalty-error": _quadratic(penalty_error),
}
