"""Planted defects in operators, restorations, envelopes and enumerations; see `theory_checks.mutants` for the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from solvers import admm, iht, linalg, maiht, sparsity, swaps, wanda
from solvers.problem import LayerProblem
from solvers.solution import Solution
from solvers.sparsity import L0, L1, KeepGroups
from theory_checks import enumeration, envelope, optimality, projections, removal, restoration, top_k
from theory_checks.mutant import Mutant, Patch
from theory_checks.support import windows

_largest, _admm_step, _iht_step, _exact = sparsity.largest, admm.step, iht.step, linalg.least_squares_exact
_interval, _envelope, _remove, _optimum = top_k.penalty_interval, envelope.envelope, removal.remove, enumeration.optimum
_swap_step, _swap_row = swaps.step, swaps.swap_row
RESTORED = "restoration orthogonal-residual"


def _unshrunken(Z: Any, C: Any, s: float, mu: float, lam: float) -> Any:
    return L0(lam).prox((Z + s * mu * C) / (1 + s * mu), s)


def _hard(self: L1, Z: Any, s: float) -> Any:
    return np.where(np.abs(Z) > self.lam * s, Z, 0.0)


def _smallest(scores: Any, keep: int) -> Any:
    return ~_largest(scores, scores.shape[-1] - keep)


def _doubled(problem: LayerProblem, g: Any, s: float, k: iht.State) -> iht.State:
    return _iht_step(problem, g, 2 * s, k)


def _by_mean(self: KeepGroups, A: Any) -> Any:
    sums = np.bincount(self.groups, weights=np.abs(A).sum(axis=0))
    return (sums / np.bincount(self.groups))[None, :]


def _by_magnitude(problem: LayerProblem, budget: Any) -> Solution:
    return Solution(np.where(budget.mask(np.abs(problem.W0)), problem.W0, 0.0))


def _no_cross_terms(problem: LayerProblem, mask: Any) -> Any:
    W = np.zeros_like(problem.W0)
    for row, S in enumerate(mask):
        H = problem.H[np.ix_(S, S)]
        W[row, S] = scipy.linalg.solve(H, H @ problem.W0[row, S]) if S.any() else 0.0
    return W


def _half_ridge(problem: LayerProblem, mask: Any) -> Any:
    less = LayerProblem.of(problem.W0, problem.H - problem.gram.ridge / 2 * np.eye(len(problem.H)))
    return _exact(less, mask)


def _dual_descends(problem: LayerProblem, mask: Any, rho: float, factor: Any, k: admm.State) -> admm.State:
    after = _admm_step(problem, mask, rho, factor, k)
    return after._replace(U=2 * k.U - after.U)


def _dual_forgotten(problem: LayerProblem, mask: Any, rho: float, factor: Any, k: admm.State) -> admm.State:
    return _admm_step(problem, mask, rho, factor, k)._replace(U=np.zeros_like(k.U))


def _only_gram(problem: LayerProblem, d: Any) -> LayerProblem:
    H = problem.H / d / d[:, None]
    return LayerProblem.of(problem.W0, (H + H.T) / 2)


def _from_zero(problem: LayerProblem) -> maiht.State:
    zero = np.zeros_like(problem.W0)
    return maiht.State(zero, zero, zero, zero)


def _uncompensated(w: Any, inverse: Any, j: int) -> Any:
    after = w.copy()
    after[j] = 0.0
    return after, _remove(w, inverse, j)[1]


def _inverse_rho(penalty: L0 | L1, X: Any, rho: float) -> Any:
    return _envelope(penalty, X, 1 / rho)


def _raw_difference(penalty: L0 | L1, X: Any, rho: float) -> Any:
    value, gradient = _envelope(penalty, X, rho)
    return value, gradient * rho


def _diagonal_of_H(problem: LayerProblem, sparsity: Any) -> float:
    """The separable bound with diag H, which is not below H, in the place of the ridge."""
    cost = np.diag(problem.H) * np.square(problem.W0) / 2
    if isinstance(sparsity, L0):
        return float(np.minimum(cost, sparsity.lam).sum())
    cheap = np.sort(windows(sparsity, cost), axis=1)
    return float(cheap[:, : cheap.shape[1] - sparsity.keep].sum())


def _second_best(problem: LayerProblem, k: int, lam: float = 0.0) -> enumeration.Optimum:
    """The best support that leaves out the largest weight that the optimum keeps, where it keeps one."""
    best = _optimum(problem, k, lam)
    if not 0 < k < len(problem.H):
        return best
    rows, values, M = [], [], np.linalg.inv(problem.H).astype(np.float64)
    for w0, w in zip(problem.W0, best.W, strict=True):
        removed = np.flatnonzero(w == 0)
        removed[0] = np.argmax(np.abs(w))
        rows.append(enumeration.without(M, w0, removed))
        values.append(float(enumeration.removal_costs(M, w0, removed[None])[0]))
    return enumeration.Optimum(np.array(values), np.array(rows))


def _without_refit(M: Any, w0: Any, removed: Any) -> Any:
    D = np.zeros((len(removed), len(w0)))
    np.put_along_axis(D, removed, w0[removed], axis=1)
    return ((D @ np.linalg.inv(M)) * D).sum(axis=1) / 2


def _prox_of_step_one(problem: LayerProblem, g: Any, s: float, k: iht.State) -> iht.State:
    return k._replace(x=g.prox(k.x - s * problem.grad(k.x), 1.0))


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), tuple(by.split()))


def _drop_alone(problem: LayerProblem, k: swaps.State) -> Any:
    w, A = k.w[k.kept][:, None], np.diag(k.A)[:, None]
    return (np.square(k.g[k.removed]) / k.s - np.square(w) / A) / 2


def _drop_by_old_inverse(problem: LayerProblem, k: swaps.State) -> Any:
    g = k.g[k.removed]
    return (np.square(g) / k.s - np.square(k.w[k.kept][:, None] + k.B * g / k.s) / np.diag(k.A)[:, None]) / 2


def _old_inverse(problem: LayerProblem, row: int, k: swaps.State, a: int, b: int) -> swaps.State:
    return _swap_step(problem, row, k, a, b)._replace(A=k.A, B=k.B, s=k.s)


def _old_weights(problem: LayerProblem, row: int, k: swaps.State, a: int, b: int) -> swaps.State:
    w, after = k.w.copy(), _swap_step(problem, row, k, a, b)
    w[k.kept[a]], w[k.removed[b]] = 0.0, -k.g[k.removed[b]] / k.s[b]
    return after._replace(w=w, g=(w - problem.W0[row]) @ problem.H)


def _swapped_unfitted(problem: LayerProblem, budget: Any, row: int, S: Any, most: int | None) -> Any:
    w, gains = _swap_row(problem, budget, row, S, most)
    return np.where(w != 0, problem.W0[row], 0.0), gains


def _interval_for(k: int, s: float) -> Any:
    return lambda z, rank, step: _interval(z, min(rank + k, len(z)), s or step)


def _bound(weight: bool) -> Any:
    """The score bound without its factor |w + delta|, or without its second term."""
    return lambda w, d, g, L: np.abs(d) * np.abs(g) + weight * L * np.linalg.norm(d)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("ridge in the prox: keep test without 1 + s mu", projections, "ridge_prox", _unshrunken, "ridge-in-prox"),
    _mutant("L1: keeps what it should shrink", L1, "prox", _hard, "moreau-decomposition firmly-nonexpansive"),
    _mutant("groups: rank by mean instead of norm", KeepGroups, "windows", _by_mean, "group-projection"),
    _mutant(
        "top-k: keeps the smallest", sparsity, "largest", _smallest, "top-k-distance top-k-expansion penalty-interval"
    ),
    _mutant("top-k: keeps one too few", sparsity, "largest", lambda a, k: _largest(a, k - 1), "top-k-distance"),
    _mutant("top-k: expansion constant 2 for 2.618", top_k, "expansion", lambda K, k, n: 2.0, "top-k-expansion"),
    _mutant("top-k: taken to be nonexpansive", top_k, "expansion", lambda K, k, n: 1.0, "top-k-expansion"),
    _mutant("adaptive lam: step left out", top_k, "penalty_interval", _interval_for(0, 0.5), "penalty-interval"),
    _mutant("adaptive lam: one rank too far", top_k, "penalty_interval", _interval_for(1, 0), "penalty-interval"),
    _mutant("wanda: by magnitude under a diagonal metric", wanda, "wanda", _by_magnitude, "diagonal-projection"),
    _mutant(
        "least squares: G_SS W0_S", linalg, "least_squares_exact", _no_cross_terms, f"{RESTORED} scaling-equivariant"
    ),
    _mutant("least squares: half of the ridge", linalg, "least_squares_exact", _half_ridge, RESTORED),
    _mutant("OBS: stale inverse", removal, "remove", lambda w, M, j: (_remove(w, M, j)[0], M), "obs-order"),
    _mutant("OBS: the others are not compensated", removal, "remove", _uncompensated, "obs-cost obs-order"),
    _mutant(
        "swaps: drop cost before the addition", swaps, "pair_gains", _drop_alone, "swap-gain-exact one-swap-optimal"
    ),
    _mutant(
        "swaps: drop cost by the old inverse",
        swaps,
        "pair_gains",
        _drop_by_old_inverse,
        "swap-gain-exact one-swap-optimal",
    ),
    _mutant("swaps: the inverse is not updated", swaps, "step", _old_inverse, "swap-gain-exact"),
    _mutant("swaps: the weights are not updated", swaps, "step", _old_weights, "swap-gain-exact one-swap-optimal"),
    _mutant("swaps: across windows", swaps, "exchangeable", lambda sparsity, k: True, "swaps-descend"),
    _mutant(
        "swaps: the last weights are not refitted",
        swaps,
        "swap_row",
        _swapped_unfitted,
        "swaps-descend one-swap-optimal",
    ),
    _mutant("ADMM: the dual sign is flipped", admm, "step", _dual_descends, "admm-rate"),
    _mutant("ADMM: the dual is forgotten", admm, "step", _dual_forgotten, "admm-rate"),
    _mutant("scaling: only the Gram is scaled", restoration, "change_inputs", _only_gram, "scaling-equivariant"),
    _mutant("maiht: starts at zero", maiht, "start", _from_zero, "dominates-wanda"),
    _mutant("envelope: rho for 1/rho", envelope, "envelope", _inverse_rho, "envelope-value envelope-gradient"),
    _mutant("envelope: gradient not divided by rho", envelope, "envelope", _raw_difference, "envelope-gradient"),
    _mutant(
        "envelope: constant 1/rho",
        envelope,
        "lipschitz",
        lambda r, b: 1 / r,
        "envelope-lipschitz score-stability cosine-lipschitz",
    ),
    _mutant("scores: bound without |w + delta|", envelope, "score_bound", _bound(True), "score-stability"),
    _mutant("scores: constant gradient", envelope, "score_bound", _bound(False), "score-stability mask-stability"),
    _mutant("enumeration: a sub-optimal support", enumeration, "optimum", _second_best, "exact-optimum one-swap"),
    _mutant("enumeration: no refit", enumeration, "removal_costs", _without_refit, "exact-optimum one-swap"),
    _mutant("bound: diag H in place of the ridge", optimality, "separable_bound", _diagonal_of_H, "separable-below"),
    _mutant("iht: threshold of step 1", iht, "step", _prox_of_step_one, "optimum-is-fixed"),
    _mutant("iht: moves by twice the step", iht, "step", _doubled, "optimum-is-fixed"),
)
