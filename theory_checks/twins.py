"""Fast twins against the reference: every step judged from outside, the selection bit for bit, the cost, the schedule.

Letters: x, z, v, y, t as in `solvers.maiht`; w+ what a step of the twin returned; U = y - s grad f(y), or of x,
computed here in float64 from copies of what the twin held. Runs are not compared with runs: hard thresholds are
discontinuous, and two that decide differently within rounding part for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import sqrt
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import solvers
from solvers import iht, maiht
from solvers.array import Place, to_numpy
from solvers.gpu import iht as fast_iht
from solvers.gpu import maiht as fast_maiht
from solvers.gpu import select
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.sparsity import L0, L1, Array, Budget, Sparsity
from theory_checks.cached import Watched
from theory_checks.certificate import Certificate, allowance
from theory_checks.support import violations, windows
from theory_checks.synthetic import Case, Check

WHERE = "derived here: the gradient is affine"
HERE = Place.of(np.zeros(1), "float64")
TWINS: dict[str, ModuleType] = {"iht": fast_iht, "maiht": fast_maiht}
BUFFERS = 8


class Seen(NamedTuple):
    """One step: the state before it, and its results; float64 copies."""

    before: maiht.State
    after: maiht.State


def walk(
    twin: ModuleType, problem: LayerProblem, sparsity: Sparsity, s: float, n: int, place: Place, begin: maiht.State
) -> list[Seen]:
    """n steps of a twin from the state of the reference."""
    layer = Layer(problem, place, BUFFERS)
    k, before, steps = _resumed(layer, twin, s, begin, place), begin, []
    for _ in range(n):
        k = twin.step(layer, sparsity, s, k)
        x, z, v = (to_numpy(w, "weight") for w in (k.x, getattr(k, "z", k.x), k.v))
        t, t_prev = getattr(k, "t", 1.0), getattr(k, "t_prev", 0.0)
        after = maiht.State(x, before.x, z, v, t, t_prev, k.Fx, k.Fv)
        steps.append(Seen(before, after))
        before = after
    return steps


def _resumed(layer: Layer, twin: ModuleType, s: float, k: maiht.State, place: Place) -> Any:
    x, x_prev, z = (place.put(w) for w in (k.x, k.x_prev, k.z))
    ux, u_prev, uz = (layer.forward(w, layer.product(w, layer.xp.empty_like(w)), s) for w in (x, x_prev, z))
    if twin is fast_iht:
        return fast_iht.State(x, x, ux)
    return fast_maiht.State(x, z, x, ux, u_prev, uz, float(k.t), float(k.t_prev))


def twin_step(
    name: str,
    problem: LayerProblem,
    sparsity: Sparsity,
    s: float,
    begin: maiht.State,
    n: int = 12,
    place: Place = HERE,
) -> Certificate:
    """Every step of a fast twin is the step of the reference from the same state, to the rounding of its precision.

    z+ and v+ are proximal points of the U of `solvers.maiht` (1)-(3), t follows (4), x+ is the better of both (5) in
    difference form, and the objectives are F of what was returned. Assumptions: none. Measured: the largest
    violation, in units of the magnitudes that meet in it; a support may differ only where U is that near to the
    threshold. Why: H y is linear in y. Where: derived here. Tight: bound 0.
    """
    claim = "z+ = prox(U(y)), v+ = prox(U(x)), x+ the better of both, F as reported, for every step of the twin"
    twin = TWINS[name]
    worst = max(_off(twin, problem, sparsity, s, seen) for seen in walk(twin, problem, sparsity, s, n, place, begin))
    return Certificate("twin-step", claim, WHERE, worst, 0.0, allowance(1.0, problem.shape[1], place.precision))


def _off(twin: ModuleType, problem: LayerProblem, sparsity: Sparsity, s: float, seen: Seen) -> float:
    k, after = seen
    y, c2 = k.x, 0.0
    if twin is fast_maiht:
        c1, c2 = k.t_prev / k.t, (k.t_prev - 1) / k.t
        y = k.x + c1 * (k.z - k.x) + c2 * (k.x - k.x_prev)
        if after.t != (1 + sqrt(1 + 4 * k.t**2)) / 2 or after.t_prev != k.t:
            return float("inf")
    reach: Array = 2 * np.abs([k.x, k.x_prev, k.z, problem.W0]).sum(axis=0)
    scale = float((reach + s * (reach @ np.abs(problem.H) + _drift(problem))).max())
    missed = [_missed(sparsity, w - s * problem.grad(w), got, s) for w, got in ((y, after.z), (k.x, after.v))]
    off = [_relative(miss, scale) for miss in missed]
    off += [_objective_off(problem, sparsity, after, W, F) for W, F in ((after.x, after.Fx), (after.v, after.Fv))]
    off += [_worse(problem, sparsity, after.x, other) for other in (after.z, after.v)]
    return max(off) if not np.isnan(off).any() else float("nan")


def _missed(sparsity: Sparsity, U: Array, V: Array, s: float) -> float:
    """How far V is from a proximal point of U: on the support from U, off it from being smaller than what was kept."""
    if isinstance(sparsity, L1):
        return float(np.abs(V - sparsity.prox(U, s)).max())
    S, A = V != 0, np.abs(U)
    on = float(np.abs(V - U)[S].max(initial=0.0))
    if isinstance(sparsity, L0):
        threshold = sqrt(2 * sparsity.lam * s)
        return max(on, float((threshold - A[S]).max(initial=0.0)), float((A[~S] - threshold).max(initial=0.0)))
    if violations(sparsity, V):
        return float("inf")
    kept, removed = windows(sparsity, np.where(S, A, np.inf)), windows(sparsity, np.where(S, 0.0, A))
    least = np.where(np.isfinite(kept).sum(axis=1) < sparsity.keep, 0.0, kept.min(axis=1))
    return max(on, float((removed.max(axis=1) - least).max(initial=0.0))) if sparsity.keep else on


def _objective_off(problem: LayerProblem, sparsity: Sparsity, after: maiht.State, W: Array, F: float) -> float:
    size = np.abs(problem.W0) + np.abs(after.z) + np.abs(after.v)
    terms = float(np.vdot(size @ np.abs(problem.H) / 2 + _drift(problem), size)) + abs(problem.e0)
    g = sparsity.value(W)
    return _relative(abs(F - problem.value(W) - g), terms + sum(map(sparsity.value, (after.z, after.v))))


def _worse(problem: LayerProblem, sparsity: Sparsity, x: Array, other: Array) -> float:
    """F(x) - F(other) in difference form, in units of the magnitudes in that difference."""
    d = np.abs(x - other)
    size = np.abs(problem.W0) + np.abs(x) + np.abs(other)
    terms = float(np.vdot(size @ np.abs(problem.H) + _drift(problem), d))
    change = problem.change(other, x) + sparsity.value(x) - sparsity.value(other)
    return _relative(max(change, 0.0), terms + sparsity.value(x) + sparsity.value(other))


def _drift(problem: LayerProblem) -> Array | float:
    return 0.0 if problem.R is None else np.abs(problem.R)


def _relative(off: float, scale: float) -> float:
    return off / scale if scale > 0 else off


def twin_selection(budget: Budget, scores: Array) -> Certificate:
    """The twins' selection marks the entries that the reference marks, ties to the lower index included.

    Assumptions: equal floating-point scores. Measured: entries that differ. Why: comparisons are exact. Where: by
    construction. Tight: bound 0.
    """
    claim = "the masks of both texts are equal"
    differ = int(np.count_nonzero(select.mask(budget, scores) != budget.mask(scores)))
    return Certificate("twin-selection", claim, "by construction", float(differ), 0.0)


def twin_products(name: str, problem: LayerProblem, sparsity: Sparsity, s: float, n: int = 6) -> Certificate:
    """n steps of the twin multiply by the Gram 2n times (mAIHT) or n times (IHT): half of what the reference does.

    Assumptions: none. Measured: matrix products with H, counted by the array itself. Where: derived here. Tight:
    equality.
    """
    claim = "n steps of the twin take 2n (mAIHT) or n (IHT) products with the Gram"
    twin, layer = TWINS[name], Layer(problem, HERE, BUFFERS)
    layer.H = H = problem.H.view(Watched)
    k = twin.start(layer, s)
    H.products.clear()
    for _ in range(n):
        k = twin.step(layer, sparsity, s, k)
    return Certificate("twin-products", claim, WHERE, float(len(H.products)), (2.0 if name == "maiht" else 1.0) * n)


def twin_run(name: str, problem: LayerProblem, sparsity: Sparsity, iters: int = 12, place: Place = HERE) -> Certificate:
    """A run of the twin takes the reference's step size through the reference's schedule, and counts what it keeps.

    Assumptions: none; a run may end earlier by rounding, at a fixed point. Measured: rows of the two traces that
    differ in the sparsity level, plus a different step or start, plus a wrong last count. Tight: bound 0.
    """
    claim = "step, F(x_0) and the levels of the twin's trace are the reference's; its last count is that of its weights"
    one, two = (solver(iters=iters) for solver in _both(name, problem, sparsity, place))
    assert one.trace is not None
    assert two.trace is not None
    differ = sum(a != b for a, b in zip(one.trace.level, two.trace.level, strict=False))
    differ += (one.trace.step != two.trace.step) + (one.trace.first != two.trace.first)
    differ += two.trace.nonzeros[-1] != np.count_nonzero(two.weight)
    differ += len(two.trace) > iters or (two.stop.name == "EXHAUSTED" and len(two.trace) != iters)
    return Certificate("twin-run", claim, "by construction", float(differ), 0.0)


def _both(name: str, problem: LayerProblem, sparsity: Sparsity, place: Place) -> list[Callable[..., solvers.Solution]]:
    reference = {"iht": iht.iht, "maiht": maiht.maiht}[name]
    return [partial(reference, problem, sparsity), partial(getattr(TWINS[name], name), problem, sparsity, place)]


def _steps(case: Case) -> Iterator[Certificate]:
    problem, s = case.judge, 0.95 / case.judge.lipschitz
    dense = maiht.start(problem)
    for name in TWINS:
        for sparsity in (*case.sparsities, case.absolute):
            yield twin_step(name, problem, sparsity, s, dense)
            yield twin_step(name, problem, sparsity, s, case.state(sparsity), n=4)


def _selections(case: Case) -> Iterator[Certificate]:
    for budget in case.budgets:
        for W in (case.W0, case.some_weight(), np.round(2 * case.some_weight()), np.zeros_like(case.W0)):
            yield twin_selection(budget, np.abs(W))


def _products(case: Case) -> Iterator[Certificate]:
    for name in TWINS:
        for sparsity in (case.penalty, case.budgets[0]):
            yield twin_products(name, case.judge, sparsity, 0.95 / case.judge.lipschitz)


def _whole_runs(case: Case) -> Iterator[Certificate]:
    for name in TWINS:
        for sparsity in (*case.sparsities, case.absolute):
            yield twin_run(name, case.judge, sparsity)


CHECKS: dict[str, Check] = {
    "twin-step": _steps,
    "twin-selection": _selections,
    "twin-products": _products,
    "twin-run": _whole_runs,
}
