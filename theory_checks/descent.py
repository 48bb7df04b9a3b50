"""Monotone descent: one proximal step, the safeguard, whole runs, and the rate that descent implies.

Letters: x_t iterate, v_{t+1} the plain proximal step from x_t, d = v_{t+1} - x_t, s step, L >= lambda_max(H),
F = f + g. A *stage* is a stretch of iterations under one sparsity and in one precision; across a change of stage F is
another function, or is summed otherwise. Every row is allowed the rounding of its own precision. Claims about a whole
run take its `magnitudes`, so that whoever judges it by several of them computes these once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from solvers import iht, maiht
from solvers.problem import LayerProblem
from solvers.solution import Solution, Trace
from solvers.sparsity import Array, Sparsity
from theory_checks.certificate import Certificate, allowance

LI_LIN = "Li, Lin 2015, Thm 1"
ATTOUCH = "Attouch, Bolte, Svaiter 2013, Thm 5.1"
BECK_ELDAR = "Beck, Eldar 2013, Lemma 2.4"


def step_size(problem: LayerProblem, solution: Solution) -> Certificate:
    """The step of a method that promises descent satisfies s L <= 1, L = lambda_max(H).

    Assumptions: an iterative run. Up to 512 inputs L is computed by a full eigendecomposition; above it is the
    proved bound of `LayerProblem.lipschitz`. Where: for a nonconvex g the limit 1/L is sharp. Tight.
    """
    claim = "the step s is at most 1/lambda_max(H)"
    if solution.trace is None:
        return Certificate("step-size", claim, BECK_ELDAR, 0.0, 1.0, applies="the method takes no proximal steps")
    n = len(problem.H)
    L = float(np.linalg.eigvalsh(problem.H)[-1]) if n <= 512 else problem.lipschitz
    return Certificate("step-size", claim, BECK_ELDAR, solution.trace.step * L, 1.0, allowance(1.0, n))


def one_step(problem: LayerProblem, sparsity: Sparsity, x: Array, s: float) -> Certificate:
    """F(v) - F(x) <= -1/2 (1/s - L) |v - x|^2 for one plain proximal step v from any feasible x.

    Assumptions: s L <= 1, F(x) finite. Why: v minimises the model <grad f(x), v - x> + |v - x|^2/2s + g(v), compare
    with x. The difference F(v) - F(x) is formed without subtracting objectives. Where: Beck, Eldar 2013, Lemma 2.4
    (budgets); Attouch, Bolte, Svaiter 2013, Thm 5.1. Upper bound; sharp in the limit s = 1/L.
    """
    name, claim = "one-step-descent", "F(v) - F(x) <= -(1/s - L)/2 |v - x|^2"
    if s * problem.lipschitz > 1:
        return Certificate(name, claim, BECK_ELDAR, 0.0, 0.0, applies=f"step * L = {s * problem.lipschitz:.3g} > 1")
    v = iht.step(problem, sparsity, s, iht.State(x, x)).x
    difference = problem.change(x, v) + sparsity.value(v) - sparsity.value(x)
    decrease = (1 / s - problem.lipschitz) / 2 * float(np.square(v - x).sum())
    return Certificate(name, claim, BECK_ELDAR, difference, -decrease, _rounding_of_change(problem, sparsity, x, v))


def safeguarded_step(problem: LayerProblem, sparsity: Sparsity, state: maiht.State, s: float) -> Certificate:
    """F(x_{t+1}) - F(x_t) <= -1/2 (1/s - L) |v - x_t|^2 for one mAIHT step from any feasible state.

    Assumptions: s L <= 1, F(x_t) finite; x_{t-1}, z_t and t arbitrary. v is recomputed here as the plain step.
    Why: F(x_{t+1}) <= F(v), then `one_step`. Where: Li, Lin 2015, Thm 1. Upper bound.
    """
    name, claim = "safeguarded-step", "F(x_{t+1}) - F(x_t) <= -(1/s - L)/2 |v - x_t|^2"
    if s * problem.lipschitz > 1:
        return Certificate(name, claim, LI_LIN, 0.0, 0.0, applies=f"step * L = {s * problem.lipschitz:.3g} > 1")
    after = maiht.step(problem, sparsity, s, state).x
    v = sparsity.prox(state.x - s * problem.grad(state.x), s)
    difference = problem.change(state.x, after) + sparsity.value(after) - sparsity.value(state.x)
    decrease = (1 / s - problem.lipschitz) / 2 * float(np.square(v - state.x).sum())
    return Certificate(
        name, claim, LI_LIN, difference, -decrease, _rounding_of_change(problem, sparsity, state.x, after)
    )


def sufficient_decrease(
    problem: LayerProblem, sparsity: Sparsity, solution: Solution, scale: float | None = None
) -> Certificate:
    """F(v_{t+1}) <= F(x_t) - 1/2 (1/s - L) |v_{t+1} - x_t|^2 in every iteration inside a stage.

    Assumptions: s L <= 1; some iteration starts from a feasible point of its own stage. Measured: the worst
    left minus right over the run. Where: Li, Lin 2015, Thm 1; Attouch, Bolte, Svaiter 2013, Thm 5.1. Upper bound.
    """
    name, claim = "sufficient-decrease", "F(v_{t+1}) <= F(x_t) - (1/s - L)/2 |v_{t+1} - x_t|^2 for every t in a stage"
    trace = solution.trace
    if reason := _no_stage(problem, trace):
        return Certificate(name, claim, ATTOUCH, 0.0, 0.0, applies=reason)
    assert trace is not None
    before = np.array([trace.first, *trace.objective[:-1]])
    gain = (1 / trace.step - problem.lipschitz) / 2 * np.array(trace.move)
    excess = np.array(trace.plain) + gain - before
    worst = _worst(problem, sparsity, solution, scale, excess, np.flatnonzero(_inside_stage(trace)))
    return Certificate(name, claim, ATTOUCH, worst.excess, 0.0, worst.rounding)


def safeguard(problem: LayerProblem, sparsity: Sparsity, solution: Solution, scale: float | None = None) -> Certificate:
    """F(x_{t+1}) <= F(v_{t+1}) in every iteration, inside and across stages.

    Assumptions: an iterative run; no step-size condition. Measured: the worst difference over the run. Where:
    Li, Lin 2015, Alg. 1, here (5) of `maiht`. Tight whenever the plain step is taken.
    """
    name, claim = "safeguard", "F(x_{t+1}) <= F(v_{t+1}) for every t"
    if solution.trace is None:
        return Certificate(name, claim, LI_LIN, 0.0, 0.0, applies="the method takes no proximal steps")
    excess = np.array(solution.trace.objective) - np.array(solution.trace.plain)
    worst = _worst(problem, sparsity, solution, scale, excess, np.arange(len(excess)))
    return Certificate(name, claim, LI_LIN, worst.excess, 0.0, worst.rounding)


def objective_recomputed(
    problem: LayerProblem, sparsity: Sparsity, solution: Solution, scale: float | None = None
) -> Certificate:
    """The last objective that the solver reported equals F of the weights that it returned.

    Assumptions: the returned weights are the last iterate. Measured: the difference. Tight: bound 0.
    """
    name, claim, where = (
        "objective-recomputed",
        "|F(returned weights) - last reported objective| = 0",
        "outside grading",
    )
    trace = solution.trace
    if trace is None or trace.level[-1] != sparsity.level:
        why = "the method takes no proximal steps" if trace is None else f"the run ended at level {trace.level[-1]:.6g}"
        return Certificate(name, claim, where, 0.0, 0.0, applies=why)
    F = problem.value(solution.weight) + sparsity.value(solution.weight)
    return Certificate(
        name, claim, where, abs(F - trace.objective[-1]), 0.0, _rounding(problem, sparsity, solution, scale)
    )


def residual_rate(
    problem: LayerProblem, sparsity: Sparsity, solution: Solution, scale: float | None = None
) -> Certificate:
    """The smallest squared move among the last T iterations is at most 2 (F_start - F_end) / (T (1/s - L)).

    Assumptions: s L < 1; the last stage has T >= 1 iterations that start feasible. Why: sum `sufficient_decrease`.
    This is the stationarity residual of a run that was stopped by its iteration limit. Where: Attouch, Bolte,
    Svaiter 2013, Thm 5.1 with the lower bound F_end. Upper bound.
    """
    name, claim = "residual-rate", "min_t |v_{t+1} - x_t|^2 <= 2 (F_start - F_end) / (T (1/s - L)) in the last stage"
    trace = solution.trace
    if reason := _no_stage(problem, trace, strict=True):
        return Certificate(name, claim, ATTOUCH, 0.0, 0.0, applies=reason)
    assert trace is not None
    inside = _inside_stage(trace) & (np.array(trace.level) == trace.level[-1])
    inside[: trace.ramp_rows] = False
    if not inside.any():
        return Certificate(name, claim, ATTOUCH, 0.0, 0.0, applies="the last stage has a single iteration")
    first = int(np.argmax(inside))
    start = trace.first if first == 0 else trace.objective[first - 1]
    paid = int(inside.sum()) * (1 / trace.step - problem.lipschitz) / 2  # may be too small to divide 1
    bound = max(start - trace.objective[-1], 0.0) / paid
    smallest = float(np.array(trace.move)[inside].min())
    return Certificate(name, claim, ATTOUCH, smallest, bound, _rounding(problem, sparsity, solution, scale) / paid)


def _inside_stage(trace: Trace) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows whose starting point is feasible for the row's own sparsity: neither level nor precision just changed."""
    level = np.array(trace.level)
    inside = np.concatenate([[np.isfinite(trace.first)], level[1:] == level[:-1]])
    if trace.ramp_rows:
        inside[trace.ramp_rows] = False
    return inside


