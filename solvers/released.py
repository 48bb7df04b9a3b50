"""Recipes as their authors released them, composed from the steps of the proved methods; no theorem covers them."""

from __future__ import annotations

import numpy as np

from solvers import admm, maiht
from solvers.iterate import iterate
from solvers.problem import LayerProblem
from solvers.refine import gradient_steps
from solvers.refusal import Refusal
from solvers.schedule import Schedule, constant
from solvers.solution import Solution
from solvers.sparsity import L0, Array, Budget, KeepNofM, KeepPerLayer, Sparsity

ROUNDING = 1e-9  # of f, relative: a polish may rise by no more


def maiht_released(
    problem: LayerProblem,
    sparsity: KeepPerLayer | KeepNofM,
    *,
    iters: int = 20,
    step: float = 1e-3,
    polish: int = 30,
) -> Solution:
    """mAIHT as its authors released it: a penalty steered towards the budget, a projection, a polish.

    A reconstruction from the behaviour of https://github.com/zuoooooooo/mAIHT-pruning (lib/mAPM.py, March 2025).
    Differences from `maiht`: the step is an absolute number that is not compared with 1/L; the penalty changes in
    every iteration, lam <- lam (1 + target - delta - sparsity of x); the budget is met by one projection at the
    end, then `polish` masked gradient steps follow. For n:m the threshold is the n:m projection from the first
    iteration. The release keeps one entry more than the budget; here the count is exact.

    Parameters
    ----------
    step : step size on the unit-diagonal Gram; 0 means 0.97/L
    polish : gradient steps on the final support
    """
    s = step if step > 0 else 0.97 / problem.lipschitz
    schedule = constant(sparsity, iters) if isinstance(sparsity, KeepNofM) else steer(sparsity, problem.W0, iters, s)
    found = iterate(maiht.step, maiht.start(problem), problem, schedule, s=s, goal=sparsity)
    mask = sparsity.mask(np.abs(found.weight))
    projected = np.where(mask, found.weight, 0.0)
    W = gradient_steps(problem, mask, projected, polish, s)
    before, after = problem.value(projected), problem.value(W)
    if not after <= before + ROUNDING * abs(before):
        raise Refusal(
            f"the polish diverged: f rose from {before:.3g} to {after:.3g}; step * L = {s * problem.lipschitz:.3g}. "
            "Keep it below 2; step = 0 takes 0.97/L."
        )
    return Solution(W, found.stop, found.trace)


def steer(budget: KeepPerLayer, W0: Array, iters: int, s: float) -> Schedule:
    """The released controller: a first threshold that removes 5 % (3 %, 1 % for low targets), then lam moves."""
    target = 1 - budget.keep / W0.size
    first = 0.95 if target > 0.35 else 0.99 if target < 0.15 else 0.97
    delta = 0.015 if target > 0.35 else 0.01
    threshold = np.sort(np.abs(W0), axis=None)[::-1][int(first * W0.size)]

    def penalty(t: int, x: Array, last: Sparsity | None) -> Sparsity | None:
        lam = last.lam if isinstance(last, L0) else threshold**2 / (2 * s)
        return L0(lam * (1 + target - delta - np.mean(x == 0))) if t < iters else None

    return penalty


def admm_released(
    problem: LayerProblem, sparsity: Budget, *, iters: int = 20, refresh: int = 15, rho: float = 1.0
) -> Solution:
    """Boza's ADMM pruner as the released default branch runs it.

    A reconstruction from the behaviour of https://github.com/fmfi-compbio/admm-pruning (commit 8039208). Difference
    from `admm`: under a whole-layer budget the ramp is computed and ignored, the mask has its final sparsity from the
    first round on. Budgets per row and n:m ramp as in `admm`. Ties are cut, so that the count is exact.

    Parameters
    ----------
    iters : updates of the weight
    refresh : rounds in which the mask is chosen anew
    rho : weight of the coupling W = Z
    """
    masks = admm.at_once if isinstance(sparsity, KeepPerLayer) else admm.ramp
    return admm.run(problem, sparsity, masks, iters, refresh, rho)
