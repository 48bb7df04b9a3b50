"""The l1 penalty in place of equations: from which weight on it gives up nothing, and how much below it.

    P_rho(d) = f(d) + rho |A d - r|_1,   f(d) = <d, H d> / 2                                       (1)

Letters as in `penalty_methods`: d*, nu and f* solution, multiplier and value of min f on A d = r; S = A H^-1 A' with
eigenvalues in [s, s+].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from solvers.sparsity import Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.penalty_methods import Constrained, problems
from theory_checks.synthetic import Case, Check

MOST = 5  # constraints of which all 3^m sign patterns are visited


def l1_penalised(problem: Constrained, d: Array, rho: float) -> float:
    """P_rho(d) - f*, in difference form: <H d*, e> + <e, H e> / 2 + rho |A d - r|_1 with e = d - d*."""
    best = problem.solution[0]
    e = d - best
    return float(best @ problem.H @ e) + problem.f(e) + rho * float(np.abs(problem.miss(d)).sum())


def uncovered(nu: Array, rho: float) -> Array:
    """(|nu_i| - rho)_+: the part of the multiplier that an l1 penalty of weight rho cannot supply."""
    return np.maximum(np.abs(nu) - rho, 0.0)


def l1_gap(problem: Constrained, rho: float) -> float:
    """f* - min P_rho, the minimum over the 3^m patterns of which equations hold and on which side the others miss."""
    M, S, m = problem.pulls, problem.S, len(problem.r)
    values = []
    for pattern in product((-1.0, 0.0, 1.0), repeat=m):
        z, met = rho * np.array(pattern), np.array(pattern) == 0
        if met.any():
            z[met] = np.linalg.solve(S[np.ix_(met, met)], -problem.r[met] - S[np.ix_(met, ~met)] @ z[~met])
        values.append(l1_penalised(problem, -M @ z, rho))
    return -min(values)


def _l1_rounding(problem: Constrained, rho: float) -> float:
    lengths = float(np.square(problem.pulls).sum()) * float(np.abs(problem.H).sum())
    weights = (float(np.linalg.norm(problem.solution[1])) + rho * len(problem.r)) ** 2
    scale = problem.spread(0.0) * (problem.extremes[1] + lengths) * weights
    return allowance(scale, problem.A.size)


def l1_penalty_exact(problem: Constrained, rho: float) -> Certificate:
    """f* - min P_rho <= s+/2 |(|nu| - rho)_+|^2: the l1 penalty is exact as soon as rho >= |nu|_inf.

    Assumptions: at most 5 constraints (3^m patterns are visited). Why: by duality f* - min P_rho is the least
    <nu - z, S (nu - z)> / 2 over |z|_inf <= rho. Where: Nocedal, Wright 2006, sec. 17.2 (the threshold); the constant
    is derived here. Tight: one constraint.
    """
    name, claim = "l1-penalty-exact", "f* - min (f + rho |A d - r|_1) <= s+/2 |(|nu| - rho)_+|^2"
    where = "Nocedal, Wright 2006, sec. 17.2"
    if len(problem.r) > MOST:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"constraints = {len(problem.r)} > {MOST}")
    bound = problem.extremes[1] / 2 * float(np.square(uncovered(problem.solution[1], rho)).sum())
    return Certificate(name, claim, where, l1_gap(problem, rho), bound, _l1_rounding(problem, rho))


def l1_penalty_necessary(problem: Constrained, rho: float) -> Certificate:
    """s/2 |(|nu| - rho)_+|^2 <= f* - min P_rho: below |nu|_inf the l1 penalty gives the equations up.

    Assumptions and proof as for `l1_penalty_exact`. Where: derived here. Tight: one constraint.
    """
    name, claim = "l1-penalty-necessary", "s/2 |(|nu| - rho)_+|^2 <= f* - min (f + rho |A d - r|_1)"
    if len(problem.r) > MOST:
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=f"constraints = {len(problem.r)} > {MOST}")
    measured = problem.extremes[0] / 2 * float(np.square(uncovered(problem.solution[1], rho)).sum())
    return Certificate(name, claim, "derived here", measured, l1_gap(problem, rho), _l1_rounding(problem, rho))


def _absolute(claim: Callable[[Constrained, float], Certificate]) -> Check:
    """Weights of the l1 penalty on both sides of the largest multiplier."""

    def check(case: Case) -> Iterator[Certificate]:
        for problem in problems(case):
            for share in (0.3, 0.8, 1.0, 1.5):
                yield claim(problem, share * float(np.abs(problem.solution[1]).max()))

    return check


CHECKS: dict[str, Check] = {
    "l1-penalty-exact": _absolute(l1_penalty_exact),
    "l1-penalty-necessary": _absolute(l1_penalty_necessary),
}