def _no_stage(problem: LayerProblem, trace: Trace | None, strict: bool = False) -> str:
    if trace is None:
        return "the method takes no proximal steps"
    product = trace.step * problem.lipschitz
    if product > 1 or (strict and product == 1):
        return f"step * L = {product:.3g} {'>=' if strict else '>'} 1"
    return "" if _inside_stage(trace).any() else "the sparsity changed in every iteration"


class _Worst(NamedTuple):
    excess: float
    rounding: float


def _worst(
    problem: LayerProblem,
    sparsity: Sparsity,
    solution: Solution,
    scale: float | None,
    excess: Array,
    rows: np.ndarray[Any, Any],
) -> _Worst:
    """Of some rows the one that exceeds the rounding of its own precision most, and that rounding."""
    trace = solution.trace
    assert trace is not None
    total = magnitudes(problem, sparsity, solution) if scale is None else scale
    size = problem.shape[1]
    early, late = (allowance(total, size, dtype or trace.dtype) for dtype in (trace.ramp_dtype, trace.dtype))
    rounding = np.where(rows < trace.ramp_rows, early, late)
    beyond = np.where(np.isfinite(rounding), excess[rows] - rounding, -np.inf)
    t = int(np.argmax(np.where(np.isnan(excess[rows]), np.inf, beyond)))
    return _Worst(float(excess[rows][t]), float(rounding[t]))


