"""Better weights on a mask that is already chosen: `none`, `gradient:30`, `exact`.

W <- W - s (grad f(W)) on the support,  s = 0.95/L                                            (1)
(grad f(W)) = 0 on the support                                                                (2)
"""

from __future__ import annotations

import re

import numpy as np

from solvers.linalg import least_squares_pcg
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import Array, Mask
from solvers.swaps import most_of


def gradient_steps(problem: LayerProblem, mask: Mask, W: Array, steps: int, s: float) -> Array:
    """`steps` gradient steps (1) restricted to the support; each lowers f by s (1 - sL/2) |grad_S f|^2 at least."""
    for _ in range(steps):
        W = W - s * np.where(mask, problem.grad(W), 0.0)
    return W


def refine(problem: LayerProblem, mask: Mask, W: Array, how: str) -> Array:
    """Lower f on a fixed support.

    Parameters
    ----------
    mask : (out, in) the support; entries outside stay +0.0
    W : (out, in) starting weights supported on `mask`
    how : ``none``; ``gradient:N``, N masked gradient steps (1), the paper's t2 = 30; ``exact``, the masked
        least-squares solution (2) by conjugate gradients to a relative residual of 1e-6. Where H on a support is
        singular (no ridge), of all solutions the one nearest to W in the norm of diag H
    """
    if how == "exact":
        return least_squares_pcg(problem, mask, W)
    return gradient_steps(problem, mask, W, steps, 0.95 / problem.lipschitz) if (steps := steps_of(how)) else W


def steps_of(how: str) -> int:
    """The gradient steps that `how` asks for, 0 for ``none`` and ``exact``; anything else is refused."""
    if how in ("none", "exact"):
        return 0
    if steps := re.fullmatch(r"gradient:(\d+)", str(how)):
        return int(steps[1])
    raise Refusal(f"refine is one of none, gradient:30 (any number of steps) or exact; got '{how}'.")


def refinement(how: str, swaps: int | str) -> str:
    """What runs before swaps: they compare refitted weights, so ``none`` becomes ``exact``, gradients are refused."""
    if most_of(swaps) == 0:
        steps_of(how)
        return how
    if steps_of(how):
        raise Refusal(f"swaps compare exactly refitted weights; got refine='{how}'. Use refine exact, or swaps 0.")
    return "exact"
