"""Operators against closed forms and enumeration: a ridge inside the prox, soft thresholds, groups, n:m.

Letters: Z, V, Y (out, in); s step; lam penalty; mu ridge; d a diagonal metric. Both sides are evaluated here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from solvers import wanda
from solvers.problem import LayerProblem
from solvers.sparsity import L0, L1, Array, KeepGroups, KeepNofM
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check


def ridge_prox(Z: Array, C: Array, s: float, mu: float, lam: float) -> Array:
    """argmin_V |V - Z|^2 / 2s + mu/2 |V - C|^2 + lam |V|_0: threshold the mean of Z and C by step s / (1 + s mu)."""
    return L0(lam).prox((Z + s * mu * C) / (1 + s * mu), s / (1 + s * mu))


def ridge_in_prox(Z: Array, C: Array, s: float, mu: float, lam: float) -> Certificate:
    """|V - Z|^2/2s + mu/2 |V - C|^2 + lam |V|_0 at V = `ridge_prox` is its minimum over V.

    Assumptions: s, mu, lam >= 0 finite. Why: separable, and the minimiser of an entry is 0 or the mean of z and c with
    weights 1/s and mu, so two values are compared. Where: derived here. Tight.
    """

    def cost(V: Array) -> Array:
        return np.square(V - Z) / (2 * s) + mu / 2 * np.square(V - C)

    V = ridge_prox(Z, C, s, mu, lam)
    mean = (Z + s * mu * C) / (1 + s * mu)
    measured = float(cost(V).sum() + lam * np.count_nonzero(V))
    bound = float(np.minimum(cost(np.zeros_like(Z)), cost(mean) + lam).sum())
    return Certificate(
        "ridge-in-prox",
        "|V - Z|^2/2s + mu/2 |V - C|^2 + lam |V|_0 at the shrunken threshold is the minimum over V",
        "completing the square",
        measured,
        bound,
        allowance(float(np.square(Z).sum() / s + mu * np.square(C).sum()) + bound, Z.size),
    )


def moreau_decomposition(lam: float, Z: Array, s: float) -> Certificate:
    """Z = prox_{s lam |.|_1}(Z) + clip(Z, -s lam, s lam): the soft threshold and the projection on the dual ball.

    Assumptions: none. Measured: the sum of the deviations. Where: Beck 2017, ch. 6. Tight: bound 0.
    """
    t = s * lam
    measured = float(np.abs(Z - L1(lam).prox(Z, s) - np.clip(Z, -t, t)).sum())
    claim = "Z = soft threshold(Z) + projection of Z on the dual ball"
    scale = float(np.abs(Z).sum()) + t * Z.size
    return Certificate("moreau-decomposition", claim, "Beck 2017, ch. 6", measured, 0.0, allowance(scale, Z.size))


def firmly_nonexpansive(lam: float, Z: Array, Y: Array, s: float) -> Certificate:
    """|S(Z) - S(Y)|^2 <= <S(Z) - S(Y), Z - Y> for the soft threshold S, entry by entry; the worst entry is shown.

    Assumptions: none; a hard threshold does not satisfy it. Why: lam |.|_1 is convex. Where: Beck 2017, ch. 6.
    Tight: equality wherever both entries are shrunk on the same side.
    """
    d, moved = Z - Y, L1(lam).prox(Z, s) - L1(lam).prox(Y, s)
    left, right = np.square(moved), moved * d
    i = np.unravel_index(np.argmax(left - right), d.shape)
    claim = "(S(z) - S(y))^2 <= (S(z) - S(y)) (z - y) for the soft threshold S"
    scale = float(np.square(np.abs(Z[i]) + np.abs(Y[i]) + 2 * s * lam))
    name, where = "firmly-nonexpansive", "Beck 2017, ch. 6"
    return Certificate(name, claim, where, float(left[i]), float(right[i]), allowance(scale, 1))


def group_projection(budget: KeepGroups, Z: Array) -> Certificate:
    """|P(Z) - Z|^2 is the minimum over all choices of `keep` whole groups of inputs, by enumeration.

    Assumptions: at most 12 groups. Measured: inf where entries of more than `keep` groups stay. Where: derived here.
    Tight.
    """
    name, claim, where = "group-projection", "|P(Z) - Z|^2 = min over all choices of whole groups", "enumeration"
    groups = np.array(budget.groups)
    count = int(groups.max()) + 1
    if count > 12:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"groups = {count} > 12")
    V = budget.prox(Z)
    alive = {int(groups[j]) for j in np.flatnonzero(V.any(axis=0))}
    energy = [float(np.square(Z[:, groups == g]).sum()) for g in range(count)]
    least = min(sum(energy) - sum(energy[g] for g in kept) for kept in combinations(range(count), budget.keep))
    measured = float(np.square(V - Z).sum()) if len(alive) <= budget.keep else float("inf")
    return Certificate(name, claim, where, measured, least, allowance(2 * sum(energy), Z.size))


def diagonal_projection(budget: KeepNofM, Z: Array, d: Array) -> Certificate:
    """sum_j d_j (v_j - z_j)^2 at Wanda's weight under H = diag(d) is the minimum over all n:m patterns, by enumeration.

    Assumptions: d >= 0, at most 1000 patterns a window. Measured: inf where a window keeps more than n. Where: theory
    P7; Sun et al. 2024, eq. (1) is exact for a diagonal Gram. Tight.
    """
    name, claim = "diagonal-projection", "sum d (v - z)^2 of Wanda's n:m weight = min over all patterns, H = diag(d)"
    patterns = list(combinations(range(budget.of), budget.of - budget.keep))
    if len(patterns) > 1000:
        return Certificate(name, claim, "enumeration", 0.0, 0.0, applies=f"patterns = {len(patterns)} > 1000")
    V = wanda.wanda(LayerProblem.of(Z, np.diag(d)), budget).weight
    costs = (d * np.square(Z)).reshape(-1, budget.of)
    removed = np.array(patterns, dtype=int).reshape(len(patterns), -1)
    least = float(costs[:, removed].sum(axis=2).min(axis=1).sum())
    feasible = np.count_nonzero(V.reshape(-1, budget.of), axis=1).max() <= budget.keep
    measured = float((d * np.square(V - Z)).sum()) if feasible else float("inf")
    return Certificate(name, claim, "enumeration", measured, least, allowance(2 * float(costs.sum()), Z.size))


def _ridge(case: Case) -> Iterator[Certificate]:
    Z, C, rng = case.some_weight(20), case.some_weight(21), case.rng(22)
    for _ in range(4):
        s, mu = rng.uniform(0.05, 2), rng.uniform(0.1, 4)
        yield ridge_in_prox(Z, C, s, mu, rng.uniform(0.02, 1) * float(np.square(Z).mean()) / s)
    yield ridge_in_prox(Z, case.judge.W0, 1.0, 0.1, case.penalty.lam)


def _moreau(case: Case) -> Iterator[Certificate]:
    for s in (1.0, float(case.rng(23).uniform(0.05, 2))):
        yield moreau_decomposition(case.absolute.lam, case.W0, s)


def _firm(case: Case) -> Iterator[Certificate]:
    Z = case.some_weight(24)
    for Y in (case.some_weight(25), Z + 0.1 * case.some_weight(25), Z):
        yield firmly_nonexpansive(case.absolute.lam, Z, Y, float(case.rng(26).uniform(0.05, 2)))


def _groups(case: Case) -> Iterator[Certificate]:
    drawn = case.rng(27).integers(0, min(6, case.inputs), case.inputs)
    groups = tuple(int(g) for g in np.unique(drawn, return_inverse=True)[1])
    for Z in (case.W0, case.some_weight(28)):
        yield group_projection(KeepGroups(round(case.keep * (max(groups) + 1)), groups), Z)


def _diagonal(case: Case) -> Iterator[Certificate]:
    d = 10 ** case.rng(37).uniform(-2, 2, case.inputs)
    for budget in (KeepNofM(round(case.keep * case.inputs), case.inputs), *case.budgets[2:]):
        if isinstance(budget, KeepNofM):
            for metric in (d, np.diag(case.problem.H)):
                yield diagonal_projection(budget, case.some_weight(38), metric)


CHECKS: dict[str, Check] = {
    "ridge-in-prox": _ridge,
    "moreau-decomposition": _moreau,
    "firmly-nonexpansive": _firm,
    "group-projection": _groups,
    "diagonal-projection": _diagonal,
}
