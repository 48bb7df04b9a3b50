"""Fast twins of the pruners that update weights: every step judged from outside, the selection bit for bit.

Letters: W, Z, U of `solvers.admm`, D, V of `solvers.alps`, E, U of `solvers.sparsegpt`; Y the weight from which a round
is decided, read off copies of what the twin held. What rounding may add is counted in the precision of the twin, and
what a factor of the Gram lost to its condition in float64, where it was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from solvers import admm, alps, sparsegpt
from solvers.array import Place, to_numpy
from solvers.gpu import admm as fast_admm
from solvers.gpu import alps as fast_alps
from solvers.gpu import sparsegpt as fast_sparsegpt
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.sparsity import Array, Budget
from theory_checks.certificate import Certificate, allowance
from theory_checks.support import violations, windows
from theory_checks.synthetic import Case, Check

HERE = Place.of(np.zeros(1), "float64")
SINGLE = Place.of(np.zeros(1), "float32")
WHERE = "derived here"
RHO, DAMPING, REFRESH = 1.0, 0.01, 15


def twin_admm(
    problem: LayerProblem, budget: Budget, begin: admm.State, first: int, n: int = 6, place: Place = HERE
) -> Certificate:
    """Every round of the twin solves for W from its own Z and U, and splits W + U by the mask of the reference.

    Y = Z+ + U+ is W + U of `solvers.admm` (1), Z+ = mask * Y and U+ = Y - Z+ exactly, the mask that of (4) for |Y| or
    the last one. Assumptions: H + rho I positive definite. Measured: the largest violation in units of the magnitudes
    that meet in it. Why: supports of Z and U are disjoint. Where: derived here. Tight: bound 0.
    """
    claim = "Z+ + U+ = W + U, Z+ = mask (W + U) exactly, for every round of the twin"
    layer, to = Layer(problem, place, fast_admm.BUFFERS), fast_admm.pull(problem, RHO, place)
    stage, choose = fast_admm.stages(budget, problem.shape, REFRESH), admm.ramp(budget, problem.shape, REFRESH)
    k, kept, worst = fast_admm.State(*map(place.put, begin)), begin.Z != 0, [0.0]
    mask: Any = place.xp.asarray(kept, device=place.device)
    factor = admm.factored(problem, RHO)
    for t in range(first, first + n):
        before = admm.State(*copies(*k))
        k, mask = fast_admm.step(layer, to, budget, stage(t, problem.W0, None), mask, k)
        Z, U = copies(*k)
        Y = Z + U
        fresh = choose(t, np.abs(Y))
        kept = kept if fresh is None else fresh
        pull = RHO * (np.abs(before.Z) + np.abs(before.U) + np.abs(problem.W0)) + drift(problem)
        off = np.abs(Y - admm.weight(problem, RHO, factor, before) - before.U)
        split = np.array_equal(Z, np.where(kept, Y, 0.0)) and np.array_equal(U, Y - Z)
        worst.append(_in_units(off, problem, RHO, pull, before.U, place) if split else np.inf)
    return Certificate(
        "twin-admm", claim, WHERE, float(np.max(worst)), 0.0, allowance(1.0, problem.shape[1], place.precision)
    )


def twin_alps(problem: LayerProblem, budget: Budget, n: int = 24, place: Place = HERE) -> Certificate:
    """Every round of the twin solves for W from its own D and V, projects Y = W + V/rho exactly, and prices the rest.

    D+ is the reference's projection of the same Y, bit for bit, V+ = rho (Y - D+); rho grows and the run ends as
    `solvers.alps` (4) says for the supports that the twin found. Assumptions: H + rho I positive definite. Measured:
    the largest violation in units of the magnitudes that meet in it. Where: derived here. Tight: bound 0.
    """
    claim = "Y = W + V/rho, D+ = P(Y) exactly, V+ = rho (Y - D+), rho by (4), for every round of the twin"
    layer, eigen = Layer(problem, place, fast_alps.BUFFERS), fast_alps.eigen(problem, place)
    rho, checked, worst = 0.1, budget.prox(problem.W0.astype(place.dtype)) != 0, [0.0]
    for t, r in enumerate(fast_alps.rounds(layer, budget, eigen, rho, n), start=1):
        Y, D, V, D_before, V_before = copies(r.Y, *r.after, *r.before)
        support, settled = D != 0, False
        pull = rho * (D_before - problem.W0) - V_before - (0.0 if problem.R is None else problem.R)
        W = problem.W0 + np.linalg.solve(problem.H + rho * np.eye(len(problem.H)), pull.T).T
        off = np.abs(Y - W - V_before / rho) + np.abs(V / rho - (Y - D))
        size = rho * (np.abs(D_before) + np.abs(problem.W0)) + np.abs(V_before) + drift(problem)
        exact = np.array_equal(D, budget.prox(Y)) and r.rho == rho
        if t % alps.CHECK == 0:
            changed = int(np.count_nonzero(support ^ checked))
            settled, rho = changed == 0, rho * alps.growth(changed, int(np.count_nonzero(support)))
            checked = support
        miss = _in_units(off, problem, r.rho, size, V_before / r.rho, place)
        worst.append(miss if exact and settled == r.settled else np.inf)
    return Certificate(
        "twin-alps", claim, WHERE, float(np.max(worst)), 0.0, allowance(1.0, problem.shape[1], place.precision)
    )


def _in_units(off: Array, problem: LayerProblem, rho: float, pull: Array, dual: Array, place: Place) -> float:
    """A difference of Y in units of what meets in it: W0, the dual, pull (H + rho I)^-1, and what its factor lost."""
    spectrum = np.linalg.eigvalsh(problem.H) + rho
    reach = float(np.linalg.norm(pull, axis=1).max()) / float(spectrum[0])
    lost = float(spectrum[-1] / spectrum[0]) * float(np.finfo(np.float64).eps / np.finfo(place.dtype).eps)
    scale = float((np.abs(problem.W0) + np.abs(dual)).max()) + reach * (1 + lost)
    return relative(float(off.max()), scale)


def twin_sparsegpt(problem: LayerProblem, budget: Budget, blocksize: int, place: Place = HERE) -> Certificate:
    """The twin's weights and errors are those of one pass, and in every group the removals with the least score go.

    W_start - W = E U with U the factor of the reference, E vanishes where W stays, and |w_j| / U_jj of what goes is at
    most that of what stays, on the weights that the errors to their left leave. Assumptions: H_d positive definite.
    Measured: the largest violation in units of the magnitudes that meet in it. Why: (4), (5) of `solvers.sparsegpt`
    have one solution for each mask. Where: derived here. Tight: bound 0.
    """
    claim = "W_start - W = E U, E W = 0, removed scores <= kept scores in every group"
    k = fast_sparsegpt.prune(fast_sparsegpt.start(problem, DAMPING, place), budget, blocksize)
    W, E = (array.T for array in copies(k.W, k.E))
    H = sparsegpt.damped(problem.H, DAMPING)
    U, spectrum = sparsegpt.upper_factor(H), np.linalg.eigvalsh(H)
    M = U.T @ U
    start = problem.W0 if problem.R is None else problem.W0 - problem.R @ M
    lost = float(spectrum[-1] / spectrum[0]) * float(np.finfo(np.float64).eps / np.finfo(place.dtype).eps)
    size = np.abs(start) + np.abs(E) @ np.abs(U)
    scale = float(size.max()) * (1 + lost) + lost * float((drift(problem) * np.ones_like(W) @ np.abs(M)).max())
    roots = (problem.norms > 0) / np.diag(U)
    off: list[float] = [float(np.abs(start - W - E @ U).max())]
    for block, period, share in sparsegpt.blocks(budget, W.shape[1], blocksize):
        for first in range(block.start, block.stop, period):
            group = slice(first, min(first + period, block.stop))
            cost = np.abs(start - E[:, :first] @ U[:first])[:, group] * roots[group]
            stays = W[:, group] != 0
            gone, least = windows(share, np.where(stays, 0.0, cost)), windows(share, np.where(stays, cost, np.inf))
            unit = float(roots[group].max()) or 1.0
            off.append(float((gone.max(axis=1) - least.min(axis=1)).max()) / unit)
            off.append(np.inf if violations(share, W[:, group]) else 0.0)
    worst = relative(float(np.max(off)), scale) if not np.any(E * W) else np.inf
    return Certificate("twin-sparsegpt", claim, WHERE, worst, 0.0, allowance(1.0, W.shape[1], place.dtype))


def copies(*arrays: Any) -> list[Array]:
    """Float64 NumPy copies."""
    return [to_numpy(array, "weight") for array in arrays]


def drift(problem: LayerProblem) -> Array | float:
    """|R|, 0 where nothing drifted."""
    return 0.0 if problem.R is None else np.abs(problem.R)


def relative(off: float, scale: float) -> float:
    """off / scale; off itself where nothing meets."""
    return off / scale if scale > 0 else off


def drifted(case: Case) -> LayerProblem:
    """The judge's quadratic written around another weight: R and e0 are not zero."""
    judge = case.judge
    return judge.around(judge.W0 + case.some_weight() / 8)


def problems(case: Case) -> Iterator[tuple[LayerProblem, Place]]:
    """With and without drift, in float64, and in float32."""
    yield case.judge, HERE
    yield drifted(case), HERE
    yield case.judge, SINGLE


def _admm(case: Case) -> Iterator[Certificate]:
    for problem, place in problems(case):
        for budget in case.budgets:
            some = budget.prox(case.some_weight())
            other = admm.State(some, np.where(some != 0, 0.0, case.some_weight(3)))
            yield twin_admm(problem, budget, admm.State(problem.W0, np.zeros_like(problem.W0)), 0, place=place)
            yield twin_admm(problem, budget, other, REFRESH - 3, place=place)


def _alps(case: Case) -> Iterator[Certificate]:
    for problem, place in problems(case):
        for budget in case.budgets:
            yield twin_alps(problem, budget, place=place)


def _sparsegpt(case: Case) -> Iterator[Certificate]:
    for problem, place in problems(case):
        for budget in case.budgets:
            for blocksize in (3, 128):
                yield twin_sparsegpt(problem, budget, blocksize, place)


CHECKS: dict[str, Check] = {"twin-admm": _admm, "twin-alps": _alps, "twin-sparsegpt": _sparsegpt}
