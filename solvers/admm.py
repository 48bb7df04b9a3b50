"""Alternating directions (ADMM): on a fixed mask, and with a mask that tightens while it runs.

Minimise f(W) over the weights that vanish outside the mask, split as f(W) + indicator(Z), W = Z [1, sec. 3; 2, sec. 4].

    W_k+1 = argmin_W f(W) + rho/2 |W - Z_k + U_k|^2
          = W0 + (rho (Z_k - U_k - W0) - R) (H + rho I)^-1                                        (1)
    Z_k+1 = mask * (W_k+1 + U_k)                                                                  (2)
    U_k+1 = U_k + W_k+1 - Z_k+1                                                                   (3)
    mask of the first rounds: the largest |W_k+1 + U_k|, the budget on the cubic schedule         (4)

One Cholesky factor of H + rho I serves every row and every iteration. rho U is minus the gradient of f at a rest.

[1] S. Boyd, N. Parikh, E. Chu, B. Peleato, J. Eckstein. Distributed Optimization via ADMM. 2011.
[2] V. Boza. Fast and Effective Weight Update for Pruned Large Language Models. TMLR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg

from solvers.linalg import cholesky
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.schedule import Schedule, constant, cubic
from solvers.solution import Solution, Stop
from solvers.sparsity import Array, Budget, KeepNofM, KeepPerLayer, Mask

Factor = tuple[Array, bool]


class State(NamedTuple):
    Z: Array
    U: Array


def weight(problem: LayerProblem, rho: float, factor: Factor, k: State) -> Array:
    """The weight that balances f and the pull towards Z - U (1)."""
    pull = rho * (k.Z - k.U - problem.W0) - (0.0 if problem.R is None else problem.R)
    W: Array = problem.W0 + scipy.linalg.cho_solve(factor, pull.T, check_finite=False).T  # (1)
    return W


def split(W: Array, mask: Mask, k: State) -> State:
    """The masked copy of W + U, and the dual."""
    Z = np.where(mask, W + k.U, 0.0)  # (2)
    return State(Z, k.U + W - Z)  # (3)


def step(problem: LayerProblem, mask: Mask, rho: float, factor: Factor, k: State) -> State:
    return split(weight(problem, rho, factor, k), mask, k)


def factored(problem: LayerProblem, rho: float) -> Factor:
    """The Cholesky factor of H + rho I, or a Refusal."""
    if not 0 < rho < float("inf"):
        raise Refusal(f"rho must be positive and finite; got {rho}. 1 suits a unit-diagonal Gram.")
    return cholesky(problem.H + rho * np.eye(len(problem.H)), "the Gram plus rho")


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
    if iters < 0:
        raise Refusal(f"iters is 0 or more; got {iters}.")
    factor = factored(problem, rho)
    state = State(np.where(mask, problem.W0, 0.0), np.zeros_like(problem.W0))
    for _ in range(iters):
        state = step(problem, mask, rho, factor, state)
    return Solution(state.Z, Stop.EXHAUSTED)


Choice = Callable[[int, Array], Mask | None]


def winners(sparsity: Budget, stages: Schedule) -> Choice:
    """Mask (4) of round t from the scores |W + U|, None where it is no longer refreshed.

    For n:m the n largest of every window are safe, and a schedule over the whole layer takes the others.
    """

    def choose(t: int, scores: Array) -> Mask | None:
        stage = stages(t, scores, None)
        if not isinstance(stage, Budget):
            return None
        safe = isinstance(sparsity, KeepNofM)
        return stage.mask(np.where(sparsity.mask(scores), np.inf, scores) if safe else scores)

    return choose


def ramp(sparsity: Budget, shape: tuple[int, int], refresh: int) -> Choice:
    """Masks of `refresh` rounds on the cubic schedule of Zhu and Gupta 2017, as [2] prints it for every pattern."""
    whole = KeepPerLayer(shape[0] * shape[1] * sparsity.keep // sparsity.of) if isinstance(sparsity, KeepNofM) else None
    return winners(sparsity, cubic(whole or sparsity, shape, refresh, 1.0))


def at_once(sparsity: Budget, shape: tuple[int, int], refresh: int) -> Choice:
    """Masks of `refresh` rounds at the final sparsity, without a ramp."""
    return winners(sparsity, constant(sparsity, refresh))


def rounds(problem: LayerProblem, choose: Choice, rho: float, iters: int) -> Iterator[tuple[Array, State]]:
    """W and the state after each round; in the first, from Z = W0 and U = 0, W is W0 without drift."""
    factor, k = factored(problem, rho), State(problem.W0, np.zeros_like(problem.W0))
    mask = np.ones(problem.shape, dtype=np.bool_)
    for t in range(iters + 1):
        W = weight(problem, rho, factor, k)  # (1)
        fresh = choose(t, np.abs(W + k.U))  # (4)
        mask = mask if fresh is None else fresh
        k = split(W, mask, k)  # (2), (3)
        yield W, k


def admm(problem: LayerProblem, sparsity: Budget, *, iters: int = 20, refresh: int = 15, rho: float = 1.0) -> Solution:
    """Boza's pruner: ADMM whose mask follows W + U down the cubic schedule and then rests; the answer is Z.

    On the normalised problem, unit diagonal plus mu = 0.1, H and its centring at W0 are exactly those of the paper.
    It is no descent method, and nothing is proved while the mask changes; from then on it is `fixed_mask_admm`.

    Parameters
    ----------
    iters : updates (1) of the weight, 20 in the release
    refresh : rounds in which the mask is chosen anew, 15 in the release; at least 1 and at most iters + 1
    rho : weight of the coupling W = Z, 1 in the release
    """
    return run(problem, sparsity, ramp, iters, refresh, rho)


def run(
    problem: LayerProblem,
    sparsity: Budget,
    masks: Callable[[Budget, tuple[int, int], int], Choice],
    iters: int,
    refresh: int,
    rho: float,
) -> Solution:
    """The last Z of `rounds`, refused where its mask would not have reached the budget."""
    if not 1 <= refresh <= iters + 1:
        raise Refusal(f"refresh is 1 to iters + 1 = {iters + 1} rounds; got {refresh}. The release takes 15 of 20.")
    for _, k in rounds(problem, masks(sparsity, problem.shape, refresh), rho, iters):
        last = k
    return Solution(last.Z, Stop.EXHAUSTED)
