"""Accelerated iterative hard thresholding: without a safeguard, and the two forms of Yang and Yu.

Minimise F(W) = f(W) + lam |W|_0, f the layer's quadratic.

    y_k   = x_k + (t_{k-1} - 1)/t_k (x_k - x_{k-1}),  x_k+1 = prox_{sg}(y_k - s grad f(y_k))      (1)

    u_k   = x_k + t_{k-1}/t_k (z_k - x_k) + (t_{k-1} - 1)/t_k (x_k - x_{k-1})                     (2)
    w_k   = u_k on the support of z_k, 0 elsewhere                                                (3)
    z_k+1 = prox_{sg}(w_k - s grad f(w_k))                                                        (4)
    x_k+1 = z_k+1 if F(z_k+1) <= F(x_k) else x_k                                                  (5)
    t_k+1 = (1 + sqrt(1 + 4 t_k^2)) / 2                                                           (6)

    x_k+1 = z_k+1                                                                                 (7)

(1) is a counter-example, not a method: for a nonconvex g it raises F and no theorem covers it (a test shows it).
(2)-(6) is [1, Alg. 3]; with (7) in place of (5), so that z_k = x_k throughout, it is [1, Alg. 2] and F may rise. For
s <= min(2 lam / G^2, 1/L), G >= |grad f|, the supports of both only shrink.

[1] Y. Yang, J. Yu. Fast proximal gradient descent for a class of non-convex and non-smooth sparse learning problems.
    UAI 2019.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np

from solvers.fista import taken
from solvers.iterate import Step, iterate
from solvers.problem import LayerProblem
from solvers.schedule import constant
from solvers.solution import Solution
from solvers.sparsity import L0, Array, Sparsity


class State(NamedTuple):
    x: Array
    x_prev: Array
    z: Array
    v: Array
    t: float = 1.0
    t_prev: float = 0.0
    Fx: float = float("inf")
    Fv: float = float("inf")


def start(x: Array) -> State:
    return State(x, x, x, x)


def unguarded_step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State) -> State:
    """One accelerated step (1); nothing checks that F falls."""
    y = k.x + (k.t_prev - 1) / k.t * (k.x - k.x_prev)
    x = sparsity.prox(y - s * problem.grad(y), s)  # (1)
    Fx = problem.value(x) + sparsity.value(x)
    return State(x, k.x, x, taken(problem, sparsity, s, k.x, x), (1 + sqrt(1 + 4 * k.t**2)) / 2, k.t, Fx, Fx)


def step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State, monotone: bool = True) -> State:
    w = np.where(k.z != 0, momentum(k), 0.0)  # (3)
    z = sparsity.prox(w - s * problem.grad(w), s)  # (4)
    Fz = problem.value(z) + sparsity.value(z)
    x, Fx = (z, Fz) if not monotone or Fz <= k.Fx else (k.x, k.Fx)  # (7), (5)
    t = (1 + sqrt(1 + 4 * k.t**2)) / 2  # (6)
    return State(x, k.x, z, taken(problem, sparsity, s, k.x, z), t, k.t, Fx, Fz)


def nonmonotone_step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State) -> State:
    """One step of (2)-(4), (6), (7)."""
    return step(problem, sparsity, s, k, monotone=False)


def momentum(k: State) -> Array:
    """u_k of (2)."""
    return k.x + k.t_prev / k.t * (k.z - k.x) + (k.t_prev - 1) / k.t * (k.x - k.x_prev)  # (2)


def aiht(problem: LayerProblem, sparsity: L0, *, iters: int = 50, safety: float = 0.95) -> Solution:
    """Accelerated steps (1) from the dense weight, without a safeguard; s = safety / L."""
    return _run(unguarded_step, problem, sparsity, iters, safety / problem.lipschitz)


def yang_yu(problem: LayerProblem, sparsity: L0, *, iters: int = 50, safety: float = 1.0) -> Solution:
    """The monotone form (2)-(6) from the dense weight; s = safety * min(2 lam / G^2, 1/L).

    G^2 = 2 F(W0) max H_jj bounds the gradient wherever F <= F(W0), by Cauchy and Schwarz in the metric of H.
    """
    G2 = 2 * (problem.value(problem.W0) + sparsity.value(problem.W0)) * float(np.diag(problem.H).max())
    limit = 2 * sparsity.lam / G2 if G2 > 0 else float("inf")
    return _run(step, problem, sparsity, iters, safety * min(limit, 1 / problem.lipschitz))


def _run(how: Step[State], problem: LayerProblem, sparsity: L0, iters: int, s: float) -> Solution:
    return iterate(how, start(problem.W0), problem, constant(sparsity, iters), s=s, goal=sparsity)
