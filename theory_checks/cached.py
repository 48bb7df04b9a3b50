"""A second text of mAIHT that remembers its Gram products, its agreement with the first, and its cost.

Letters: P_w = (w - W0) H, so that grad f(w) = P_w + R; c1, c2 the coefficients of the momentum; y an affine
combination of x, z and x_prev, hence P_y the same combination of theirs.

    y   = x + c1 (z - x) + c2 (x - x_prev),   P_y = P_x + c1 (P_z - P_x) + c2 (P_x - P_prev)      (1)
    z+  = prox_{sg}(y - s (P_y + R)),         P_z+ = (z+ - W0) H                                  (2)
    v   = prox_{sg}(x - s (P_x + R)),         P_v = (v - W0) H                                    (3)
    F(w) = <P_w / 2 + R, w - W0> + e0 + g(w)  for w = z+ and w = v                                (4)
    x+  = z+ if F(z+) <= F(v) else v, and P_x+ likewise                                           (5)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from solvers import maiht
from solvers.problem import Gram, LayerProblem
from solvers.sparsity import Array, Sparsity
from theory_checks.certificate import Certificate, allowance
from theory_checks.paths import too_long, walk
from theory_checks.synthetic import Case, Check

WHERE = "derived here, from Li, Lin 2015, Alg. 1"


class State(NamedTuple):
    x: Array
    x_prev: Array
    z: Array
    Px: Array
    Pprev: Array
    Pz: Array
    t: float = 1.0
    t_prev: float = 0.0
    Fx: float = float("inf")


def start(problem: LayerProblem, x: Array) -> State:
    """From x; the one product before the first step."""
    P = product(problem, x)
    return State(x, x, x, P, P, P)


def product(problem: LayerProblem, w: Array) -> Array:
    """P_w, the only place that multiplies by H."""
    return (w - problem.W0) @ problem.H


def combined(k: State) -> tuple[Array, Array]:
    """y and P_y of (1)."""
    c1, c2 = k.t_prev / k.t, (k.t_prev - 1) / k.t
    y: Array = k.x + c1 * (k.z - k.x) + c2 * (k.x - k.x_prev)
    P: Array = k.Px + c1 * (k.Pz - k.Px) + c2 * (k.Px - k.Pprev)
    return y, P


def step(problem: LayerProblem, sparsity: Sparsity, s: float, k: State) -> State:
    """One step (1)-(5)."""
    R = 0.0 if problem.R is None else problem.R
    y, Py = combined(k)  # (1)
    z = sparsity.prox(y - s * (Py + R), s)  # (2)
    v = sparsity.prox(k.x - s * (k.Px + R), s)  # (3)
    Pz, Pv = product(problem, z), product(problem, v)
    Fz, Fv = objective(problem, sparsity, z, Pz), objective(problem, sparsity, v, Pv)  # (4)
    x, Px, Fx = (z, Pz, Fz) if Fz <= Fv else (v, Pv, Fv)  # (5)
    return State(x, k.x, z, Px, k.Px, Pz, (1 + sqrt(1 + 4 * k.t**2)) / 2, k.t, Fx)


def objective(problem: LayerProblem, sparsity: Sparsity, w: Array, P: Array) -> float:
    """F(w) of (4), without a product."""
    R = 0.0 if problem.R is None else problem.R
    return float(np.vdot(P / 2 + R, w - problem.W0)) + problem.e0 + sparsity.value(w)


def cached_gradients(problem: LayerProblem, sparsity: Sparsity, x: Array, s: float, n: int = 50) -> Certificate:
    """y, x, both gradients and F of the two texts agree to rounding for n steps from any x.

    Assumptions: constant sparsity, s L <= 2. Once the texts decide differently - on a support, or between z and v -
    within what rounding may move, the runs part for good and the comparison ends with the inputs of that decision.
    Measured: the largest difference in units of the magnitudes that meet in it. Why: H y is linear in y. Where:
    derived here. Tight: bound 0.
    """
    name, claim = "cached-gradients", "y, x, grad f(y), grad f(x), F(x) of both texts agree for every n"
    if reason := too_long(problem, s, 2.0):
        return Certificate(name, claim, WHERE, 0.0, 0.0, applies=reason)
    direct = walk(maiht.step, maiht.State(x, x, x, x), problem, sparsity, s, n)
    kept = walk(step, start(problem, x), problem, sparsity, s, n)
    seen = [0.0]
    for a, b, a_next, b_next in zip(direct, kept, direct[1:], kept[1:], strict=False):
        seen.append(_apart(problem, sparsity, s, a, b))
        if _decided(a_next) != _decided(b_next):
            break
    return Certificate(name, claim, WHERE, max(seen), 0.0, n * allowance(1.0, x.size))


def two_products(problem: LayerProblem, sparsity: Sparsity, x: Array, s: float, n: int = 50) -> Certificate:
    """n steps of the text that remembers multiply by the Gram 2n times; `maiht.step` does 4n times.

    Assumptions: none. Measured: matrix products with H, counted by the array itself. Where: derived here. Tight:
    equality.
    """
    name, claim = "two-products", "n steps of the text that remembers take 2n products with the Gram"
    H = problem.H.view(Watched)
    watched = LayerProblem(problem.W0, Gram(H, problem.gram.ridge), problem.R, problem.e0, problem.scale)
    state = start(watched, x)
    H.products.clear()
    walk(step, state, watched, sparsity, s, n)
    return Certificate(name, claim, WHERE, float(len(H.products)), 2.0 * n)


class Watched(np.ndarray[tuple[int, ...], np.dtype[np.float64]]):
    """An array that notes every matrix product it enters; what is computed from it is plain."""

    products: list[str]

    def __array_finalize__(self, of: Any) -> None:
        self.products = getattr(of, "products", [])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if ufunc is np.matmul:
            self.products.append(method)
        plain = [np.asarray(a) if isinstance(a, Watched) else a for a in inputs]
        return getattr(ufunc, method)(*plain, **options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function in (np.dot, np.vdot, np.einsum, np.inner, np.tensordot):
            self.products.append(function.__name__)
        return function(*(np.asarray(a) if isinstance(a, Watched) else a for a in args), **options)


def _apart(problem: LayerProblem, sparsity: Sparsity, s: float, a: maiht.State, b: State) -> float:
    """The largest relative difference of what the two texts are about to step from."""
    R = 0.0 if problem.R is None else problem.R
    y, Py = combined(b)
    u = a.x + a.t_prev / a.t * (a.z - a.x) + (a.t_prev - 1) / a.t * (a.x - a.x_prev)
    reach: Array = np.abs([a.x, a.x_prev, a.z, problem.W0]).sum(axis=0)
    scale = float((reach + s * (reach @ np.abs(problem.H) + np.abs(R))).sum())
    pairs = ((u, y), (a.x, b.x), (s * problem.grad(u), s * (Py + R)), (s * problem.grad(a.x), s * (b.Px + R)))
    apart = max(float(np.abs(one - two).max()) for one, two in pairs)
    if not np.isfinite(b.Fx):
        return apart / scale if scale > 0 else apart
    terms = problem.magnitude(reach) + sparsity.value(b.x)
    off = abs(b.Fx - problem.value(b.x) - sparsity.value(b.x))
    return max(apart / scale if scale > 0 else apart, off / terms if terms > 0 else off)


def _decided(k: maiht.State | State) -> tuple[bytes, bytes, bool]:
    """Both supports, and which of z and v was taken."""
    return (k.x != 0).tobytes(), (k.z != 0).tobytes(), k.x is k.z


def _runs(case: Case, claim: Callable[..., Certificate]) -> Iterator[Certificate]:
    problem, s = case.judge, 0.95 / case.judge.lipschitz
    yield claim(problem, case.penalty, problem.W0, s)
    yield claim(problem, case.penalty, case.some_weight(), s)
    yield claim(problem, case.budgets[0], case.some_weight(), s)


CHECKS: dict[str, Check] = {
    "cached-gradients": partial(_runs, claim=cached_gradients),
    "two-products": partial(_runs, claim=partial(two_products, n=8)),
}
