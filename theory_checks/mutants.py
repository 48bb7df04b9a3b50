"""Planted defects, by name. Each is patched into the running code; some claim or contract clause must notice.

Most are real: they were found in released pruning code, or made here once and caught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np

import solvers
from solvers import door, iht, linalg, maiht, problem, refine, schedule, sparsity
from solvers.problem import Gram, LayerProblem
from solvers.sparsity import L0, L1, Budget, KeepNofM
from theory_checks import (
    mutants_convex,
    mutants_penalty,
    mutants_perspective,
    mutants_rates,
    mutants_risk,
    mutants_rungs,
    mutants_solvers,
    mutants_structure,
    mutants_swap_twin,
    mutants_twins,
)
from theory_checks.claims import CLAIMS
from theory_checks.contract import CONTRACT
from theory_checks.mutant import Mutant, Patch
from theory_checks.scaling import EXPERIMENTS
from theory_checks.synthetic import Case, cases

_maiht_step, _iht_step, _cubic, _largest = maiht.step, iht.step, schedule.cubic, sparsity.largest
_bound, _value, _normalised = linalg.lambda_max_bound, LayerProblem.value, Gram.normalised


def _doubled(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda problem, sparsity, s, k: step(problem, sparsity, 2 * s, k)


def _always_z(problem: LayerProblem, sparsity: Any, s: float, k: maiht.State) -> maiht.State:
    after = _maiht_step(problem, sparsity, s, k)
    return after._replace(x=after.z, Fx=problem.value(after.z) + sparsity.value(after.z))


def _reports_v(problem: LayerProblem, sparsity: Any, s: float, k: maiht.State) -> maiht.State:
    after = _maiht_step(problem, sparsity, s, k)
    return after._replace(x=after.z, Fx=after.Fv)


def _too_early(goal: Any, shape: tuple[int, int], iters: int, ramp: float) -> Any:
    stage = _cubic(goal, shape, 2 * iters, ramp)
    return lambda t, x, last: stage(t, x, last) if t < iters // 2 else None


def _threshold(scores: Any, keep: int) -> Any:
    n = scores.shape[-1]
    if keep <= 0 or keep >= n:
        return np.full(scores.shape, keep >= n)
    return scores >= np.sort(scores, axis=-1)[..., n - keep, None]


def _wrong_axis(self: KeepNofM, scores: Any) -> Any:
    out, n = scores.shape
    return _largest(scores.T.reshape(out, -1, self.of), self.keep).reshape(n, out).T


def _expanded(self: LayerProblem, W: Any) -> float:
    H, W0 = self.H, self.W0
    return float(np.vdot(W @ H, W) / 2 - np.vdot(W @ H, W0) + np.vdot(W0 @ H, W0) / 2)


def _without_ridge(self: Gram, mu: float) -> Any:
    gram, scale = _normalised(self, 0.0)
    return Gram(gram.H, ridge=mu), scale


def _squared_scale(self: Gram, mu: float) -> Any:
    scale = np.where(self.norms > 0, self.norms**2, 1.0)
    H = self.H / scale / scale[:, None]
    return Gram((H + H.T) / 2 + mu * np.eye(len(H)), ridge=mu), scale


def _live_dead(self: Gram, mu: float) -> Any:
    gram, scale = _normalised(self, mu)
    return gram, np.where(self.norms > 0, scale, 1.0)


def _boastful_ridge(self: Gram, mu: float) -> Any:
    gram, scale = _normalised(self, mu)
    return Gram(gram.H, ridge=20 * mu), scale


def _off_support(problem: LayerProblem, mask: Any, W: Any, steps: int, s: float) -> Any:
    return W - s * problem.grad(W)


def _divergent(problem: LayerProblem, mask: Any, W: Any, steps: int, s: float) -> Any:
    for _ in range(steps):
        W = W - 4 * s * np.where(mask, problem.grad(W), 0.0)
    return W


def _unrefined(problem: LayerProblem, mask: Any, W: Any, **options: Any) -> Any:
    return linalg.least_squares_pcg(problem, mask, W, tol=0.0, iters=1)


def _by_square(problem: LayerProblem, budget: Budget) -> Any:
    kept = budget.mask(np.abs(problem.W0) * problem.norms**2)
    return solvers.Solution(np.where(kept, problem.W0, 0.0))


def _neighbours(problem: LayerProblem, budget: Budget) -> Any:
    kept = budget.mask(np.abs(problem.W0) * np.roll(problem.norms, 1))
    return solvers.Solution(np.where(kept, problem.W0, 0.0))


def _by_chance(scores: Any, keep: int) -> Any:
    return _largest(scores * (1 + np.random.default_rng().random(scores.shape) / 2), keep)


def _table(name: str, run: Any) -> Patch:
    return Patch(solvers, "METHODS", {**solvers.METHODS, name: replace(solvers.METHODS[name], run=run)})


def _defaults(function: Any, **changes: float) -> Patch:
    return Patch(function, "__kwdefaults__", {**function.__kwdefaults__, **changes})


def _mutant(name: str, *patches: Patch, by: tuple[str, ...]) -> Mutant:
    return Mutant(name, patches, by)


LAYERWISE: tuple[Mutant, ...] = (
    _mutant(
        "maiht: the step is 1.9/L, reported as 0.95/L",
        Patch(maiht, "step", _doubled(_maiht_step)),
        by=("safeguarded-step", "sufficient-decrease", "residual-rate"),
    ),
    _mutant("maiht: safety = 1.9 by default", _defaults(maiht.maiht, safety=1.9), by=("step-size",)),
    _mutant(
        "iht: the step is 1.9/L, reported as 0.95/L", Patch(iht, "step", _doubled(_iht_step)), by=("one-step-descent",)
    ),
    _mutant("maiht: no safeguard", Patch(maiht, "step", _always_z), by=("safeguarded-step", "safeguard")),
    _mutant("maiht: no safeguard, and F(v) reported", Patch(maiht, "step", _reports_v), by=("objective-recomputed",)),
    _mutant(
        "L0: threshold lam s, without the root",
        Patch(L0, "prox", lambda self, Z, s: np.where(np.abs(Z) > self.lam * s, Z, 0.0)),
        by=("prox-minimises", "fixed-point", "scale"),
    ),
    _mutant(
        "L0: threshold sqrt(lam s), without the 2",
        Patch(L0, "prox", lambda self, Z, s: np.where(np.abs(Z) > sqrt(self.lam * s), Z, 0.0)),
        by=("prox-minimises", "fixed-point"),
    ),
    _mutant(
        "L1: hard instead of soft threshold",
        Patch(L1, "prox", lambda self, Z, s: np.where(np.abs(Z) > self.lam * s, Z, 0.0)),
        by=("prox-minimises",),
    ),
    _mutant("budget: a threshold instead of a count", Patch(sparsity, "largest", _threshold), by=("exact-count",)),
    _mutant(
        "budget: keeps one more",
        Patch(sparsity, "largest", lambda a, keep: _largest(a, keep + 1)),
        by=("exact-count", "pattern", "keep_nothing"),
    ),
    _mutant(
        "budget: ranks by value, not by magnitude",
        Patch(Budget, "prox", lambda self, Z, s=1.0: np.where(self.mask(Z), Z, 0.0)),
        by=("prox-minimises",),
    ),
    _mutant("budget: chosen by chance", Patch(sparsity, "largest", _by_chance), by=("deterministic",)),
    _mutant(
        "n:m: windows along the outputs", Patch(KeepNofM, "mask", _wrong_axis), by=("exact-count", "pattern", "rows")
    ),
    _mutant(
        "n:m: windows of four whatever m", Patch(KeepNofM, "windows", lambda self, A: A.reshape(-1, 4)), by=("pattern",)
    ),
    _mutant(
        "n:m: windows straddle the rows",
        Patch(KeepNofM, "windows", lambda self, A: A.reshape(-1, self.of)),
        by=("refuses",),
    ),
    _mutant("schedule: ends before the budget is reached", Patch(maiht, "cubic", _too_early), by=("exact-count",)),
    _mutant(
        "problem: the Gram counts twice in the gradient",
        Patch(LayerProblem, "grad", lambda self, W: 2 * (W - self.W0) @ self.H),
        by=("token-form",),
    ),
    _mutant(
        "problem: the gradient has the wrong sign",
        Patch(LayerProblem, "grad", lambda self, W: (self.W0 - W) @ self.H),
        by=("token-form", "descends"),
    ),
    _mutant("problem: NaN is let in", Patch(LayerProblem, "__post_init__", lambda self: None), by=("refuses",)),
    _mutant("problem: the expanded quadratic", Patch(LayerProblem, "value", _expanded), by=("token-form",)),
    _mutant(
        "problem: no half in the objective",
        Patch(LayerProblem, "value", lambda self, W: 2 * _value(self, W)),
        by=("token-form",),
    ),
    _mutant(
        "linalg: the bound is an estimate from below",
        Patch(problem, "lambda_max_bound", lambda H: 0.8 * _bound(H)),
        by=("lipschitz-bound",),
    ),
    _mutant("normalised: the ridge is left out", Patch(Gram, "normalised", _without_ridge), by=("normalisation",)),
    _mutant(
        "normalised: scaled by the variance", Patch(Gram, "normalised", _squared_scale), by=("first-step-is-wanda",)
    ),
    _mutant("normalised: dead inputs compete", Patch(Gram, "normalised", _live_dead), by=("first-step-is-wanda",)),
    _mutant("bound: a diagonal above the admissible", Patch(Gram, "normalised", _boastful_ridge), by=("lower-bound",)),
    _mutant(
        "refine: updates leave the support", Patch(refine, "gradient_steps", _off_support), by=("refinement-descends",)
    ),
    _mutant("refine: step 3.8/L", Patch(refine, "gradient_steps", _divergent), by=("refinement-descends",)),
    _mutant(
        "refine: one conjugate gradient step",
        Patch(refine, "least_squares_pcg", _unrefined),
        by=("masked-least-squares",),
    ),
    _mutant("wanda: norms of the neighbouring inputs", _table("wanda", _neighbours), by=("inputs", "diagonal_gram")),
    _mutant("wanda: mean squares instead of norms", _table("wanda", _by_square), by=("diagonal_gram",)),
    _mutant(
        "door: one-shot weights come back through the scaling",
        Patch(solvers, "run", lambda method, layer, budget, **options: _round_trip(method, layer, budget, **options)),
        by=("keep_everything",),
    ),
)

_run = door.run


def _round_trip(method: Any, layer: LayerProblem, budget: Any, **options: Any) -> door.Run:
    done = _run(method, layer, budget, **options)
    return done._replace(weight=done.problem.original(done.refined))


MUTANTS = (
    *LAYERWISE,
    *mutants_structure.MUTANTS,
    *mutants_perspective.MUTANTS,
    *mutants_penalty.MUTANTS,
    *mutants_solvers.MUTANTS,
    *mutants_twins.MUTANTS,
    *mutants_swap_twin.MUTANTS,
    *mutants_rungs.MUTANTS,
    *mutants_rates.MUTANTS,
    *mutants_convex.MUTANTS,
    *mutants_risk.MUTANTS,
)


NOTICED = (ArithmeticError, ValueError, AssertionError)  # in the middle of a mutated computation


def kills(mutant: Mutant, checks: Iterable[str], most: int, seed: int = 0) -> dict[str, int | None]:
    """After how many of `most` cases each claim, clause or experiment notices the mutant, None where it survives.

    An exception in the middle of a mutated computation counts as a notice; an inconclusive experiment does not.
    """
    found: dict[str, int | None] = dict.fromkeys(checks)
    with mutant.planted(), np.errstate(all="ignore"):
        for once in found.keys() - CLAIMS.keys():
            holds = _contract_holds(once) if once in CONTRACT else _experiment_holds(once, seed)
            found[once] = None if holds else 1
        for n, case in enumerate(cases(most, seed), start=1):
            for claim in (name for name in found if name in CLAIMS and found[name] is None):
                found[claim] = None if _claim_holds(claim, case) else n
    return found


def _claim_holds(claim: str, case: Case) -> bool:
    try:
        return all(c.outcome != "fails" for c in CLAIMS[claim](case))
    except NOTICED:
        return False


def _experiment_holds(name: str, seed: int) -> bool:
    try:
        return EXPERIMENTS[name](seed).outcome != "fails"
    except NOTICED:
        return False


def _contract_holds(clause: str) -> bool:
    for method in solvers.METHODS.values():
        try:
            CONTRACT[clause](method)
        except NOTICED:
            return False
    return True
