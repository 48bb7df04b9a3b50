"""FISTAPruner: l1-regularised least squares by FISTA, rounded to the budget, its penalty found by bisection.

    V   = K steps of FISTA on f(V) + lam |V|_1, from the best rounded weights so far              (1)
    W   = the budget's largest |V|, the rest +0.0                                                 (2)
    E_total = |W X~ - W0 X|,  E_round = |W X~ - V X~|                                             (3)
    lam rises where E_round > xi E_total, for V was not sparse enough, and falls elsewhere        (4)

No code was released [1]. K = 20, a patience of three rounds and xi = 0.3 are the paper's as its reviews quote them;
norms, not their squares, in (4), and a bracket of lam with geometric middles, relative to the lam_max above which V = 0
is optimal, are ours: a reconstruction. Error correction is the drift of the problem, X~ the pruned inputs.

[1] P. Zhao, H. Hu, P. Li, Y. Zheng, Z. Wang, X. Yuan. A Convex-Optimization-Based Layer-wise Post-Training Pruner for
    Large Language Models. arXiv 2408.03728, 2024.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from solvers import fista
from solvers.magnitude import dense, magnitude
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Relaxed, Solution, Stop
from solvers.sparsegpt import sparsegpt
from solvers.sparsity import L1, Array, Budget
from solvers.wanda import wanda

STARTS = {"dense": dense, "magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt}
LOWEST = 1e-7  # of lam_max, the lower end of the bracket


def lam_max(problem: LayerProblem) -> float:
    """The smallest lam for which V = 0 minimises f(V) + lam |V|_1: the largest entry of |grad f(0)|."""
    return float(np.abs(problem.grad(np.zeros_like(problem.W0))).max())


def output_error(problem: LayerProblem, W: Array) -> float:
    """E_total of (3), the root of twice f; rounding may leave f a little below zero where drift is present."""
    return sqrt(max(0.0, 2 * problem.value(W)))


def relaxed(problem: LayerProblem, penalty: L1, V: Array, iters: int, tol: float) -> Array:
    """(1): FISTA with the step 1/L from V, until a step moves less than tol |V|."""
    k, s = fista.start(V), 1 / problem.lipschitz
    for _ in range(iters):
        last = k.x
        k = fista.step(problem, penalty, s, k)
        if np.square(k.x - last).sum() <= tol * tol * np.square(last).sum():
            break
    return k.x


def fista_pruner(
    problem: LayerProblem,
    budget: Budget,
    *,
    start: str = "wanda",
    iters: int = 20,
    rounds: int = 30,
    patience: int = 3,
    xi: float = 0.3,
    first: float = 1e-3,
    tol: float = 1e-6,
) -> Solution:
    """Rounds of (1)-(4) from another pruner's weights; the best rounded weights, never worse than the rounded start.

    A V with fewer nonzeros than the budget keeps is no candidate, however small its error: a budget is met exactly.

    Parameters
    ----------
    start : ``dense``, ``magnitude``, ``wanda`` (the paper's for LLaMA) or ``sparsegpt`` (its for OPT), the warm start
    iters : K, steps of FISTA a round; part of the method, for solving (1) further need not improve (2)
    rounds : at most so many
    patience : T, rounds without improvement after which it stops
    xi : the share of the error that rounding may have, in norms
    first : lam of the first round over lam_max
    tol : relative move at which FISTA stops
    """
    if start not in STARTS:
        raise Refusal(f"start is one of {', '.join(STARTS)}; got '{start}'.")
    V = STARTS[start](problem, budget).weight
    best = budget.prox(V)
    least = output_error(problem, best)
    top = lam_max(problem)
    low, lam, high = LOWEST * top, first * top, top
    found: Relaxed | None = None
    idle = 0
    for _ in range(rounds if top > 0 else 0):
        V = relaxed(problem, L1(lam), V, iters, tol)  # (1)
        W = budget.prox(V)  # (2)
        total, rounding = output_error(problem, W), sqrt(max(0.0, float(np.vdot((W - V) @ problem.H, W - V))))  # (3)
        better = total < least and np.count_nonzero(W) >= np.count_nonzero(best)
        idle = 0 if better else idle + 1
        if better:
            best, least, found = W, total, Relaxed(problem, L1(lam), V)
        if idle == patience:
            break
        low, high = (lam, high) if rounding > xi * total else (low, lam)  # (4)
        lam, V = sqrt(low * high), best
    stop = Stop.CONVERGED if idle == patience else Stop.EXHAUSTED
    return Solution(best, stop, relaxed=found)
