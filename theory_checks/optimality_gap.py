"""How far rows are from their best support at most: the perspective bound against enumeration and against solvers.

Letters: b the best dual value of a row (`perspective`), proved after its rounding is taken off; F* the row's exact
optimum, F(w) its objective; all without e0.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np

from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import Array, KeepNofM, KeepPerRow, Sparsity
from theory_checks import perspective
from theory_checks.certificate import Certificate, allowance
from theory_checks.enumeration import MOST, optimum, removal_costs
from theory_checks.paths import tightest
from theory_checks.perspective import Bound, Counts
from theory_checks.synthetic import Case, Check

WHERE = "perspective relaxation: Frangioni, Gentile 2006; Dong, Chen, Linderoth 2015"
BRIEF = 20  # proximal steps on a synthetic layer


def counts(sparsity: Sparsity, W: Array) -> Counts:
    """(rows, windows) inputs that a row may keep: n of every m, k of a row, or under other patterns those of W."""
    if isinstance(sparsity, KeepNofM):
        return np.full((len(W), W.shape[1] // sparsity.of), sparsity.keep)
    kept = np.count_nonzero(W, axis=1)[:, None]
    return np.full_like(kept, sparsity.keep) if isinstance(sparsity, KeepPerRow) else kept


def row_objectives(problem: LayerProblem, W: Array) -> tuple[Array, Array]:
    """(rows,) f of every row without e0, and what rounding may add to it."""
    D = W - problem.W0
    r = np.zeros_like(D) if problem.R is None else problem.R
    terms = (np.abs(D) * (np.abs(D) @ np.abs(problem.H) / 2 + np.abs(r))).sum(axis=1)
    return (D * (D @ problem.H / 2 + r)).sum(axis=1), allowance(1.0, D.shape[1]) * terms


def optimality_gap(problem: LayerProblem, W: Array, bound: Bound | Refusal) -> Certificate:
    """The proved perspective bound, summed over rows, does not exceed F(W); F / b is how far W is from optimal at most.

    Assumptions: H positive definite in float64, `bound` made for counts that every row of W obeys. Why: weak duality.
    Where: theory O3. Upper bound; tight for uncorrelated inputs.
    """
    name, claim = "optimality-gap", "perspective bound <= F(W), row by row summed; F / bound: how far at most"
    reason = str(bound) if isinstance(bound, Refusal) else ""
    if isinstance(bound, Bound) and not np.isfinite(bound.proved).all():
        reason = "H - D is lost in rounding: no diagonal is proved"
    if reason or isinstance(bound, Refusal):
        return Certificate(name, claim, WHERE, 0.0, 0.0, applies=reason)
    F, high = row_objectives(problem, W)
    terms = float((np.abs(bound.value) + bound.rounding + np.abs(F) + high).sum())
    rounding = float(high.sum()) + allowance(terms, len(F))
    return Certificate(name, claim, WHERE, float(bound.proved.sum()), float(F.sum()), rounding)


def bound_of(problem: LayerProblem, keep: Counts, **options: int) -> Bound | Refusal:
    """`perspective.perspective_bound`, or why there is none."""
    try:
        return perspective.perspective_bound(problem, keep, **options)
    except Refusal as refusal:
        return refusal


def windowed_optimum(problem: LayerProblem, keep: int, of: int) -> Array:
    """(rows,) F* where `keep` of every `of` neighbouring inputs stay, by enumeration; at most MOST inputs."""
    n, M = len(problem.H), np.linalg.inv(problem.H).astype(np.float64)
    removed = [[*combinations(range(start, start + of), of - keep)] for start in range(0, n, of)]
    every = np.array([sum(choice, ()) for choice in product(*removed)], dtype=np.int64)
    return np.array([removal_costs(M, w0, every).min() for w0 in problem.W0])


def perspective_below(problem: LayerProblem, keep: Counts, best: Array) -> Certificate:
    """b <= F* of every row, F* by enumeration of all supports that keep as many inputs in every window.

    Assumptions: at most MOST inputs, no drift, lambda_min(H) > 0. Why: weak duality. Where: theory O3. Upper bound,
    tight for uncorrelated inputs. F* comes from the inverse of H, and rounds as its condition says.
    """
    name, claim = "perspective-below", "perspective bound <= F* by enumeration, every row"
    bound = perspective.perspective_bound(problem, keep, iters=BRIEF, ascents=1)
    spread = allowance(float(np.linalg.cond(problem.H)), len(problem.H))
    return tightest(name, claim, WHERE, bound.proved, best, spread * (best + problem.W0**2 @ np.diag(problem.H)))


def perspective_tight(h: Array, W0: Array, keep: Counts) -> Certificate:
    """F* <= b for a diagonal H, where F* is the sum of the least h w0^2 / 2 of every window.

    Why: D = H up to rounding, so that (2) is f. Where: derived here. Tight: equality.
    """
    name, claim = "perspective-tight", "sum of the least h w0^2 / 2 <= perspective bound, for H = diag(h)"
    cost = np.sort(perspective.windows_of(h * np.square(W0) / 2, keep), axis=2)
    out = np.arange(cost.shape[2]) < cost.shape[2] - keep[:, :, None]
    bound = perspective.perspective_bound(LayerProblem.of(W0, np.diag(h)), keep, iters=BRIEF)
    terms = allowance(1.0, len(h)) * (np.square(W0) @ h + np.square(W0).sum(axis=1) * h.sum())
    best = np.where(out, cost, 0.0).sum(axis=(1, 2))
    return tightest(name, claim, WHERE, best, bound.value, bound.rounding + terms)


def _below(case: Case) -> Iterator[Certificate]:
    problem, k = case.judge, round(case.keep * case.inputs)
    if case.inputs > MOST:
        reason = f"inputs = {case.inputs} > {MOST}"
        yield Certificate("perspective-below", "perspective bound <= F*", WHERE, 0.0, 0.0, applies=reason)
        return
    yield perspective_below(problem, np.full((case.rows, 1), k), optimum(problem, k).F)
    if case.inputs % 4 == 0:
        keep = np.full((case.rows, case.inputs // 4), 2)
        yield perspective_below(problem, keep, windowed_optimum(problem, 2, 4))


def _tight(case: Case) -> Iterator[Certificate]:
    h = case.rng(10).uniform(0.1, 10, case.inputs)
    yield perspective_tight(h, case.judge.W0, np.full((case.rows, 1), round(case.keep * case.inputs)))
    if case.inputs % 4 == 0:
        yield perspective_tight(h, case.judge.W0, np.full((case.rows, case.inputs // 4), 2))


def _gap(case: Case) -> Iterator[Certificate]:
    for budget in case.budgets:
        run = case.run("wanda", budget, swaps="all", refine_mu=0.1)
        bound = bound_of(run.refit, counts(budget, run.swapped), iters=BRIEF, sample=2)
        yield optimality_gap(run.refit, run.swapped, bound)


CHECKS: dict[str, Check] = {"perspective-below": _below, "perspective-tight": _tight, "optimality-gap": _gap}
