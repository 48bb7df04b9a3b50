"""Rungs of precision: what their products are, how much they lose, and that a scheduled run ends in float64.

Letters as in `solvers.rungs`: fl rounding to b bits, h and l the parts, e the loss. Rounding is done here by scaling
with `frexp`, in the twins by adding and taking away a large number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from solvers import maiht
from solvers.array import Place, to_numpy
from solvers.gpu import precision
from solvers.gpu.iterate import iterate
from solvers.problem import LayerProblem
from solvers.rungs import RUNGS, Rung
from solvers.solution import Solution
from solvers.sparsity import Array, Budget
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check
from theory_checks.twins import BUFFERS, HERE, TWINS, Seen, _off

WHERE = "derived here"
LOW = tuple(name for name, rung in RUNGS.items() if rung.unit)
ITERS, RAMP = 12, 0.75


def nearest(A: Array, bits: int) -> Array:
    """The nearest numbers of `bits` significant bits, ties to even."""
    mantissa, exponent = np.frexp(A)
    return np.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits), dtype=np.float64)


def rung_product(name: str, A: Array, B: Array, place: Place = HERE) -> Certificate:
    """The product of a rung is the product of the rounded factors, or of their parts, with sums in float32.

    Assumptions: A, B are float32 numbers. Measured: the largest distance from it, in units of |A| |B|. Why: products of
    two numbers of at most 11 bits are exact in float32. Where: by construction. Tight: bound 0.
    """
    claim = "P = fl(A) fl(B), or h h + h l + l h, up to the rounding of its float32 sums"
    rung = RUNGS[name]
    h, g = nearest(A, rung.bits), nearest(B, rung.bits)
    expected = h @ g
    if rung.parts == 2:
        expected = expected + h @ nearest(B - g, rung.bits) + nearest(A - h, rung.bits) @ g
    off = _off_by(_multiplied(rung, A, B, place) - expected, A, B)
    return Certificate("rung-product", claim, "by construction", off, 0.0, allowance(1.0, A.shape[1], rung.dtype))


def rung_loss(name: str, A: Array, B: Array, place: Place = HERE) -> Certificate:
    """The product of a rung differs from A B by at most e |A| |B|, plus the rounding of its sums.

    Assumptions: A, B are float32 numbers. Measured: the largest |P - A B| in units of |A| |B|. Where: derived here, (3)
    and (4) of `solvers.rungs`. Upper bound.
    """
    claim = "|P - A B| <= e |A| |B|"
    off = _off_by(_multiplied(RUNGS[name], A, B, place) - A @ B, A, B)
    return Certificate("rung-loss", claim, WHERE, off, RUNGS[name].loss, allowance(1.0, A.shape[1], RUNGS[name].dtype))


def _multiplied(rung: Rung, A: Array, B: Array, place: Place) -> Array:
    left, right = (place._replace(rung=rung.name).put(factor) for factor in (A, B))
    return to_numpy(precision.product(left, precision.split(right, rung), rung, place.xp.empty_like(left)), "product")


def _off_by(difference: Array, A: Array, B: Array) -> float:
    size = np.abs(A) @ np.abs(B)
    return float((np.abs(difference)[size > 0] / size[size > 0]).max(initial=0.0))


def twin_finish(name: str, problem: LayerProblem, budget: Budget, rung: str, place: Place = HERE) -> Certificate:
    """After its schedule a run on any rung goes on in float64: every later step is the reference's, from its own state.

    Assumptions: a budget with a schedule of more than one step. Measured: the largest violation of a step after it, as
    in `twin-step`, infinite where the trace names another row or precision for the change. Where: derived here: the
    points are kept and their forward steps recomputed. Tight: bound 0.
    """
    claim = "every step after the schedule is that of the reference, to the rounding of float64, and the trace says so"
    found, seen = _watched(name, problem, budget, place._replace(rung=rung, finish="fp64"))
    trace = found.trace
    assert trace is not None
    T = round(RAMP * ITERS) - 1
    told = trace.dtype == "float64" and trace.ramp_dtype == RUNGS[rung].precision
    rested = trace.ramp_rows < T and _level_is_final(trace.level, trace.ramp_rows, budget)
    worst = float("inf")
    if told and (trace.ramp_rows == T or rested):
        worst = max(_off(TWINS[name], problem, budget, trace.step, step) for step in seen[trace.ramp_rows :])
    return Certificate("twin-finish", claim, WHERE, worst, 0.0, allowance(1.0, problem.shape[1], "float64"))


def _level_is_final(levels: list[float], row: int, budget: Budget) -> bool:
    return levels[row - 1] == budget.level


def _watched(name: str, problem: LayerProblem, budget: Budget, place: Place) -> tuple[Solution, list[Seen]]:
    """A run, with float64 copies of the state before and after each step."""
    twin, seen, points = TWINS[name], [], [problem.W0]

    def step(layer: Any, sparsity: Any, s: float, k: Any) -> Any:
        before = _copied(k, points)
        after = twin.step(layer, sparsity, s, k)
        points.append(to_numpy(after.x, "weight"))
        seen.append(Seen(before, _copied(after, points)))
        return after

    options = {"buffers": BUFFERS, "safety": 0.95, "tol": 0.0, "resume": twin.resume}
    return iterate(twin.start, step, problem, budget, place, iters=ITERS, ramp=RAMP, **options), seen


def _copied(k: Any, points: list[Array]) -> maiht.State:
    x, z, v = (to_numpy(w, "weight") for w in (k.x, getattr(k, "z", k.x), k.v))
    before = points[-2] if len(points) > 1 else points[0]
    return maiht.State(x, before, z, v, getattr(k, "t", 1.0), getattr(k, "t_prev", 0.0), k.Fx, k.Fv)


def _products(case: Case) -> Iterator[tuple[Array, Array]]:
    H = case.judge.H.astype(np.float32).astype(np.float64)
    for W in (case.judge.W0, case.some_weight(), np.round(2 * case.some_weight()) + 2.0**-9):
        yield W.astype(np.float32).astype(np.float64), H


def _product_checks(case: Case) -> Iterator[Certificate]:
    for A, B in _products(case):
        for name in LOW:
            yield rung_product(name, A, B)


def _loss_checks(case: Case) -> Iterator[Certificate]:
    for A, B in _products(case):
        for name in RUNGS:
            yield rung_loss(name, A, B)


def _finishes(case: Case) -> Iterator[Certificate]:
    for name in ("iht", "maiht"):
        for budget in case.budgets:
            for rung in ("fp32", "bf16"):
                yield twin_finish(name, case.judge, budget, rung)


CHECKS: dict[str, Check] = {"rung-product": _product_checks, "rung-loss": _loss_checks, "twin-finish": _finishes}
