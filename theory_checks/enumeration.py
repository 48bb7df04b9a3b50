"""The exact optimum of small rows by enumeration, and what it owes and is owed: bounds, fixed points, exchanges.

Letters: M = H^-1, C the inputs removed from a row, k inputs kept, F* the optimum. Removing C at best costs
1/2 w0_C' (M_CC)^-1 w0_C: a closed form in what is removed, which keeps its digits when little is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from solvers import iht
from solvers.problem import LayerProblem
from solvers.sparsity import L0, Array, KeepPerRow, Mask
from theory_checks import optimality
from theory_checks.certificate import Certificate, allowance
from theory_checks.restoration import Design, design_of
from theory_checks.synthetic import Case, Check

MOST = 12  # inputs of a row that is enumerated: 924 supports of 6
SAFETY = (0.01, 0.3, 0.95, 1.0)  # step sizes in units of 1/L


class Optimum(NamedTuple):
    """The global optimum of every row: its value (out,) and its weight (out, in)."""

    F: Array
    W: Array


def removal_costs(M: Array, w0: Array, removed: npt.NDArray[np.int64]) -> Array:
    """1/2 w0_C' (M_CC)^-1 w0_C for every C, a row of `removed`."""
    if removed.shape[1] == 0:
        return np.zeros(len(removed))
    w = w0[removed]
    inner = np.linalg.solve(M[removed[:, :, None], removed[:, None, :]], w[:, :, None])[:, :, 0]
    return np.asarray((w * inner).sum(axis=1) / 2)


def without(M: Array, w0: Array, C: npt.NDArray[np.int64]) -> Array:
    """The best weight of a row that does not use the inputs C."""
    w = w0 - M[:, C] @ np.linalg.solve(M[np.ix_(C, C)], w0[C])
    w[C] = 0.0
    return np.asarray(w)


def optimum(problem: LayerProblem, k: int, lam: float = 0.0) -> Optimum:
    """Every row's minimum of f over supports of k inputs, at most MOST inputs; with lam > 0 of f + lam |w|_0."""
    n, M = len(problem.H), np.linalg.inv(problem.H).astype(np.float64)
    sizes = range(n + 1) if lam > 0 else (n - k,)
    families = [np.array([*combinations(range(n), c)], dtype=np.int64).reshape(comb(n, c), c) for c in sizes]
    values, rows = [], []
    for w0 in problem.W0:
        costs = [removal_costs(M, w0, C) + lam * (n - C.shape[1]) for C in families]
        best = min(range(len(costs)), key=lambda i: float(costs[i].min()))
        values.append(float(costs[best].min()))
        rows.append(without(M, w0, families[best][int(costs[best].argmin())]))
    return Optimum(np.array(values), np.array(rows))


def exact_optimum(design: Design, best: Optimum, row: int, w: Array) -> Certificate:
    """F* <= f(w) for a row found by any method with as many inputs; `slack` is how far it is from the global optimum.

    Assumptions: w has no more nonzeros than the optimum may, f(w) from tokens. Why: F* is the least over all supports.
    Where: derived here. Tight: reached wherever a method finds the best support and refits.
    """
    D = Design(design.A, design.W0[row : row + 1])
    spectrum = D.spectrum()
    scale = D.terms(w[None]) + float(best.F[row] * spectrum[-1] / spectrum[0])
    claim, where = "F* by enumeration <= f(w) of a method's row with as many inputs", "enumeration"
    slack = allowance(scale, sum(D.A.shape))
    return Certificate("exact-optimum", claim, where, float(best.F[row]), D.value(w[None]), slack)


def separable_below(problem: LayerProblem, design: Design, best: Optimum, k: int) -> Certificate:
    """The separable lower bound, sum of the cheapest ridge w0^2 / 2, does not exceed the sum of the rows' F*.

    Assumptions: ridge > 0, H - ridge I positive semidefinite. Where: derived here. Upper bound.
    """
    name, claim, where = "separable-below", "sum of the cheapest ridge w0^2 / 2 <= F*", "separable relaxation"
    if problem.gram.ridge <= 0:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"ridge = {problem.gram.ridge:.3g}, the bound is 0")
    spectrum, total = design.spectrum(), float(best.F.sum())
    rounding = allowance(total * float(spectrum[-1] / spectrum[0]), best.W.size)
    measured = optimality.separable_bound(problem, KeepPerRow(k))
    return Certificate(name, claim, where, measured, total, rounding)


