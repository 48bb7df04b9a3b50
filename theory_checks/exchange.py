"""Exchanges of one kept for one removed input: the gain in closed form, descent, and supports that none improves.

Letters: S a row's support, c the rest, w the refit on S, i in S, j in c. Every value is recomputed by lstsq on tokens,
which knows no inverse; on real layers by the two steps of the closed form, add then drop, with a fresh inverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from solvers import linalg, swaps
from solvers.problem import LayerProblem
from solvers.sparsity import Array, Budget, Mask, Sparsity
from theory_checks.certificate import Certificate, allowance
from theory_checks.restoration import Design, design_of
from theory_checks.support import windows
from theory_checks.synthetic import Case, Check

ROWS = 16  # rows of a real layer whose exchanges are all evaluated again
SPARSESWAPS = "theory O4; SparseSwaps, arXiv 2512.10922"


def pairs(sparsity: Sparsity, shape: tuple[int, int], row: int, S: Mask) -> Mask:
    """(k, in - k) exchanges of a row that keep the budget: inputs of one window, if a row is cut into windows."""
    place = np.arange(shape[0] * shape[1], dtype=np.float64).reshape(shape)
    start = windows(sparsity, place)[:, :1] if isinstance(sparsity, Budget) else place[:, :1]
    window = np.searchsorted(start.ravel(), place[row], side="right")
    same: Mask = window[S][:, None] == window[~S]
    return same


def refitted(design: Design, row: int, S: Mask) -> float:
    """The least f of a row on a support, from tokens."""
    D = Design(design.A, design.W0[row : row + 1])
    return D.value(D.fit(S[None]))


def recomputed(design: Design, row: int, S: Mask) -> Array:
    """(k, in - k) decreases of f by every exchange, each by two least squares on tokens."""
    kept, removed, f = np.flatnonzero(S), np.flatnonzero(~S), refitted(design, row, S)
    gains = np.zeros((len(kept), len(removed)))
    for a, i in enumerate(kept):
        for b, j in enumerate(removed):
            exchanged = S.copy()
            exchanged[[i, j]] = False, True
            gains[a, b] = f - refitted(design, row, exchanged)
    return gains


def rounding(design: Design, row: int) -> float:
    """What rounding may add to a gain: the terms of the largest f involved times the condition number of H."""
    spectrum, D = design.spectrum(), Design(design.A, design.W0[row : row + 1])
    terms = D.terms(np.zeros_like(D.W0)) + float(np.abs(D.W0).sum() ** 2 * np.square(D.A).sum(axis=0).max())
    return allowance(2 * terms * float(spectrum[-1] / spectrum[0]), sum(D.A.shape))


def swap_gain_exact(problem: LayerProblem, design: Design, row: int, S: Mask) -> Certificate:
    """Every gain in closed form is the difference of two refits by lstsq: on S, and after the first exchange again.

    Assumptions: lambda_min(H) > 0; at least one input kept and one removed. Why: bordering, adding j and dropping i are
    two rank-one changes of the inverse. Measured: the largest deviation over all pairs, on S and on the support after
    its best exchange, where inverse and weights were updated. Where: theory O4. Tight: bound 0.
    """
    name, claim = "swap-gain-exact", "(A_ii g_j^2 - 2 B_ij w_i g_j - s_j w_i^2) / 2 d_ij = f(S) - f(S + j - i) by lstsq"
    if not 0 < S.sum() < len(S):
        return Certificate(name, claim, SPARSESWAPS, 0.0, 0.0, applies="nothing to exchange")
    k = swaps.start(problem, row, np.flatnonzero(S), np.flatnonzero(~S))
    best = np.unravel_index(int(recomputed(design, row, S).argmax()), k.B.shape)
    after = swaps.step(problem, row, k, int(best[0]), int(best[1]))
    worst = max(_deviation(problem, design, row, state) for state in (k, after))
    return Certificate(name, claim, SPARSESWAPS, worst, 0.0, rounding(design, row))


def _deviation(problem: LayerProblem, design: Design, row: int, k: swaps.State) -> float:
    S = np.zeros(len(problem.H), dtype=bool)
    S[k.kept] = True
    order = np.ix_(np.argsort(k.kept), np.argsort(k.removed))
    return float(np.abs(swaps.pair_gains(problem, k)[order] - recomputed(design, row, S)).max())


def swaps_descend(
    problem: LayerProblem, sparsity: Sparsity, before: Array, after: Array, gains: list[Array]
) -> Certificate:
    """f(after) <= f(before) - the sum of the gains, in the difference form, and every window keeps its count.

    Assumptions: `before` is the refined weight, on any of whose supports the exact refit is no worse. Why: every
    exchange lowers f by its gain, and the last weights are the refit. A weight that is refitted to zero may leave a
    window with less than it had. Where: theory O4. Upper bound; tight where `before` is the exact refit.
    """
    name, claim = "swaps-descend", "f(swapped) <= f(refined) - sum of gains; every window keeps its count"
    more = windows(sparsity, (after != 0) * 1.0).sum(axis=1) > windows(sparsity, (before != 0) * 1.0).sum(axis=1)
    if more.any() or any((row <= 0).any() for row in gains):
        return Certificate(name, claim, SPARSESWAPS, float("inf"), 0.0)
    d, made = np.abs(after - before), max(map(len, gains), default=0)
    reach = (np.abs(before - problem.W0) + d) @ np.abs(problem.H)
    total = float(sum(row.sum() for row in gains))
    scale = float(np.vdot(reach, d)) + total + problem.magnitude(before)
    measured = problem.change(before, after) + total
    return Certificate(name, claim, SPARSESWAPS, measured, 0.0, allowance((1 + made) * scale, len(reach.T)))


def one_swap_optimal(design: Design, sparsity: Sparsity, row: int, w: Array) -> Certificate:
    """No exchange that the budget allows lowers f of a row: every one is refitted by lstsq.

    Assumptions: the row ended its swaps; lambda_min(H) > 0. Measured: the best gain; it may be negative.
    Where: theory O4. Tight: bound 0.
    """
    name, claim, S = "one-swap-optimal", "no exchange that the budget allows lowers f after a refit", w != 0
    allowed = pairs(sparsity, design.W0.shape, row, S)
    if not allowed.any():
        return Certificate(name, claim, SPARSESWAPS, 0.0, 0.0, applies="nothing to exchange")
    gain = float(recomputed(design, row, S)[allowed].max())
    return Certificate(name, claim, SPARSESWAPS, gain, 0.0, rounding(design, row))


def closed_form(problem: LayerProblem, row: int, w: Array) -> tuple[Array, float]:
    """(k, in - k) gains by adding then dropping, with a fresh inverse, and what rounding may add to them.

    g_j^2 / 2 s_j - (w_i + B_ij g_j / s_j)^2 / 2 (A_ii + B_ij^2 / s_j); -inf for a j that is a copy of kept inputs.
    """
    H, S = problem.H, w != 0
    D = w - problem.W0[row]
    g = (D @ H + (0.0 if problem.R is None else problem.R[row]))[~S]
    A = np.linalg.inv(H[np.ix_(S, S)])
    B = A @ H[np.ix_(S, ~S)]
    s = np.diag(H)[~S] - (H[np.ix_(S, ~S)] * B).sum(axis=0)
    apart = s > allowance(1.0, len(H)) * np.diag(H)[~S] * float(condition := np.linalg.cond(H[np.ix_(S, S)]))
    s = np.where(apart, s, 1.0)
    drop = np.square(w[S][:, None] + B * (g / s)) / (np.diag(A)[:, None] + np.square(B) / s)
    terms = float(np.abs(D) @ np.abs(H) @ np.abs(D)) + float(np.abs(g) @ np.abs(D[~S]))
    return np.where(apart, np.square(g) / s - drop, -np.inf) / 2, allowance(terms * float(condition), len(H))


def one_swap_sampled(problem: LayerProblem, sparsity: Sparsity, W: Array, ended: Mask, most: int = ROWS) -> Certificate:
    """The claim `one-swap-optimal` on rows of a real layer, spread evenly over those that ended their swaps.

    Assumptions: H_SS is positive definite in those rows; a removed input that is a copy of kept ones is left out.
    Measured: the best gain of the row that is nearest to failing. Where: theory O4. Tight: bound 0.
    """
    name, claim = "one-swap-optimal", "no exchange that the budget allows lowers f after a refit"
    at: npt.NDArray[np.int64] = np.flatnonzero(ended)
    at = at[np.unique(np.linspace(0, len(at) - 1, min(most, len(at))).astype(np.int64))]
    found = [(-np.inf, 0.0)]
    for row in at:
        allowed = pairs(sparsity, W.shape, int(row), W[row] != 0)
        if allowed.any():
            gains, slack = closed_form(problem, int(row), W[row])
            found.append((float(gains[allowed].max()), slack))
    gain, slack = max(found, key=lambda pair: pair[0] - pair[1])
    if gain == -np.inf:
        reason = "no row ended its swaps" if not len(at) else "nothing to exchange"
        return Certificate(name, claim, SPARSESWAPS, 0.0, 0.0, applies=reason)
    return Certificate(name, claim, SPARSESWAPS, gain, 0.0, slack)


def one_swap_again(problem: LayerProblem, sparsity: Sparsity, saved: Array) -> Certificate:
    """The claim `one-swap-optimal` on the support of saved weights, refitted, from a Gram that was measured again.

    The allowance is that of a Gram accumulated from float32 activations. Weights are not compared: the cast moved them.
    """
    rows = np.unique(np.linspace(0, len(saved) - 1, min(ROWS, len(saved))).astype(np.int64))
    part, mask = LayerProblem(problem.W0[rows], problem.gram), saved[rows] != 0
    W = linalg.least_squares_exact(part, mask)
    again = one_swap_sampled(part, sparsity, W, np.ones(len(rows), dtype=bool))
    forward = allowance(2 * part.magnitude(W), problem.shape[1], dtype=np.float32)
    return replace(again, allowance=again.allowance + forward)


def _exact(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for budget in case.budgets[::2]:
        mask = budget.mask(np.abs(case.judge.W0))
        yield from (swap_gain_exact(case.judge, design, row, S) for row, S in enumerate(mask[:2]))


def _descend(case: Case) -> Iterator[Certificate]:
    for budget in case.budgets:
        for most in (1, "all"):
            run = case.run("wanda", budget, swaps=most)
            assert run.gains is not None
            yield swaps_descend(run.refit, budget, run.refined, run.swapped, run.gains)


def _optimal(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for budget in case.budgets:
        run = case.run("wanda", budget, swaps="all", refine_mu=0.1)
        yield one_swap_sampled(run.refit, budget, run.swapped, run.ended)
        yield from (one_swap_optimal(design, budget, row, w) for row, w in enumerate(run.swapped[:2]))


CHECKS: dict[str, Check] = {"swap-gain-exact": _exact, "swaps-descend": _descend, "one-swap-optimal": _optimal}
