"""Boza's ADMM with one product per round where the reference solves two triangles, in float32 where asked.

Letters as in `solvers.admm`; Y = W + U, the one array from which a round is decided.

    G   = rho (H + rho I)^-1,   B = W0 + R / rho                                                  (1)
    Y   = W0 + (Z_k - U_k - B) G + U_k                                                            (2)
    Z_k+1 = mask * Y,   U_k+1 = Y - Z_k+1                                                         (3)

Z and U have disjoint supports, so that (3) loses no digit. In the first round, Z = W0 and U = 0, Y is W0 bit for bit
where nothing drifted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from solvers.array import Place, full_precision, into, keep_only, to_numpy
from solvers.gpu import factor, precision, select
from solvers.gpu.layer import Layer
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.schedule import cubic
from solvers.solution import Solution, Stop
from solvers.sparsity import Budget, KeepNofM, KeepPerLayer, Sparsity

BUFFERS = 4


class State(NamedTuple):
    Z: Any
    U: Any


class Pull(NamedTuple):
    """G as the rung of the place multiplies it, and B of (1) in its precision."""

    G: tuple[Any, ...]
    B: Any


def pull(problem: LayerProblem, rho: float, place: Place) -> Pull:
    """(1), the inverse in float64 and rounded once, or as often as it has parts."""
    if not 0 < rho < float("inf"):
        raise Refusal(f"rho must be positive and finite; got {rho}. 1 suits a unit-diagonal Gram.")
    G = rho * factor.inverse(problem.gram, rho, place)
    B = problem.W0 if problem.R is None else problem.W0 + problem.R / rho
    narrow = place.xp.astype(G, getattr(place.xp, place.dtype))
    return Pull(precision.split(narrow, precision.RUNGS[place.rung]), place.put(B))


def start(layer: Layer) -> State:
    return State(layer.W0, layer.xp.zeros_like(layer.W0))


def chosen(xp: Any, sparsity: Budget, stage: Budget, A: Any) -> Any:
    """The mask of a round from A = |Y|; for n:m the n largest of every window are safe, the stage adds others."""
    if isinstance(sparsity, KeepNofM):
        A = xp.where(select.mask(sparsity, A), xp.full_like(A, float("inf")), A)
    return select.mask(stage, A)


def step(layer: Layer, to: Pull, sparsity: Budget, stage: Sparsity | None, mask: Any, k: State) -> tuple[State, Any]:
    """One round: the state after it, and the mask that it used, chosen anew unless `stage` is None."""
    T, Y = layer.lend(2, k)
    T = into(layer.xp.subtract, k.Z, k.U, out=T)
    T -= to.B
    Y = layer.times(T, to.G, Y)
    Y += layer.W0
    Y += k.U  # (2)
    if isinstance(stage, Budget):
        mask = chosen(layer.xp, sparsity, stage, into(layer.xp.abs, Y, out=layer.scratch[0]))
    Z = keep_only(layer.combined([(1.0, Y)], T), mask)
    Y -= Z  # (3)
    return State(Z, Y), mask


def stages(sparsity: Budget, shape: tuple[int, int], refresh: int) -> Any:
    """The budget of every round on the cubic schedule, None from `refresh` on; n:m tightens the whole layer."""
    whole = KeepPerLayer(shape[0] * shape[1] * sparsity.keep // sparsity.of) if isinstance(sparsity, KeepNofM) else None
    return cubic(whole or sparsity, shape, refresh, 1.0)


def admm(
    problem: LayerProblem,
    sparsity: Budget,
    place: Place,
    *,
    iters: int = 20,
    refresh: int = 15,
    rho: float = 1.0,
) -> Solution:
    """The fast twin of `solvers.admm.admm`: the same rounds to rounding.

    Parameters
    ----------
    place : library, precision and device of the computation
    iters, refresh, rho : as in the reference
    """
    if not 1 <= refresh <= iters + 1:
        raise Refusal(f"refresh is 1 to iters + 1 = {iters + 1} rounds; got {refresh}. The release takes 15 of 20.")
    sparsity.windows(problem.W0)  # refuses a width that it does not divide
    layer, to, stage = (
        Layer(problem, place, BUFFERS),
        pull(problem, rho, place),
        stages(sparsity, problem.shape, refresh),
    )
    k, mask = start(layer), None
    with full_precision(place.xp):
        for t in range(iters + 1):
            k, mask = step(layer, to, sparsity, stage(t, problem.W0, None), mask, k)
    return Solution(to_numpy(k.Z, "weight"), Stop.EXHAUSTED)