def optimum_is_fixed(
    problem: LayerProblem, design: Design, sparsity: L0 | KeepPerRow, best: Optimum, s: float
) -> Certificate:
    """The global minimiser is a fixed point of iterative hard thresholding: w* in prox_{sg}(w* - s grad f(w*)).

    Both w* and IHT's next iterate minimise |v - z|^2 / 2s + g(v), z = w* - s grad f(w*); ties cannot hurt.
    Assumptions: s L <= 1. Why: otherwise the next iterate would have a smaller objective. Measured: the difference of
    the two values. Where: Beck, Eldar 2013, sec. 2. Tight: bound 0.
    """
    name, claim = "optimum-is-fixed", "|v - z|^2/2s + g(v) is the same at the global optimum and at IHT's next iterate"
    where, spectrum = "Beck, Eldar 2013, sec. 2", design.spectrum()
    if s * spectrum[-1] > 1 + allowance(1.0, len(problem.H)):
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"step * L = {s * spectrum[-1]:.6g} > 1")
    pull = s * (best.W - design.W0) @ design.A.T @ design.A
    z = best.W - pull
    v = iht.step(problem, sparsity, s, iht.State(best.W, best.W)).x

    def cost(V: Array) -> float:
        count = np.count_nonzero(V, axis=1)
        if isinstance(sparsity, KeepPerRow):
            g = 0.0 if count.max() <= sparsity.keep else np.inf
        else:
            g = sparsity.lam * float(count.sum())
        return float(np.square(V - z).sum()) / (2 * s) + g

    spread = float(spectrum[-1] / spectrum[0])
    reach = (np.abs(best.W - design.W0) @ np.abs(design.A).T @ np.abs(design.A)) * s
    size = float(np.linalg.norm(z) + np.linalg.norm(best.W))
    scale = size * (size + float(np.linalg.norm(reach)) + spread * float(np.linalg.norm(design.W0))) / s
    return Certificate(name, claim, where, abs(cost(best.W) - cost(v)), 0.0, allowance(scale, sum(design.A.shape)))


def exchange_gain(design: Design, row: int, support: Mask) -> float:
    """The most by which exchanging one kept for one removed input lowers f of a row, with exact refits."""
    D = Design(design.A, design.W0[row : row + 1])
    swapped = []
    for i in np.flatnonzero(support):
        for j in np.flatnonzero(~support):
            swapped.append(support.copy())
            swapped[-1][[i, j]] = False, True
    values = [D.value(D.fit(S[None])) for S in swapped]
    return D.value(D.fit(support[None])) - min(values, default=np.inf)


def one_swap(design: Design, row: int, w: Array, claimed: bool) -> Certificate:
    """No exchange of one kept for one removed input, with exact refit, lowers f: measured is the best gain, bound 0.

    Assumptions: the weight claims 1-swap optimality (the global optimum does, a method's output need not); something is
    kept and something removed; at most MOST inputs. Where: derived here. Tight.
    """
    name, claim, where = "one-swap", "no exchange of a kept for a removed input lowers f after a refit", "enumeration"
    support = w != 0
    kept, n = int(support.sum()), len(w)
    if not 0 < kept < n or n > MOST:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"kept = {kept} of {n} inputs: nothing to exchange")
    gain = exchange_gain(design, row, support)
    reason = "" if claimed else f"the weight does not claim it; the best exchange lowers f by {gain:.3g}"
    terms = Design(design.A, design.W0[row : row + 1]).terms(w[None])
    return Certificate(name, claim, where, gain, 0.0, allowance(2 * terms, sum(design.A.shape)), applies=reason)


def _small(name: str, check: Callable[[Case, Design, Optimum, int], Iterator[Certificate]]) -> Check:
    """The check on layers narrow enough to enumerate."""

    def narrow(case: Case) -> Iterator[Certificate]:
        k = round(case.keep * case.inputs)
        if case.inputs > MOST:
            yield Certificate(name, "", "enumeration", 0.0, 0.0, applies=f"inputs = {case.inputs} > {MOST}")
        else:
            yield from check(case, design_of(case), optimum(case.judge, k), k)

    return narrow


def _exact(case: Case, design: Design, best: Optimum, k: int) -> Iterator[Certificate]:
    for method in ("magnitude", "wanda", "iht", "maiht"):
        refined = case.run(method, KeepPerRow(k), refine="exact", refine_mu=0.1).refined
        yield from (exact_optimum(design, best, row, w) for row, w in enumerate(refined))
    swapped = case.run("wanda", KeepPerRow(k), swaps="all", refine_mu=0.1).swapped
    yield from (exact_optimum(design, best, row, w) for row, w in enumerate(swapped))


def _below(case: Case, design: Design, best: Optimum, k: int) -> Iterator[Certificate]:
    yield separable_below(case.judge, design, best, k)


def _fixed(case: Case, design: Design, best: Optimum, k: int) -> Iterator[Certificate]:
    for safety in SAFETY:
        yield optimum_is_fixed(case.judge, design, KeepPerRow(k), best, safety / case.judge.lipschitz)
    if case.inputs <= MOST - 4 and case.penalty.lam > 0:
        best = optimum(case.judge, 0, case.penalty.lam)
        for safety in SAFETY:
            yield optimum_is_fixed(case.judge, design, case.penalty, best, safety / case.judge.lipschitz)


def _swap(case: Case, design: Design, best: Optimum, k: int) -> Iterator[Certificate]:
    yield from (one_swap(design, row, w, claimed=True) for row, w in enumerate(best.W))


CHECKS: dict[str, Check] = {
    "exact-optimum": _small("exact-optimum", _exact),
    "separable-below": _small("separable-below", _below),
    "optimum-is-fixed": _small("optimum-is-fixed", _fixed),
    "one-swap": _small("one-swap", _swap),
}
