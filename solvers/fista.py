"""FISTA and its monotone form, for a convex penalty.

Minimise F(W) = f(W) + g(W), f the layer's quadratic, g convex: lam |W|_1.

    z_k+1 = prox_{sg}(y_k - s grad f(y_k))                                                        (1)
    t_k+1 = (1 + sqrt(1 + 4 t_k^2)) / 2                                                           (2)
    t_k+1 = t_k + 1/2, hence (t_k - 1)/t_k+1 = i/(i + 3) with i = k - 1                     [3]   (2')
    x_k+1 = z_k+1                                                            FISTA [1, eq. 4.1]   (3)
    x_k+1 = z_k+1 if F(z_k+1) <= F(x_k) else x_k                            MFISTA [2, sec. V]    (4)
    y_k+1 = x_k+1 + t_k/t_k+1 (z_k+1 - x_k+1) + (t_k - 1)/t_k+1 (x_k+1 - x_k)                     (5)

FISTA is no descent method: F rises now and then (a test shows it). ISTA is `iht` with an L1 penalty.

[1] A. Beck, M. Teboulle. A fast iterative shrinkage-thresholding algorithm. SIAM J. Imaging Sciences 2009.
[2] A. Beck, M. Teboulle. Fast gradient-based algorithms for constrained total variation. IEEE TIP 2009.
[3] A. Taylor, J. Hendrickx, F. Glineur. Exact worst-case performance of first-order methods for composite convex
    optimization. SIAM J. Optimization 2017, method FPGM1.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np

from solvers.iterate import Step, iterate
from solvers.problem import LayerProblem
from solvers.schedule import constant
from solvers.solution import Solution
from solvers.sparsity import L1, Array, Sparsity


class State(NamedTuple):
    x: Array
    y: Array
    v: Array
    t: float = 1.0
    Fx: float = float("inf")
    Fv: float = float("inf")


def start(x: Array) -> State:
    return State(x, x, x)


def taken(problem: LayerProblem, sparsity: Sparsity, s: float, x: Array, z: Array) -> Array:
    """The step z; where momentum merely pauses at x, the plain step from x, for a rest is one of both."""
    return sparsity.prox(x - s * problem.grad(x), s) if np.array_equal(z, x) else z


def step(
    problem: LayerProblem, sparsity: Sparsity, s: float, k: State, monotone: bool = False, halves: bool = False
) -> State:
    z = sparsity.prox(k.y - s * problem.grad(k.y), s)  # (1)
    t = k.t + 0.5 if halves else (1 + sqrt(1 + 4 * k.t**2)) / 2  # (2'), (2)
    Fz = problem.value(z) + sparsity.value(z)
    x, Fx = (z, Fz) if not monotone or Fz <= k.Fx else (k.x, k.Fx)  # (3), (4)
    y = x + k.t / t * (z - x) + (k.t - 1) / t * (x - k.x)  # (5)
    return State(x, y, taken(problem, sparsity, s, k.x, z), t, Fx, Fz)


def monotone_step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State) -> State:
    """One step of MFISTA: (4) in place of (3)."""
    return step(problem, sparsity, s, k, monotone=True)


def halves_step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State) -> State:
    """One step with the momentum i/(i + 3): (2') in place of (2)."""
    return step(problem, sparsity, s, k, halves=True)


def fista(problem: LayerProblem, sparsity: L1, *, iters: int = 50, safety: float = 1.0) -> Solution:
    """Accelerated proximal gradient (1)-(3), (5) from the dense weight; s = safety / L, 1/L in the paper."""
    return _run(step, problem, sparsity, iters, safety)


def mfista(problem: LayerProblem, sparsity: L1, *, iters: int = 50, safety: float = 1.0) -> Solution:
    """Its monotone form (1), (2), (4), (5): the better of z_k+1 and x_k is kept, the momentum is not."""
    return _run(monotone_step, problem, sparsity, iters, safety)


def _run(how: Step[State], problem: LayerProblem, sparsity: L1, iters: int, safety: float) -> Solution:
    s = safety / problem.lipschitz
    return iterate(how, start(problem.W0), problem, constant(sparsity, iters), s=s, goal=sparsity)
