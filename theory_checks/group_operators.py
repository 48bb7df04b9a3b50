"""The thresholds of whole groups against first-order conditions, the dual ball and enumeration.

Letters: Z, V (out, in); Z_g the columns of group g, |Z_g| its Frobenius norm; s step, lam penalty, t = s lam.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from solvers.groups import GroupL0, GroupL1
from solvers.sparsity import Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check

MOST = 12  # groups of which all choices are visited


def members(groups: tuple[int, ...]) -> list[Array]:
    """One boolean (in,) array for every group."""
    return [np.array(groups) == g for g in range(max(groups) + 1)]


def group_stationary(penalty: GroupL1, Z: Array, s: float) -> Certificate:
    """V = prox(Z) solves 0 in V - Z + t d sum_g |V_g|: V_g - Z_g + t V_g / |V_g| = 0 where V_g != 0, else |Z_g| <= t.

    Assumptions: none. Measured: the sum of the deviations; the penalty is convex, so 0 is also sufficient. Where: Yuan,
    Lin 2006. Tight: bound 0.
    """
    V, t, total = penalty.prox(Z, s), s * penalty.lam, 0.0
    for g in members(penalty.groups):
        length = float(np.linalg.norm(V[:, g]))
        if length > 0:
            total += float(np.linalg.norm(V[:, g] - Z[:, g] + t * V[:, g] / length))
        else:
            total += max(0.0, float(np.linalg.norm(Z[:, g])) - t)
    claim = "V_g - Z_g + t V_g / |V_g| = 0 where V_g != 0, |Z_g| <= t elsewhere"
    scale = float(np.abs(Z).sum()) + t * (max(penalty.groups) + 1)
    return Certificate("group-stationary", claim, "Yuan, Lin 2006", total, 0.0, allowance(scale, Z.size))


def group_decomposition(penalty: GroupL1, Z: Array, s: float) -> Certificate:
    """Z = prox(Z) + the projection of Z on {Y : |Y_g| <= t}, the ball of the dual norm.

    Assumptions: none. Measured: the sum of the deviations. Why: Moreau's decomposition; the projection scales every
    group that is too long back to length t. Where: Beck 2017, ch. 6. Tight: bound 0.
    """
    t, projected = s * penalty.lam, Z.copy()
    for g in members(penalty.groups):
        length = float(np.linalg.norm(Z[:, g]))
        if length > t:
            projected[:, g] *= t / length
    measured = float(np.abs(Z - penalty.prox(Z, s) - projected).sum())
    claim = "Z = group soft threshold(Z) + projection of Z on {|Y_g| <= t}"
    return Certificate(
        "group-decomposition", claim, "Beck 2017, ch. 6", measured, 0.0, allowance(3 * float(np.abs(Z).sum()), Z.size)
    )


def group_choice(penalty: GroupL0, Z: Array, s: float) -> Certificate:
    """|V - Z|^2 / 2s + lam #{g : V_g != 0} at V = prox(Z) is the minimum over all choices of groups, by enumeration.

    Assumptions: s > 0, at most 12 groups. Why: a group that stays does best unchanged. Measured: its value at V.
    Where: derived here. Tight.
    """
    name, claim = "group-choice", "|V - Z|^2/2s + lam #{V_g != 0} at the group hard threshold = min over 2^g choices"
    parts = members(penalty.groups)
    if len(parts) > MOST:
        return Certificate(name, claim, "enumeration", 0.0, 0.0, applies=f"groups = {len(parts)} > {MOST}")
    V = penalty.prox(Z, s)
    alive = sum(bool(V[:, g].any()) for g in parts)
    measured = float(np.square(V - Z).sum()) / (2 * s) + penalty.lam * alive
    energy = np.array([float(np.square(Z[:, g]).sum()) / (2 * s) for g in parts])
    kept = np.array(list(product([0.0, 1.0], repeat=len(parts))))
    least = float(((1 - kept) @ energy + penalty.lam * kept.sum(axis=1)).min())
    rounding = allowance(2 * float(energy.sum()) + penalty.lam * len(parts), Z.size)
    return Certificate(name, claim, "enumeration", measured, least, rounding)


def _drawn(case: Case) -> Iterator[tuple[tuple[int, ...], Array, float, float]]:
    """Groups of unequal size, a weight, a step, and t at a quantile of the groups' norms."""
    rng = case.rng(29)
    labels = rng.integers(0, min(6, case.inputs), case.inputs)
    groups = tuple(int(g) for g in np.unique(labels, return_inverse=True)[1])
    for Z in (case.W0, case.some_weight(30)):
        norms = np.array([float(np.linalg.norm(Z[:, g])) for g in members(groups)])
        for share in (0.3, 0.8, 1.1):
            yield groups, Z, float(rng.uniform(0.05, 2)), share * float(np.median(norms))


def _stationary(case: Case) -> Iterator[Certificate]:
    for groups, Z, s, t in _drawn(case):
        yield group_stationary(GroupL1(t / s, groups), Z, s)


def _decomposition(case: Case) -> Iterator[Certificate]:
    for groups, Z, s, t in _drawn(case):
        yield group_decomposition(GroupL1(t / s, groups), Z, s)


def _choice(case: Case) -> Iterator[Certificate]:
    for groups, Z, s, t in _drawn(case):
        yield group_choice(GroupL0(t**2 / (2 * s), groups), Z, s)


CHECKS: dict[str, Check] = {
    "group-stationary": _stationary,
    "group-decomposition": _decomposition,
    "group-choice": _choice,
}
