"""ALPS: ADMM for a budget, with a penalty that grows while the support still moves, then least squares on it.

Minimise f(W) over the weights that meet the budget, split as f(W) + indicator(D), W = D [1, sec. 3].

    W_t+1 = argmin_W f(W) + <V_t, W - D_t> + rho_t/2 |W - D_t|^2
          = W0 + (rho_t (D_t - W0) - V_t - R) (H + rho_t I)^-1                                    (1)
    D_t+1 = P(W_t+1 + V_t / rho_t),  P the projection on the budget                               (2)
    V_t+1 = V_t + rho_t (W_t+1 - D_t+1)                                                           (3)
    rho  <- rho * (1.3, 1.2, 1.1) every third round, where at least (10 %, 0.5 %, one) of the kept
            entries changed since the last check; where none did the run ends                     (4)
    W_S   = ten steps of conjugate gradients on the support S of D                                (5)

D_0 = P(W0), V_0 = 0. The paper prints the dense start D_0 = W0; it is not feasible, and Lemma 1 fails at t = 0.
One eigendecomposition H = Q diag(l) Q' serves every rho. V is not divided by rho: it stays when rho grows.

[1] X. Meng, K. Behdin, H. Wang, R. Mazumder. ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large
    Language Models. NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from solvers.linalg import least_squares_pcg
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Solution, Stop
from solvers.sparsity import Array, Budget

CHECK = 3
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))


class State(NamedTuple):
    D: Array
    V: Array


class Eigen(NamedTuple):
    """Eigenvalues l (in,) and vectors Q (in, in) of H."""

    values: Array
    vectors: Array


class Round(NamedTuple):
    """What one round did: `before` and `after` around W, at penalty rho; `settled` where the support rested."""

    rho: float
    before: State
    W: Array
    after: State
    settled: bool


def start(problem: LayerProblem, sparsity: Budget) -> State:
    return State(sparsity.prox(problem.W0), np.zeros_like(problem.W0))


def step(problem: LayerProblem, sparsity: Budget, rho: float, H: Eigen, k: State) -> tuple[Array, State]:
    pull = rho * (k.D - problem.W0) - k.V - (0.0 if problem.R is None else problem.R)
    W = problem.W0 + (pull @ H.vectors / (H.values + rho)) @ H.vectors.T  # (1)
    D = sparsity.prox(W + k.V / rho)  # (2)
    return W, State(D, k.V + rho * (W - D))  # (3)


def growth(changed: int, kept: int) -> float:
    """The factor of (4) for rho, from the number of entries that entered or left the support."""
    return next(factor for share, factor in GROWTH if changed >= share * kept)


def rounds(problem: LayerProblem, sparsity: Budget, rho: float, iters: int) -> Iterator[Round]:
    """Rounds (1)-(4) until the support rests between two checks, `iters` at most."""
    eigen = Eigen(*problem.gram.eigen)
    k = start(problem, sparsity)
    checked = k.D != 0
    for t in range(1, iters + 1):
        before, (W, k) = k, step(problem, sparsity, rho, eigen, k)
        support, check = k.D != 0, t % CHECK == 0
        changed = int(np.count_nonzero(support ^ checked))
        settled = check and changed == 0
        yield Round(rho, before, W, k, settled)
        if settled:
            return
        if check:
            rho, checked = rho * growth(changed, int(np.count_nonzero(support))), support  # (4)


def alps(problem: LayerProblem, sparsity: Budget, *, iters: int = 300, rho: float = 0.1, polish: int = 10) -> Solution:
    """ADMM with a growing penalty for the support, conjugate gradients for the weights on it.

    On the normalised problem, as the authors' code scales it; the ridge of the paper, lambda_2 centred at W0, is the
    mu that H already holds. The authors' code differs once more: where the support never moved it restarts with
    rho / 5. It is no descent method: D may cycle while rho is small; the polish (5) descends.

    Parameters
    ----------
    iters : rounds at most
    rho : first penalty, 0.1 in the release
    polish : steps of conjugate gradients on the final support, 10 in the release; 0 returns D
    """
    if not 0 < rho < float("inf"):
        raise Refusal(f"rho must be positive and finite; got {rho}. The release starts at 0.1.")
    if iters < 1:
        raise Refusal(f"iters is at least 1; got {iters}.")
    for last in rounds(problem, sparsity, rho, iters):
        D = last.after.D
    W = least_squares_pcg(problem, D != 0, D, tol=0.0, iters=polish)  # (5)
    return Solution(W, Stop.SETTLED if last.settled else Stop.EXHAUSTED)
