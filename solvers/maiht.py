"""Monotone accelerated iterative hard thresholding (mAIHT).

Minimise F(W) = f(W) + g(W), f the layer's quadratic, g a sparsity.

    y_k   = x_k + t_{k-1}/t_k (z_k - x_k) + (t_{k-1} - 1)/t_k (x_k - x_{k-1})                     (1)
    z_k+1 = prox_{sg}(y_k - s grad f(y_k))                                                        (2)
    v_k+1 = prox_{sg}(x_k - s grad f(x_k))                                                        (3)
    t_k+1 = (1 + sqrt(1 + 4 t_k^2)) / 2                                                           (4)
    x_k+1 = z_k+1 if F(z_k+1) <= F(v_k+1) else v_k+1                                              (5)

The scheme is Li and Lin's [2]; its use on layers, mu = 0.1 and s = 0.95/L are the paper's [1]. The paper's own
equation numbers could not be read: (1)-(5) are ours, and a budget's schedule is our reading of "adaptive".

[1] C. Wen, Y. Zuo, W. Pan. An Efficient Pruner for Large Language Model with Theoretical Guarantee. ICML 2025.
[2] H. Li, Z. Lin. Accelerated Proximal Gradient Methods for Nonconvex Programming. NIPS 2015.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from solvers.iterate import iterate
from solvers.problem import LayerProblem
from solvers.schedule import cubic
from solvers.solution import Solution
from solvers.sparsity import Array, Sparsity


class State(NamedTuple):
    x: Array
    x_prev: Array
    z: Array
    v: Array
    t: float = 1.0
    t_prev: float = 0.0
    Fx: float = float("inf")
    Fv: float = float("inf")


def start(problem: LayerProblem) -> State:
    return State(problem.W0, problem.W0, problem.W0, problem.W0)


def step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State) -> State:
    y = k.x + k.t_prev / k.t * (k.z - k.x) + (k.t_prev - 1) / k.t * (k.x - k.x_prev)  # (1)
    z = sparsity.prox(y - s * problem.grad(y), s)  # (2)
    v = sparsity.prox(k.x - s * problem.grad(k.x), s)  # (3)
    t = (1 + sqrt(1 + 4 * k.t**2)) / 2  # (4)
    Fz, Fv = (problem.value(w) + sparsity.value(w) for w in (z, v))
    x, Fx = (z, Fz) if Fz <= Fv else (v, Fv)  # (5)
    return State(x, k.x, z, v, t, k.t, Fx, Fv)


def maiht(
    problem: LayerProblem,
    sparsity: Sparsity,
    *,
    iters: int = 100,
    safety: float = 0.95,
    ramp: float = 0.95,
    tol: float = 0.0,
) -> Solution:
    """Accelerated proximal steps from the dense weight, each safeguarded by the plain one.

    Parameters
    ----------
    iters : steps; t1 = 50 in the paper, twice as many here, for a slower schedule finds better supports
    safety : s = safety / L, 0.95 in the paper; the descent theorem needs safety < 1
    ramp : share of the steps over which a budget is tightened (cubic schedule); 0 keeps it fixed throughout
    tol : stop when the plain step moves less than tol |x|; 0 stops only at an exact fixed point

    Notes
    -----
    With a penalty, or ramp = 0, the theorems apply from the first step; with a schedule, after it has ended.
    """
    s = safety / problem.lipschitz
    schedule = cubic(sparsity, problem.shape, iters, ramp)
    return iterate(step, start(problem), problem, schedule, s=s, goal=sparsity, tol=tol)
