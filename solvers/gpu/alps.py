"""ALPS with the products of a round in float32 where asked, two of them, and everything else in place.

Letters as in `solvers.alps`; Y = W_t+1 + V_t / rho.

    Y     = W0 + V_t / rho + ((rho (D_t - W0) - V_t - R) Q / (l + rho)) Q'                        (1)
    D_t+1 = P(Y),   V_t+1 = rho (Y - D_t+1)                                                       (2)

(2) is V_t + rho (W_t+1 - D_t+1) without its cancellation: V vanishes on the support of D, exactly. The eigenvectors
are found in float64, once per site. Supports are compared every third round, and only then is the device waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from solvers.alps import CHECK, growth
from solvers.array import Place, full_precision, into, to_numpy
from solvers.gpu import factor, precision
from solvers.gpu.layer import Layer
from solvers.gpu.refine import conjugate_gradients
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Solution, Stop
from solvers.sparsity import Budget

BUFFERS = 5


class State(NamedTuple):
    D: Any
    V: Any


class Eigen(NamedTuple):
    """Eigenvalues l (in,) of H in the precision of the place, vectors Q (in, in) and Q' as its rung multiplies them."""

    values: Any
    vectors: tuple[Any, ...]
    turned: tuple[Any, ...]


class Round(NamedTuple):
    """What one round did, as in the reference, with Y in place of W; arrays that the next round may overwrite."""

    rho: float
    before: State
    Y: Any
    after: State
    settled: bool


def eigen(problem: LayerProblem, place: Place) -> Eigen:
    """H = Q diag(l) Q', rounded once, or as often as it has parts."""
    xp, dtype = place.xp, getattr(place.xp, place.dtype)
    values, vectors = factor.eigen(problem.gram, place)
    parts = precision.split(xp.astype(vectors, dtype), precision.RUNGS[place.rung])
    return Eigen(xp.astype(values, dtype), parts, tuple(part.T for part in parts))


def start(layer: Layer, sparsity: Budget) -> State:
    D, _ = layer.buffers[:2]
    return State(layer.prox(sparsity, layer.combined([(1.0, layer.W0)], D), 1.0), layer.xp.zeros_like(layer.W0))


def step(layer: Layer, sparsity: Budget, rho: float, H: Eigen, k: State) -> tuple[Any, State]:
    """Y and the state after it."""
    T, Y, V = layer.lend(3, k)
    T = into(layer.xp.subtract, k.D, layer.W0, out=T)
    T *= rho
    T -= k.V
    if layer.R is not None:
        T -= layer.R
    turned = layer.times(T, H.vectors, Y)
    turned /= H.values + rho
    Y = layer.times(turned, H.turned, T)
    Y += layer.W0
    Y += into(layer.xp.multiply, k.V, 1 / rho, out=layer.scratch[0])  # (1)
    D = layer.prox(sparsity, layer.combined([(1.0, Y)], turned), 1.0)
    V = into(layer.xp.subtract, Y, D, out=V)
    V *= rho  # (2)
    return Y, State(D, V)


def rounds(layer: Layer, sparsity: Budget, H: Eigen, rho: float, iters: int) -> Iterator[Round]:
    """Rounds until the support rests between two checks, `iters` at most."""
    k, xp = start(layer, sparsity), layer.xp
    checked = k.D != 0
    for t in range(1, iters + 1):
        before, (Y, k) = k, step(layer, sparsity, rho, H, k)
        settled, used = False, rho
        if t % CHECK == 0:
            support = k.D != 0
            changed, kept = int(xp.count_nonzero(support != checked)), int(xp.count_nonzero(support))
            settled, checked = changed == 0, support
            rho *= growth(changed, kept)
        yield Round(used, before, Y, k, settled)
        if settled:
            return


def alps(
    problem: LayerProblem,
    sparsity: Budget,
    place: Place,
    *,
    iters: int = 300,
    rho: float = 0.1,
    polish: int = 10,
) -> Solution:
    """The fast twin of `solvers.alps.alps`: the same rounds to rounding, the polish by `solvers.gpu.refine`.

    Parameters
    ----------
    place : library, precision and device of the computation
    iters, rho, polish : as in the reference
    """
    if not 0 < rho < float("inf"):
        raise Refusal(f"rho must be positive and finite; got {rho}. The release starts at 0.1.")
    if iters < 1:
        raise Refusal(f"iters is at least 1; got {iters}.")
    sparsity.windows(problem.W0)  # refuses a width that it does not divide
    layer = Layer(problem, place, BUFFERS)
    with full_precision(place.xp):
        for last in rounds(layer, sparsity, eigen(problem, place), rho, iters):
            D = last.after.D
        W = to_numpy(D, "weight")
        W = conjugate_gradients(problem, W != 0, W, place, tol=0.0, iters=polish)
    return Solution(W, Stop.SETTLED if last.settled else Stop.EXHAUSTED)