def _rounding(problem: LayerProblem, sparsity: Sparsity, solution: Solution, scale: float | None) -> float:
    """Rounding of an objective of this run, in the precision of its last rows."""
    assert solution.trace is not None
    total = magnitudes(problem, sparsity, solution) if scale is None else scale
    return allowance(total, problem.shape[1], solution.trace.dtype)


def magnitudes(problem: LayerProblem, sparsity: Sparsity, solution: Solution) -> float:
    """What the claims about a run call its `scale`: the magnitudes summed in f at the result and at W = 0, plus g."""
    assert solution.trace is not None
    W = solution.weight
    g = abs(sparsity.value(W))  # infinite where W breaks a budget, which no rounding explains
    scale = problem.magnitude(W) + problem.magnitude(np.zeros_like(W)) + (g if np.isfinite(g) else 0.0)
    return scale + abs(solution.trace.objective[0])


def _rounding_of_change(problem: LayerProblem, sparsity: Sparsity, x: Array, v: Array) -> float:
    d = np.abs(v - x)
    reach = np.abs(x - problem.W0) @ np.abs(problem.H) + d @ np.abs(problem.H)
    drift = 0.0 if problem.R is None else float(np.vdot(np.abs(problem.R), d))
    return allowance(float(np.vdot(reach, d)) + drift + sparsity.value(x) + sparsity.value(v), x.shape[1])
