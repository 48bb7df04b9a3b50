"""Fast twins of FISTAPruner and of refinement, judged from outside, and the products that every updating twin takes.

Letters as in `solvers.gpu.fista` and `solvers.gpu.refine`; s = 1/L for FISTA, 0.95/L for gradient steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from math import sqrt
from typing import Any

import numpy as np

from solvers import fista_pruner
from solvers import refine as reference
from solvers.array import Place
from solvers.gpu import admm as fast_admm
from solvers.gpu import alps as fast_alps
from solvers.gpu import fista as fast_fista
from solvers.gpu import refine as fast_refine
from solvers.gpu.layer import Layer
from solvers.linalg import RESIDUAL
from solvers.problem import LayerProblem
from solvers.sparsity import L1, Array, Budget, Mask
from theory_checks.cached import Watched
from theory_checks.certificate import Certificate, allowance
from theory_checks.stationarity import masked_least_squares, refinement_descends
from theory_checks.synthetic import Case, Check
from theory_checks.twins_updating import HERE, SINGLE, WHERE, copies, drift, problems, relative

STEPS = 8


def twin_fista(problem: LayerProblem, penalty: L1, x: Array, n: int = STEPS, place: Place = HERE) -> Certificate:
    """Every step of the twin is the step of `solvers.fista` from the same two iterates, and carries its own product.

    x+ = prox(y - s grad f(y)), y = x + b (x - x'), t and b as there, P+ = (x+ - W0) H. Assumptions: none. Measured: the
    largest violation in units of the magnitudes that meet in it. Why: the prox is nonexpansive, P is affine. Where:
    derived here. Tight: bound 0.
    """
    claim = "x+ = prox(y - s grad f(y)), P+ = (x+ - W0) H, t and b of FISTA, for every step of the twin"
    layer, s, seen = Layer(problem, place, fast_fista.BUFFERS), 1 / problem.lipschitz, [0.0]
    there = place.put(x)
    held = fast_fista.Rounded(there, layer.product(there, layer.xp.empty_like(there)))
    k = fast_fista.begun(held)
    for _ in range(n):
        x, x_prev = copies(k.x, k.x_prev)
        t, b = k.t, k.b
        k = fast_fista.step(layer, penalty, s, k, held)
        after, P = copies(k.x, k.P)
        y = x + b * (x - x_prev)
        reach = (2 * np.abs(x) + np.abs(x_prev) + np.abs(problem.W0)) * (1 + b)
        size = reach + s * (reach @ np.abs(problem.H) + drift(problem))
        off = np.abs(after - penalty.prox(y - s * problem.grad(y), s)).max()
        lost = np.abs(P - (after - problem.W0) @ problem.H).max()
        terms = (np.abs(after) + np.abs(problem.W0)) @ np.abs(problem.H)
        seen += [relative(float(off), float(size.max())), relative(float(lost), float(terms.max()))]
        on_time = k.t == (1 + sqrt(1 + 4 * t * t)) / 2 and k.b == (t - 1) / k.t
        seen.append(0.0 if on_time else np.inf)
    slack = allowance(1.0, problem.shape[1], place.precision)
    return Certificate("twin-fista", claim, WHERE, float(np.max(seen)), 0.0, slack)


def twin_rounds(problem: LayerProblem, budget: Budget, n: int = 4, place: Place = HERE) -> Certificate:
    """Every round of the twin rounds its V exactly, reports both errors, and bisects as the reference says.

    W = P(V) bit for bit, E_total^2 = 2 f(W) and E_round^2 = |(W - V) X~|^2 from outside, W is the best exactly if f
    fell and no entry is short, and lam follows from the errors. Assumptions: none. Measured: the largest violation in
    units of the magnitudes that meet in it. Where: derived here. Tight: bound 0.
    """
    claim = "W = P(V) exactly, both errors, the better of two, and lam by the bisection, for every round of the twin"
    layer, seen, how = Layer(problem, place, fast_fista.BUFFERS), [0.0], fast_fista.Settings(5, 0.0, 0.3, 1e-3)
    begin, best = fast_fista.start(layer, budget, place.put(problem.W0))
    [W_best] = copies(best.W)
    top = fista_pruner.lam_max(problem)
    low, lam, high = fista_pruner.LOWEST * top, how.first * top, top
    slack = allowance(1.0, problem.W0.size, place.precision)
    for r in islice(fast_fista.search(layer, budget, 1 / problem.lipschitz, begin, best, how), n):
        V, W = copies(r.V, r.W)
        reach = np.abs(problem.W0) + np.abs(W) + np.abs(V) + np.abs(W_best)
        terms = float(np.vdot(reach @ np.abs(problem.H) + drift(problem), reach)) + abs(problem.e0)
        rounding = float(np.vdot((W - V) @ problem.H, W - V))
        change = problem.change(W_best, W)
        full = np.count_nonzero(W) >= np.count_nonzero(W_best)
        seen.append(relative(abs(r.total**2 - 2 * problem.value(W)), terms))
        seen.append(relative(abs(r.rounding**2 - rounding), terms))
        seen.append(relative(max(0.0, change if r.better else -change if full else 0.0), terms))
        exact = np.array_equal(W, budget.prox(V)) and (full or not r.better)
        seen.append(0.0 if exact and abs(r.lam - lam) <= slack * top else np.inf)
        W_best = W if r.better else W_best
        low, high = (r.lam, high) if r.rounding > how.xi * r.total else (low, r.lam)
        lam = sqrt(low * high)
    return Certificate("twin-rounds", claim, WHERE, float(np.max(seen)), 0.0, slack)


def twin_gradient(problem: LayerProblem, mask: Mask, W: Array, steps: int, place: Place = HERE) -> Certificate:
    """The twin's gradient steps end where the reference's do, to what rounding does to the correction, not to W.

    Assumptions: W is supported on `mask`. Measured: the largest difference in units of the steps' own magnitudes, and
    of W in float64. Why: the corrections obey the same affine recursion, a contraction. Where: derived here. Tight:
    bound 0.
    """
    claim = "W after N masked gradient steps is the reference's, in units of the way that it went"
    s = 0.95 / problem.lipschitz
    got = fast_refine.refine(problem, mask, W, f"gradient:{steps}", place)
    off = float(np.abs(got - reference.gradient_steps(problem, mask, W, steps, s)).max())
    way = steps * s * float(np.linalg.norm(np.where(mask, problem.grad(W), 0.0), axis=1).max())
    H = float(np.abs(problem.H).sum(axis=1).max())
    size = float((np.abs(W) + np.abs(problem.W0)).max()) * (1 + s * H) * steps + steps * s * float(
        np.max(drift(problem))
    )
    limit = allowance(way * (1 + s * H), len(problem.H), place.dtype) + allowance(size, len(problem.H))
    outside = float("inf") if np.any(got[~mask]) else off
    return Certificate("twin-gradient", claim, WHERE, outside, 0.0, limit)


def twin_refit(problem: LayerProblem, mask: Mask, W: Array, place: Place = HERE) -> list[Certificate]:
    """The twin's refit solves the normal equations to the residual asked for, whatever the precision, and descends.

    Assumptions: W is supported on `mask`. Measured and bound: as in `masked_least_squares` and `refinement_descends`.
    Why: residuals are found in float64 between corrections. Where: derived here. Tight as those are.
    """
    got = fast_refine.refine(problem, mask, W, "exact", place)
    judged = (masked_least_squares(problem, mask, got, tol=RESIDUAL), refinement_descends(problem, W, got))
    return [replace(certificate, name="twin-refit") for certificate in judged]


def twin_step_products(problem: LayerProblem, budget: Budget, n: int = 6) -> Iterator[Certificate]:
    """A round of ADMM multiplies once, one of ALPS twice, a step of FISTA or of conjugate gradients once.

    Assumptions: none. Measured: products with the Gram or a factor of it, counted by the array itself. Where: derived
    here. Tight: equality.
    """
    for name, count, taken in (
        ("ADMM", 1, _admm_products(problem, budget, n)),
        ("ALPS", 2, _alps_products(problem, budget, n)),
        ("FISTA", 1, _fista_products(problem, n)),
        ("conjugate gradients", 1, _refit_products(problem, n)),
    ):
        claim = f"n rounds of {name} take {count} n products"
        yield Certificate("twin-step-products", claim, WHERE, float(taken), float(count * n))


def _watched(array: Any) -> Watched:
    watched: Watched = array.view(Watched)
    watched.products = []
    return watched


def _admm_products(problem: LayerProblem, budget: Budget, n: int) -> int:
    layer, to = Layer(problem, HERE, fast_admm.BUFFERS), fast_admm.pull(problem, 1.0, HERE)
    layer.H = H = _watched(layer.H)
    G, mask, k = _watched(to.G[0]), None, fast_admm.start(layer)
    for _ in range(n):
        k, mask = fast_admm.step(layer, to._replace(G=(G,)), budget, budget, mask, k)
    return len(G.products) + len(H.products)


def _alps_products(problem: LayerProblem, budget: Budget, n: int) -> int:
    layer, found = Layer(problem, HERE, fast_alps.BUFFERS), fast_alps.eigen(problem, HERE)
    layer.H = H = _watched(layer.H)
    Q, turned = _watched(found.vectors[0]), _watched(found.turned[0])
    eigen = fast_alps.Eigen(found.values, (Q,), (turned,))
    k = fast_alps.start(layer, budget)
    for _ in range(n):
        _, k = fast_alps.step(layer, budget, 0.1, eigen, k)
    return len(Q.products) + len(turned.products) + len(H.products)


def _fista_products(problem: LayerProblem, n: int) -> int:
    layer = Layer(problem, HERE, fast_fista.BUFFERS)
    held = fast_fista.Rounded(layer.W0, layer.xp.zeros_like(layer.W0))
    k = fast_fista.begun(held)
    layer.H = H = _watched(layer.H)
    for _ in range(n):
        k = fast_fista.step(layer, L1(0.0), 1 / problem.lipschitz, k, held)
    return len(H.products)


def _refit_products(problem: LayerProblem, n: int) -> int:
    on = fast_refine.Support.of(problem, np.ones(problem.shape, dtype=np.bool_), HERE)
    H = _watched(on.H)
    fast_refine.correction(on._replace(H=H, H64=H), problem.W0 + 1.0, np.full((len(problem.W0), 1), -1.0), n)
    return len(H.products)


def _fista(case: Case) -> Iterator[Certificate]:
    for problem, place in problems(case):
        for x in (problem.W0, case.some_weight()):
            yield twin_fista(problem, case.absolute, x, place=place)


def _rounds(case: Case) -> Iterator[Certificate]:
    for problem, place in problems(case):
        for budget in case.budgets:
            yield twin_rounds(problem, budget, place=place)


def _masked(case: Case) -> Iterator[tuple[LayerProblem, Place, Mask, Array]]:
    for problem, place in (*problems(case), (case.problem.normalised(1e-2), SINGLE)):
        W = np.where(case.budgets[0].mask(np.abs(case.some_weight())), problem.W0, 0.0)
        yield problem, place, W != 0, W


def _gradient(case: Case) -> Iterator[Certificate]:
    for problem, place, mask, W in _masked(case):
        for steps in (1, 30):
            yield twin_gradient(problem, mask, W, steps, place)


def _refit(case: Case) -> Iterator[Certificate]:
    for problem, place, mask, W in _masked(case):
        yield from twin_refit(problem, mask, W, place)


def _products(case: Case) -> Iterator[Certificate]:
    yield from twin_step_products(case.judge, case.budgets[0])


CHECKS: dict[str, Check] = {
    "twin-fista": _fista,
    "twin-rounds": _rounds,
    "twin-gradient": _gradient,
    "twin-refit": _refit,
    "twin-step-products": _products,
}
