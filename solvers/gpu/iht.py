"""IHT with one product with the Gram per iteration where the reference takes two, in float32 where asked.

Letters as in `solvers.iht`; u(w) = w - s grad f(w), with P_w = (w - W0) H as in `solvers.gpu.layer`.

    x_k+1 = prox_{sg}(u(x_k))                                                                     (1)
    F(x)  = <P_x/2 + R, x - W0> + e0 + g(x),   u(x) = x - s (P_x + R)                             (2)
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from solvers.array import Place
from solvers.gpu.iterate import iterate
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.solution import Solution
from solvers.sparsity import Sparsity


class State(NamedTuple):
    x: Any
    v: Any
    ux: Any
    Fx: float = float("inf")
    Fv: float = float("inf")


def start(layer: Layer, s: float) -> State:
    return State(layer.W0, layer.W0, layer.forward(layer.W0, layer.xp.zeros_like(layer.W0), s))


def step(layer: Layer, sparsity: Sparsity, s: float, k: State) -> State:
    x, P = layer.lend(2, (k.x, k.ux))
    x, g = layer.candidate(sparsity, [(1.0, k.ux)], s, x)  # (1)
    P = layer.product(x, P)
    fx, _, ux = layer.compared(x, P, x, P, s)
    return State(x, x, ux, fx + g, fx + g)  # (2)


def resume(layer: Layer, s: float, k: State, x_prev: Any) -> State:
    """k on a layer of another precision: the same point, its forward step recomputed."""
    ((x, ux),) = layer.resumed(s, (k.x,))
    return State(x, x, ux)


def iht(
    problem: LayerProblem,
    sparsity: Sparsity,
    place: Place,
    *,
    iters: int = 50,
    safety: float = 0.95,
    ramp: float = 0.8,
    tol: float = 0.0,
) -> Solution:
    """The fast twin of `solvers.iht.iht`: the same iterates to rounding, the same facts in the trace.

    Parameters
    ----------
    place : library, precision and device of the computation
    iters, safety, ramp, tol : as in the reference
    """
    run = partial(iterate, start, step, problem, sparsity, place, buffers=4, resume=resume)
    return run(iters=iters, safety=safety, ramp=ramp, tol=tol)
