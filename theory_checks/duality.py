"""How far f + lam |W|_1 is from its minimum at most: the duality gap, from one gradient.

Letters: r = V X~ - Y the residual, f = |r|^2 / 2, so X~' r = grad f(V); c scales -r into the dual's feasible set
|X~' u| <= lam; P the value F(V), D the dual value at -c r.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from solvers.problem import LayerProblem
from solvers.solution import Relaxed
from solvers.sparsity import L1, Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.paths import gaps, reference
from theory_checks.synthetic import Case, Check

KIM = "Kim, Koh, Lustig, Boyd, Gorinevsky 2007, eq. 9"


def scaling(problem: LayerProblem, penalty: L1, V: Array) -> float:
    """c = min(1, lam / max |grad f(V)|): the largest multiple of the residual that is feasible in the dual."""
    steepest = float(np.abs(problem.grad(V)).max())
    return min(1.0, penalty.lam / steepest) if steepest > 0 else 1.0


def duality_gap(problem: LayerProblem, penalty: L1, V: Array) -> float:
    """P - D = (1 - c)^2 f(V) + lam |V|_1 + c <V, grad f(V)>: in the difference form, two sums of nonnegative terms."""
    c = scaling(problem, penalty, V)
    return (1 - c) ** 2 * problem.value(V) + float((penalty.lam * np.abs(V) + c * V * problem.grad(V)).sum())


def _rounding(problem: LayerProblem, penalty: L1, V: Array) -> float:
    steep = np.abs(V - problem.W0) @ np.abs(problem.H) + (0.0 if problem.R is None else np.abs(problem.R))
    scale = problem.magnitude(V) + penalty.value(V) + float(np.vdot(np.abs(V), steep))
    return allowance(2 * scale, V.size)


def gap_bounds_error(problem: LayerProblem, penalty: L1, V: Array) -> Certificate:
    """F(V) - F* <= P - D at any V.

    Assumptions: no drift, a reference minimiser that meets its optimality conditions. Measured: the distance to that
    minimiser, which no proximal method found. Why: weak duality. Where: Kim et al. 2007, eq. 9. Tight at the minimiser.
    """
    name, claim = "duality-gap", "F(V) - F* <= (1-c)^2 f(V) + lam |V|_1 + c <V, grad f(V)>"
    best, reason = reference(problem, penalty, 1 / problem.lipschitz)
    if reason:
        return Certificate(name, claim, KIM, 0.0, 0.0, applies=reason)
    [value], [rounding] = gaps(problem, penalty, best, V[None])
    gap = duality_gap(problem, penalty, V)
    return Certificate(name, claim, KIM, float(value), gap, float(rounding) + _rounding(problem, penalty, V))


def gap_bounds_step(problem: LayerProblem, penalty: L1, V: Array) -> Certificate:
    """|V - T(V)|^2 <= 2 s (P - D) for the proximal step T with s = 1/L: a small gap leaves nowhere to go.

    Assumptions: none. Why: F(T(V)) <= F(V) - |V - T(V)|^2 / 2s, and F* <= F(T(V)). Where: Beck, Teboulle 2009, Lemma
    2.3, with weak duality. Upper bound. Needs no minimiser, so it judges real layers.
    """
    name, claim = "gap-bounds-step", "|V - prox(V - s grad f(V))|^2 <= 2 s (P - D)"
    s = 1 / problem.lipschitz
    step = float(np.square(V - penalty.prox(V - s * problem.grad(V), s)).sum())
    gap = duality_gap(problem, penalty, V)
    size = allowance(float(np.square(V).sum()), V.shape[1]) ** 2 + 2 * s * _rounding(problem, penalty, V)
    return Certificate(name, claim, KIM, step, 2 * s * gap, size)


def relaxation(found: Relaxed) -> list[Certificate]:
    """What a rounded relaxation must answer for on a real layer; the slack of the first is the optimality gap left."""
    problem, penalty, V = found
    claim = f"D <= F(V): the relaxation at lam = {penalty.lam:.3g} is within the slack of its minimum"
    F, gap = problem.value(V) + penalty.value(V), duality_gap(problem, penalty, V)
    weak = Certificate("weak-duality", claim, KIM, F - gap, F, _rounding(problem, penalty, V))
    return [weak, gap_bounds_step(problem, penalty, V)]


def _points(case: Case) -> Iterator[Array]:
    """Far from the minimiser, near it, and at both ends of the path."""
    problem, penalty = case.judge, case.absolute
    yield case.some_weight()
    yield np.zeros_like(problem.W0)
    x = problem.W0
    for _ in range(30):
        x = penalty.prox(x - problem.grad(x) / problem.lipschitz, 1 / problem.lipschitz)
    yield x


def _error(case: Case) -> Iterator[Certificate]:
    for V in _points(case):
        yield gap_bounds_error(case.judge, case.absolute, V)


def _step(case: Case) -> Iterator[Certificate]:
    for V in _points(case):
        yield gap_bounds_step(case.judge, case.absolute, V)


CHECKS: dict[str, Check] = {"duality-gap": _error, "gap-bounds-step": _step}
