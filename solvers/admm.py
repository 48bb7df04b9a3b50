"""Alternating directions (ADMM) on a fixed mask.

Minimise f(W) over the weights that vanish outside the mask, split as f(W) + indicator(Z), W = Z [1, sec. 3; 2, sec. 4].

    W_k+1 = argmin_W f(W) + rho/2 |W - Z_k + U_k|^2
          = W0 + (rho (Z_k - U_k - W0) - R) (H + rho I)^-1                                        (1)
    Z_k+1 = mask * (W_k+1 + U_k)                                                                  (2)
    U_k+1 = U_k + W_k+1 - Z_k+1                                                                   (3)

One Cholesky factor of H + rho I serves every row and every iteration.

[1] S. Boyd, N. Parikh, E. Chu, B. Peleato, J. Eckstein. Distributed Optimization via ADMM. 2011.
[2] V. Boza. Fast and Effective Weight Update for Pruned Large Language Models. TMLR 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from solvers.linalg import cholesky
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Solution, Stop
from solvers.sparsity import Array, Mask


class State(NamedTuple):
    Z: Array
    U: Array


def step(problem: LayerProblem, mask: Mask, rho: float, factor: tuple[Array, bool], k: State) -> State:
    pull = rho * (k.Z - k.U - problem.W0) - (0.0 if problem.R is None else problem.R)
    W = problem.W0 + scipy.linalg.cho_solve(factor, pull.T, check_finite=False).T  # (1)
    Z = np.where(mask, W + k.U, 0.0)  # (2)
    return State(Z, k.U + W - Z)  # (3)


def fixed_mask_admm(problem: LayerProblem, mask: Mask, *, rho: float = 1.0, iters: int = 50) -> Solution:
    """The masked least-squares weight by ADMM from the masked dense weight, U_0 = 0.

    Parameters
    ----------
    mask : (out, in) the entries that may stay; the others come back as +0.0
    rho : weight of the coupling W = Z; sqrt(lambda_min lambda_max) of H gives the fastest proved rate
    iters : rounds of (1)-(3), 0 returns the masked dense weight

    Raises
    ------
    Refusal
        On a mask of another shape, rho not positive and finite, iters negative.
    """
    if mask.shape != problem.shape or mask.dtype != np.bool_:
        raise Refusal(f"the mask is boolean of shape {problem.shape}; got {mask.dtype} of shape {mask.shape}.")
    if not 0 < rho < float("inf"):
        raise Refusal(f"rho must be positive and finite; got {rho}. 1 suits a unit-diagonal Gram.")
    if iters < 0:
        raise Refusal(f"iters is 0 or more; got {iters}.")
    factor = cholesky(problem.H + rho * np.eye(len(problem.H)), "the Gram plus rho")
    state = State(np.where(mask, problem.W0, 0.0), np.zeros_like(problem.W0))
    for _ in range(iters):
        state = step(problem, mask, rho, factor, state)
    return Solution(state.Z, Stop.EXHAUSTED)
