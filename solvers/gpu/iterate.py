"""The loop of `solvers.iterate` for arrays of any library: step, trace, stop; only sums leave the device.

The steps of a schedule towards a budget look for a support, and are taken on the rung of the place. When the schedule
has ended, or the run rests before it does, the run goes on from the same points in float64 (`Place.finish`): what the
theorems say of the last stage is then said, and judged, in float64. Without a schedule the theorems apply from the
first step, and the whole run stays on the rung that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from solvers.array import Place, full_precision, to_numpy
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.schedule import cubic, ramp_steps
from solvers.solution import Solution, Stop, Trace
from solvers.sparsity import Budget, Sparsity

Step = Callable[[Layer, Sparsity, float, Any], Any]
Start = Callable[[Layer, float], Any]
Resume = Callable[[Layer, float, Any, Any], Any]
NEVER = -1


def iterate(
    start: Start,
    step: Step,
    problem: LayerProblem,
    goal: Sparsity,
    place: Place,
    *,
    buffers: int,
    iters: int,
    safety: float,
    ramp: float,
    tol: float,
    resume: Resume | None = None,
) -> Solution:
    """Run `step` from `start` through the cubic schedule until it ends or the plain step rests at the goal.

    Parameters
    ----------
    start : (layer, s) -> state
    step : (layer, sparsity, s, state) -> state with x, v, Fx and Fv
    buffers : arrays of the weight's shape that a state and a step hold at once
    iters, safety, ramp, tol : as in the method of the same name
    resume : (layer, s, state, x before it) -> that state on a layer of another precision; None for a method that
        stays on its rung
    """
    s, schedule = float(safety / problem.lipschitz), cubic(goal, problem.shape, iters, ramp)
    if not 0 < s < float("inf"):
        raise Refusal(f"the step size must be positive and finite; got {s:.3g}. Usually safety = 0.")
    if isinstance(goal, Budget):
        goal.windows(problem.W0)  # refuses a width that it does not divide
    layer = Layer(problem, place, buffers)
    sparsity = schedule(0, problem.W0, None)
    assert sparsity is not None
    trace = Trace(s, tol, first=problem.e0 + sparsity.value(problem.W0), dtype=place.precision)
    with full_precision(place.xp), np.errstate(over="ignore", invalid="ignore"):
        state, x, t = start(layer, s), layer.W0, 0
        turn = _turn(goal, place, iters, ramp) if resume else NEVER
        while sparsity is not None:
            if resume and t == turn:
                layer = Layer(problem, place.finished, buffers)
                state = resume(layer, s, state, x)
                trace.change_to(place.finished.precision)
            x, state = state.x, step(layer, sparsity, s, state)
            _note(trace, layer, state, sparsity, move=layer.square(state.v, x))
            if not isfinite(trace.move[-1]):
                raise Refusal(
                    f"the run diverged in iteration {t + 1}: step * L = {s * problem.lipschitz:.3g}. Keep it below 2."
                )
            if sparsity == goal and _rests(layer, x, state.x, trace):
                if t >= turn:
                    return Solution(to_numpy(state.x, "weight"), Stop.CONVERGED, trace)
                turn = t + 1
            t += 1
            sparsity = schedule(t, problem.W0, sparsity)
    return Solution(to_numpy(state.x, "weight"), Stop.EXHAUSTED, trace)


def _turn(goal: Sparsity, place: Place, iters: int, ramp: float) -> int:
    """The row from which on a run is taken at its `finish`."""
    if not isinstance(goal, Budget) or ramp == 0 or place.finish == place.rung:
        return NEVER
    return ramp_steps(iters, ramp) - 1 or NEVER  # a schedule of one step is none


def _rests(layer: Layer, x: Any, after: Any, trace: Trace) -> bool:
    """Whether v, by the last move of the trace, and x_{t+1} are both within tol |x_t| of x_t."""
    small = trace.tol**2 * layer.inner(x, x) if trace.tol > 0 else 0.0
    return trace.move[-1] <= small and layer.square(after, x) <= small


def _note(trace: Trace, layer: Layer, state: Any, sparsity: Sparsity, move: float) -> None:
    trace.objective.append(state.Fx)
    trace.plain.append(state.Fv)
    trace.move.append(move)
    trace.nonzeros.append(layer.nonzeros(state.x))
    trace.level.append(float(sparsity.level))
