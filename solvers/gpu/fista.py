"""FISTAPruner with one product per step of FISTA where the reference takes two, in float32 where asked.

Letters as in `solvers.fista_pruner`; P_w = (w - W0) H as in `solvers.gpu.layer`, t and x as in `solvers.fista`.

    P_y  = P_x + b (P_x - P_x'),   y = x + b (x - x'),   b = (t' - 1)/t,  x' the iterate before   (1)
    x_+  = prox_{lam/L}(y - (P_y + R)/L),   one product for P_x+                                  (2)
    P_W  = P_V + (W - V) H,   E_round^2 = <(W - V) H, W - V>,   one product                       (3)
    f(W) - f(best) = <(P_W + P_best)/2 + R, W - best>                                             (4)

A round takes a product per step of FISTA and one more. Rounded weights are compared by (4) and not by their errors,
which differ by less than their rounding near a minimum.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import sqrt
from typing import Any, NamedTuple

from solvers.array import Place, full_precision, into, to_numpy
from solvers.fista_pruner import LOWEST, STARTS
from solvers.gpu.layer import Layer
from solvers.gpu.sparsegpt import sparsegpt
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Relaxed, Solution, Stop
from solvers.sparsity import L1, Budget

BUFFERS = 8


class State(NamedTuple):
    """x and the iterate before it, with their products; b is the momentum of the next step."""

    x: Any
    x_prev: Any
    P: Any
    P_prev: Any
    t: float = 1.0
    b: float = 0.0


class Rounded(NamedTuple):
    """Rounded weights and their product."""

    W: Any
    P: Any


class Round(NamedTuple):
    """One round: lam, V, W, both errors of (3), and whether W is the best so far; arrays that the next overwrites."""

    lam: float
    V: Any
    W: Any
    total: float
    rounding: float
    better: bool


class Settings(NamedTuple):
    """Options of the method that the rounds read."""

    iters: int
    tol: float
    xi: float
    first: float


def begun(at: Rounded) -> State:
    """FISTA before its first step."""
    return State(at.W, at.W, at.P, at.P)


def step(layer: Layer, penalty: L1, s: float, k: State, held: Rounded) -> State:
    """One step of FISTA (1), (2); `held` keeps its buffers."""
    x, P = layer.lend(2, (*k[:4], *held))
    x = layer.combined([(1 + k.b, k.x), (-k.b, k.x_prev)], x)
    P = layer.combined([(1 + k.b, k.P), (-k.b, k.P_prev)], P)  # (1)
    if layer.R is not None:
        P += layer.R
    P *= s
    x -= P
    x = layer.prox(penalty, x, s)
    t = (1 + sqrt(1 + 4 * k.t**2)) / 2
    return State(x, k.x, layer.product(x, P), k.P, t, (k.t - 1) / t)  # (2)


def relaxed(layer: Layer, penalty: L1, s: float, begin: Rounded, held: Rounded, iters: int, tol: float) -> State:
    """FISTA from weights with their product, until a step moves less than tol |x|."""
    k = begun(begin)
    for _ in range(iters):
        k = step(layer, penalty, s, k, held)
        if layer.square(k.x, k.x_prev) <= tol * tol * layer.inner(k.x_prev, k.x_prev):
            break
    return k


def rounded(layer: Layer, budget: Budget, V: Any, P: Any, held: Rounded) -> tuple[Rounded, float]:
    """W with its product, and E_round (3)."""
    W, image = layer.lend(2, (V, P, *held))
    W = layer.prox(budget, layer.combined([(1.0, V)], W), 1.0)
    image = layer.times(into(layer.xp.subtract, W, V, out=layer.scratch[0]), layer.factors, image)
    rounding = layer.inner(image, into(layer.xp.subtract, W, V, out=layer.scratch[0]))
    image += P  # (3)
    return Rounded(W, image), sqrt(max(0.0, rounding))


def kept(layer: Layer, W: Any) -> int:
    """Nonzeros of rounded weights."""
    return int(layer.xp.count_nonzero(W))


def start(layer: Layer, budget: Budget, V: Any) -> tuple[Rounded, Rounded]:
    """The weights that the first round begins from, and the best ones so far, which meet the budget."""
    begin = Rounded(V, layer.product(V, layer.xp.empty_like(V)))
    return begin, rounded(layer, budget, V, begin.P, begin)[0]


def search(layer: Layer, budget: Budget, s: float, begin: Rounded, best: Rounded, how: Settings) -> Iterator[Round]:
    """Rounds without end, unless weights of zero are optimal whatever lam is."""
    top = steepest(layer, best)
    low, lam, high = LOWEST * top, how.first * top, top
    while top > 0:
        k = relaxed(layer, L1(lam), s, begin, best, how.iters, how.tol)
        now, rounding = rounded(layer, budget, k.x, k.P, best)
        total = sqrt(max(0.0, 2 * layer.value(now.W, now.P)))
        better = layer.change(now.W, now.P, best.W, best.P) < 0 and kept(layer, now.W) >= kept(layer, best.W)  # (4)
        yield Round(lam, k.x, now.W, total, rounding, better)
        begin = best = now if better else best
        low, high = (lam, high) if rounding > how.xi * total else (low, lam)
        lam = sqrt(low * high)


def steepest(layer: Layer, held: Rounded) -> float:
    """lam_max: the largest entry of |grad f(0)|."""
    zero, P = layer.lend(2, held)
    zero = into(layer.xp.subtract, layer.W0, layer.W0, out=zero)
    P = layer.product(zero, P)
    if layer.R is not None:
        P += layer.R
    return float(layer.xp.max(into(layer.xp.abs, P, out=P)))


def warm(problem: LayerProblem, budget: Budget, name: str, place: Place) -> Any:
    """The weights of the pruner of that name on the place, SparseGPT's from its own twin."""
    if name not in STARTS:
        raise Refusal(f"start is one of {', '.join(STARTS)}; got '{name}'.")
    found = sparsegpt(problem, budget, place) if name == "sparsegpt" else STARTS[name](problem, budget)
    return place.put(found.weight)


def fista(
    problem: LayerProblem,
    budget: Budget,
    place: Place,
    *,
    start: str = "wanda",
    iters: int = 20,
    rounds: int = 30,
    patience: int = 3,
    xi: float = 0.3,
    first: float = 1e-3,
    tol: float = 1e-6,
) -> Solution:
    """The fast twin of `solvers.fista_pruner.fista_pruner`: the same rounds to rounding.

    Parameters
    ----------
    place : library, precision and device of the computation
    start, iters, rounds, patience, xi, first, tol : as in the reference
    """
    return _run(
        problem, budget, place, warm(problem, budget, start, place), Settings(iters, tol, xi, first), rounds, patience
    )


def _run(
    problem: LayerProblem, budget: Budget, place: Place, V: Any, how: Settings, most: int, patience: int
) -> Solution:
    layer, idle, found = Layer(problem, place, BUFFERS), 0, None
    with full_precision(place.xp):
        begin, best = start(layer, budget, V)
        weight = to_numpy(best.W, "weight")
        for k in islice(search(layer, budget, 1 / problem.lipschitz, begin, best, how), most):
            idle = 0 if k.better else idle + 1
            if k.better:
                weight, found = to_numpy(k.W, "weight"), Relaxed(problem, L1(k.lam), to_numpy(k.V, "weight"))
            if idle == patience:
                break
    return Solution(weight, Stop.CONVERGED if idle == patience else Stop.EXHAUSTED, relaxed=found)
