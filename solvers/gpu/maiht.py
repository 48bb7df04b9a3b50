"""mAIHT with two products with the Gram per iteration where the reference takes four, in float32 where asked.

Letters as in `solvers.maiht`; u(w) = w - s grad f(w), affine in w, with P_w = (w - W0) H as in `solvers.gpu.layer`.
y_k is an affine combination of x_k, z_k and x_{k-1}, hence u(y_k) is the same one of their forward steps.

    z_k+1 = prox_{sg}(u(x_k) + c1 (u(z_k) - u(x_k)) + c2 (u(x_k) - u(x_{k-1})))                   (1)
    c1 = t_{k-1}/t_k,   c2 = (t_{k-1} - 1)/t_k
    v_k+1 = prox_{sg}(u(x_k))                                                                     (2)
    F(v)  = <P_v/2 + R, v - W0> + e0 + g(v)                                                       (3)
    F(z) - F(v) = <(P_z + P_v)/2 + R, z - v> + g(z) - g(v)                                        (4)
    x_k+1 = z_k+1 if F(z_k+1) - F(v_k+1) <= 0 else v_k+1, and u(x_k+1) with it                    (5)

The safeguard (4) is a difference and not two values, which differ by less than their rounding near a minimum.
"""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any, NamedTuple

from solvers.array import Place
from solvers.gpu.iterate import iterate
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.solution import Solution
from solvers.sparsity import Sparsity


class State(NamedTuple):
    """What a step needs, and its candidates z and v, whose buffers the next step may take."""

    x: Any
    z: Any
    v: Any
    ux: Any
    u_prev: Any
    uz: Any
    t: float = 1.0
    t_prev: float = 0.0
    Fx: float = float("inf")
    Fv: float = float("inf")


def start(layer: Layer, s: float) -> State:
    u = layer.forward(layer.W0, layer.xp.zeros_like(layer.W0), s)
    return State(layer.W0, layer.W0, layer.W0, u, u, u)


def step(layer: Layer, sparsity: Sparsity, s: float, k: State) -> State:
    z, v, Pz, Pv = layer.lend(4, (k.x, k.ux, k.u_prev, k.uz))
    c1, c2 = k.t_prev / k.t, (k.t_prev - 1) / k.t
    z, gz = layer.candidate(sparsity, [(1 - c1 + c2, k.ux), (c1, k.uz), (-c2, k.u_prev)], s, z)  # (1)
    v, gv = layer.candidate(sparsity, [(1.0, k.ux)], s, v)  # (2)
    Pz, Pv = layer.product(z, Pz), layer.product(v, Pv)
    fv, change, uz = layer.compared(z, Pz, v, Pv, s)
    Fv, gain = fv + gv, change + (gz - gv)  # (3), (4)
    x, ux, Fx = (z, uz, Fv + gain) if gain <= 0 else (v, layer.forward(v, Pv, s), Fv)  # (5)
    return State(x, z, v, ux, k.ux, uz, (1 + sqrt(1 + 4 * k.t**2)) / 2, k.t, Fx, Fv)


def resume(layer: Layer, s: float, k: State, x_prev: Any) -> State:
    """k on a layer of another precision: the same points, their forward steps recomputed."""
    (x, ux), (_, u_prev), (z, uz) = layer.resumed(s, (k.x, x_prev, k.z))
    return State(x, z, x, ux, u_prev, uz, k.t, k.t_prev)


def maiht(
    problem: LayerProblem,
    sparsity: Sparsity,
    place: Place,
    *,
    iters: int = 100,
    safety: float = 0.95,
    ramp: float = 0.95,
    tol: float = 0.0,
) -> Solution:
    """The fast twin of `solvers.maiht.maiht`: the same iterates to rounding, the same facts in the trace.

    Parameters
    ----------
    place : library, precision and device of the computation
    iters, safety, ramp, tol : as in the reference
    """
    run = partial(iterate, start, step, problem, sparsity, place, buffers=8, resume=resume)
    return run(iters=iters, safety=safety, ramp=ramp, tol=tol)
