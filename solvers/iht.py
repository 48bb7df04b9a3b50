"""Iterative hard thresholding (IHT).

Minimise F(W) = f(W) + g(W), f the layer's quadratic, g a sparsity [1, eq. 2.2].

    x_k+1 = prox_{sg}(x_k - s grad f(x_k))                                                        (1)

[1] T. Blumensath, M. E. Davies. Iterative thresholding for sparse approximations. JFAA 2008.
"""

from __future__ import annotations

from typing import NamedTuple

from solvers.iterate import iterate
from solvers.problem import LayerProblem
from solvers.schedule import cubic
from solvers.solution import Solution
from solvers.sparsity import Array, Sparsity


class State(NamedTuple):
    x: Array
    v: Array
    Fx: float = float("inf")
    Fv: float = float("inf")


def step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State) -> State:
    x = sparsity.prox(k.x - s * problem.grad(k.x), s)  # (1)
    Fx = problem.value(x) + sparsity.value(x)
    return State(x, x, Fx, Fx)


def iht(
    problem: LayerProblem,
    sparsity: Sparsity,
    *,
    iters: int = 50,
    safety: float = 0.95,
    ramp: float = 0.8,
    tol: float = 0.0,
) -> Solution:
    """Proximal gradient steps from the dense weight, with the cubic schedule towards a budget.

    Parameters
    ----------
    iters : proximal steps
    safety : s = safety / L; sufficient decrease needs safety < 1
    ramp : share of the steps over which a budget is tightened; 0 keeps it fixed from the first step
    tol : stop when a step moves less than tol |x|; 0 stops only at an exact fixed point
    """
    s = safety / problem.lipschitz
    schedule = cubic(sparsity, problem.shape, iters, ramp)
    return iterate(step, State(problem.W0, problem.W0), problem, schedule, s=s, goal=sparsity, tol=tol)
