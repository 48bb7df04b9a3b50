"""The one loop: step, trace, stop. An iterative method is a `start` and a `step`; this file owns the rest."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Protocol, TypeVar

import numpy as np

from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.schedule import Schedule
from solvers.solution import Solution, Stop, Trace
from solvers.sparsity import Array, Budget, Sparsity


class State(Protocol):
    """What the loop reads of a method's state; `v` is the plain proximal step that led here."""

    @property
    def x(self) -> Array: ...
    @property
    def v(self) -> Array: ...
    @property
    def Fx(self) -> float: ...
    @property
    def Fv(self) -> float: ...


S = TypeVar("S", bound=State)
Step = Callable[[LayerProblem, Sparsity, float, S], S]


def iterate(
    step: Step[S], state: S, problem: LayerProblem, schedule: Schedule, *, s: float, goal: Sparsity, tol: float = 0.0
) -> Solution:
    """Run `step` through `schedule` until it ends or the plain step rests at the goal.

    Parameters
    ----------
    schedule : (t, x_t, last sparsity) -> sparsity of step t, or None to stop
    s : step size
    goal : the sparsity asked for; a rest under any other is only a pause of the schedule
    tol : stop once v_{t+1} and x_{t+1} are both within tol |x_t| of x_t; 0 asks for an exact fixed point
    """
    if not 0 < s < float("inf"):
        raise Refusal(f"the step size must be positive and finite; got {s:.3g}. Usually safety = 0.")
    if isinstance(goal, Budget):
        goal.windows(problem.W0)  # refuses a width that it does not divide
    trace: Trace | None = None
    sparsity: Sparsity | None = None
    t = 0
    while (sparsity := schedule(t, state.x, sparsity)) is not None:
        x = state.x
        trace = trace or Trace(step=s, tol=tol, first=problem.value(x) + sparsity.value(x))
        with np.errstate(over="ignore", invalid="ignore"):  # a run that overflows is refused in the next lines
            state = step(problem, sparsity, s, state)
            _note(trace, state, sparsity, move=float(np.square(state.v - x).sum()))
        if not isfinite(trace.move[-1]):
            raise Refusal(
                f"the run diverged in iteration {t + 1}: step * L = {s * problem.lipschitz:.3g}. Keep it below 2."
            )
        moved = max(trace.move[-1], float(np.square(state.x - x).sum()))
        if sparsity == goal and moved <= tol * tol * float(np.square(x).sum()):
            return Solution(state.x, Stop.CONVERGED, trace)
        t += 1
    return Solution(state.x, Stop.EXHAUSTED, trace)


def _note(trace: Trace, state: State, sparsity: Sparsity, move: float) -> None:
    trace.objective.append(state.Fx)
    trace.plain.append(state.Fv)
    trace.move.append(move)
    trace.nonzeros.append(int(np.count_nonzero(state.x)))
    trace.level.append(float(sparsity.level))
