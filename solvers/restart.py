"""Acceleration that uses strong convexity: a constant momentum, or FISTA that is restarted.

Minimise F(W) = f(W) + g(W), f the layer's quadratic with lambda_min(H) >= m > 0, g convex: lam |W|_1.

    b     = (1 - sqrt(sm)) / (1 + sqrt(sm))                                                       (1)
    y_k   = x_k + b (x_k - x_k-1)                                                                 (2)
    x_k+1 = prox_{sg}(y_k - s grad f(y_k))                                       V-FISTA [1]      (3)

    K     = ceil(sqrt(8 / sm))                                                                    (4)
    after every K steps of FISTA: y = x, t = 1                                   restarted        (5)

Either needs about sqrt(L/m) steps per digit where ISTA needs L/m. K is what FISTA's value bound needs to halve
F - F*, because m/2 |x - X|^2 <= F(x) - F* turns the distance of that bound into the gap.

[1] A. Beck. First-Order Methods in Optimization. SIAM 2017, sec. 10.7.7, Thm 10.42.
"""

from __future__ import annotations

from functools import partial
from math import ceil, sqrt
from typing import NamedTuple

from solvers import fista
from solvers.iterate import iterate
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.schedule import constant
from solvers.solution import Solution
from solvers.sparsity import L1, Array, Sparsity


class State(NamedTuple):
    x: Array
    x_prev: Array
    v: Array
    Fx: float = float("inf")
    Fv: float = float("inf")


def momentum(s: float, m: float) -> float:
    """b of (1)."""
    return (1 - sqrt(s * m)) / (1 + sqrt(s * m))


def period(s: float, m: float) -> int:
    """K of (4)."""
    return ceil(sqrt(8 / (s * m)))


def strong_step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State, m: float) -> State:
    """One step (1)-(3)."""
    y = k.x + momentum(s, m) * (k.x - k.x_prev)  # (1), (2)
    x = sparsity.prox(y - s * problem.grad(y), s)  # (3)
    Fx = problem.value(x) + sparsity.value(x)
    return State(x, k.x, fista.taken(problem, sparsity, s, k.x, x), Fx, Fx)


def cycle(problem: LayerProblem, sparsity: Sparsity, s: float, k: fista.State, m: float) -> fista.State:
    """One cycle (4), (5): K steps of FISTA from x, the first of which is the plain step."""
    state = first = fista.step(problem, sparsity, s, fista.start(k.x))  # (5)
    for _ in range(period(s, m) - 1):
        state = fista.step(problem, sparsity, s, state)
    return state._replace(v=first.x, Fv=first.Fx)


def vfista(problem: LayerProblem, sparsity: L1, *, iters: int = 50, safety: float = 1.0) -> Solution:
    """Constant momentum (1)-(3) from the dense weight; s = safety / L, m the Gram's ridge."""
    s, m, W0 = safety / problem.lipschitz, _ridge(problem), problem.W0
    return iterate(partial(strong_step, m=m), State(W0, W0, W0), problem, constant(sparsity, iters), s=s, goal=sparsity)


def restarted(problem: LayerProblem, sparsity: L1, *, cycles: int = 5, safety: float = 1.0) -> Solution:
    """Cycles (4), (5) of FISTA from the dense weight; s = safety / L, m the Gram's ridge. A row per cycle is traced."""
    s, m = safety / problem.lipschitz, _ridge(problem)
    start, schedule = fista.start(problem.W0), constant(sparsity, cycles)
    return iterate(partial(cycle, m=m), start, problem, schedule, s=s, goal=sparsity)


def _ridge(problem: LayerProblem) -> float:
    if not problem.gram.ridge > 0:
        raise Refusal(
            f"strong convexity needs a known m > 0; this Gram has ridge {problem.gram.ridge:g}. Usually the problem "
            "was not normalised: use problem.normalised(0.1), or `fista`, which needs no m."
        )
    return problem.gram.ridge
