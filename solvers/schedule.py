"""Which sparsity is in force at which iteration: constant, as the theorems want it, or tightened towards a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from solvers.refusal import Refusal
from solvers.sparsity import Array, Budget, KeepNofM, OnTheWay, Sparsity

Schedule = Callable[[int, Array, Sparsity | None], Sparsity | None]


def constant(sparsity: Sparsity, iters: int) -> Schedule:
    """The same sparsity in each of `iters` iterations: the setting of the theorems."""
    return lambda t, x, last: sparsity if t < iters else None


def cubic(sparsity: Sparsity, shape: tuple[int, int], iters: int, ramp: float) -> Schedule:
    """Remove gradually: after t steps the share 1 - (1 - t/T)^3 of what has to go, T = ramp * iters.

    The schedule of Zhu and Gupta 2017; from T on the budget is the final one, so the theorems apply to the
    iterations after T. For n:m the n largest of every window are safe and the schedule takes the others of a row. A
    penalty has nothing to ramp and stays constant.
    """
    if iters < 1 or not 0 <= ramp <= 1:
        raise Refusal(
            f"a budget is reached in iters >= 1 steps, over a share ramp of them in 0..1; got {iters}, {ramp}."
        )
    if not isinstance(sparsity, Budget) or ramp == 0:
        return constant(sparsity, iters)
    steps, windows = ramp_steps(iters, ramp), shape[1] // sparsity.of if isinstance(sparsity, KeepNofM) else 1
    surplus = windows * (sparsity.most(shape) - sparsity.keep)

    def stage(t: int, x: Array, last: Sparsity | None) -> Sparsity | None:
        done = 1 - (1 - min(t + 1, steps) / steps) ** 3
        left = surplus - int(surplus * done + 0.5)
        if t >= iters:
            return None
        if isinstance(sparsity, KeepNofM):
            return OnTheWay(sparsity.keep, sparsity.of, left) if left else sparsity
        return replace(sparsity, keep=sparsity.keep + left)

    return stage


def ramp_steps(iters: int, ramp: float) -> int:
    """T: the step of this number is the first that is certain to be at the final budget."""
    return max(1, round(ramp * iters))
