"""The fast twin of the swaps against its letters: the tableau after an exchange, the best pair, how a row ends.

Letters as in `solvers.swaps`. A tableau is recomputed from the Gram by `numpy.linalg.inv` on the support that its
places name; the best pair is sought among the gains of the reference from its own start on that support.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from solvers import swaps
from solvers.array import Place, to_numpy
from solvers.gpu import swaps as fast
from solvers.gpu.tableau import State, Tableau, exchange
from solvers.linalg import least_squares_exact
from solvers.problem import LayerProblem
from solvers.sparsity import Array, KeepNofM, Sparsity
from theory_checks.certificate import Certificate, allowance
from theory_checks.exchange import one_swap_sampled, swaps_descend
from theory_checks.synthetic import Case, Check

WHERE = "theory O4; derived here"
HERE, NARROW = (Place.of(np.zeros(1), dtype) for dtype in ("float64", "float32"))


def batch_of(problem: LayerProblem, sparsity: Sparsity, W: Array, place: Place) -> fast.Batch:
    """All rows of a layer that keep anything, started in one batch."""
    group = fast.supports(sparsity, W != 0, np.flatnonzero(W.any(axis=1)))
    L = Tableau(problem, place, group.kept, group.removed, len(group.rows))
    return fast.Batch(L, problem, group, len(group.rows))


def _numpy(k: State) -> State:
    return State(*(to_numpy(x, "state") if "float" in str(x.dtype) else np.asarray(x) for x in k))


def swap_twin_step(
    problem: LayerProblem, sparsity: Sparsity, W: Array, place: Place = HERE, most: int = 4
) -> Certificate:
    """After every exchange T = [A; B'], s, w and g are those of the support, and the gain is what f fell by.

    Assumptions: lambda_min(H) > 0. Why: the exchange is one product of rank two, ones at the places exchanged.
    Measured: the largest deviation, in units of the numbers that meet in it. Where: derived here. Tight: bound 0.
    """
    name, claim = "swap-twin-step", "T, s, w, g after an exchange are those of the support; the gain is the fall of f"
    problem, _ = fast.normalised(problem)
    if not W.any():
        return Certificate(name, claim, WHERE, 0.0, 0.0, applies="nothing is kept")
    batch, worst = batch_of(problem, sparsity, W, place), 0.0
    k, follow = batch.state, np.ones(len(batch.group.rows), dtype=bool)
    with np.errstate(all="ignore"):
        for _ in range(most):
            before = _numpy(k)
            follow &= before.best[:, 0] > 0
            k, judged = exchange(batch.L, k)
            after, gains = _numpy(k), to_numpy(judged, "gains")[:, 0]
            for q in np.flatnonzero(follow):
                part = LayerProblem(problem.W0[[row := batch.group.rows[q]]], problem.gram, _row(problem, row))
                worst = max(worst, _off(part, batch.L.K, after, int(q)))
                one, two = before.w[q : q + 1, :-1], after.w[q : q + 1, :-1]
                worst = max(worst, abs(part.change(one, two) + gains[q]) / (part.magnitude(one) + part.magnitude(two)))
    condition = float(np.linalg.cond(problem.H))
    return Certificate(name, claim, WHERE, worst, 0.0, most * allowance(condition**2, len(problem.H), place.dtype))


def _row(problem: LayerProblem, row: int) -> Array | None:
    return None if problem.R is None else problem.R[[row]]


def _off(part: LayerProblem, K: int, k: State, q: int) -> float:
    """The largest deviation of a row's state from what its places imply, relative to the largest number there."""
    n, places = len(part.H), k.places[q]
    on, off = np.flatnonzero(places[:K] < n), np.flatnonzero(places[K:] < n)
    kept, removed = places[on], places[K + off]
    if sorted([*kept, *removed]) != list(range(n)) or (k.at[q, places[places < n]] != np.flatnonzero(places < n)).any():
        return float("inf")
    mask = np.zeros((1, n), dtype=bool)
    mask[0, kept] = True
    A = np.linalg.inv(part.H[np.ix_(kept, kept)])
    B = part.H[np.ix_(removed, kept)] @ A
    s = np.diag(part.H)[removed] - (B * part.H[np.ix_(removed, kept)]).sum(axis=1)
    w = least_squares_exact(part, mask)
    found = (k.T[q][np.ix_(on, on)], k.T[q][np.ix_(K + off, on)], k.s[q, off], k.w[q, :-1], k.g[q, :-1])
    exact = (A, B, s, w[0], part.grad(w)[0])
    size = 1 + float(np.abs(part.W0).max()) + (0.0 if part.R is None else float(np.abs(part.R).max()))
    deviations = [
        np.abs(x - y).max(initial=0.0) / (size + np.abs(y).max(initial=0.0)) for x, y in zip(found, exact, strict=True)
    ]
    return float(max(deviations))


def swap_twin_pair(problem: LayerProblem, sparsity: Sparsity, W: Array, place: Place = HERE) -> Certificate:
    """The pair that the twin takes, from a few columns, is the best of all pairs that the budget allows.

    Assumptions: lambda_min(H) > 0. Why: 2 gain_ij <= g_j^2 / s_j. Measured: the best gain less that of the pair, and
    the deviation of the promised from that gain, before and after one exchange. Where: derived here. Tight: bound 0.
    """
    name, claim = "swap-twin-pair", "max gain - gain of the twin's pair = 0, and it is what the twin promised"
    problem, _ = fast.normalised(problem)
    if not W.any():
        return Certificate(name, claim, WHERE, 0.0, 0.0, applies="nothing is kept")
    batch, worst = batch_of(problem, sparsity, W, place), 0.0
    with np.errstate(all="ignore"):
        states = [_numpy(batch.state), _numpy(exchange(batch.L, batch.state)[0])]
    positive = states[0].best[:, 0] > 0
    for k, follow in zip(states, (np.ones_like(positive), positive), strict=True):
        for q in np.flatnonzero(follow):
            worst = max(worst, _missed(problem, sparsity, int(batch.group.rows[q]), batch.L.K, k, int(q)))
    scale = (1 + problem.magnitude(np.zeros_like(W)) + float(np.square(problem.W0).sum())) * float(
        np.linalg.cond(problem.H)
    )
    scale += 0.0 if problem.R is None else float(np.square(problem.R).sum()) * float(np.linalg.cond(problem.H))
    return Certificate(name, claim, WHERE, worst, 0.0, allowance(2 * scale, len(problem.H), place.dtype))


def _missed(problem: LayerProblem, sparsity: Sparsity, row: int, K: int, k: State, q: int) -> float:
    n, (promise, a, b) = len(problem.H), k.best[q]
    places = k.places[q]
    kept, removed = np.sort(places[:K][places[:K] < n]), np.sort(places[K:][places[K:] < n])
    gains = swaps.pair_gains(problem, swaps.start(problem, row, kept, removed))
    if isinstance(sparsity, KeepNofM):
        gains = np.where(kept[:, None] // sparsity.of == removed // sparsity.of, gains, -np.inf)
    if not gains.size or gains.max() == -np.inf:
        return 0.0 if promise <= 0 else float("inf")
    i, j = places[int(a)], places[K + int(b)]
    if i not in kept or j not in removed:
        return float("inf")
    its = gains[np.searchsorted(kept, i), np.searchsorted(removed, j)]
    return float(max(gains.max() - its, abs(promise - its)))


def swap_twin_ends(problem: LayerProblem, sparsity: Sparsity, W: Array, place: Place = NARROW) -> Certificate:
    """What the twin hands back is the refit in float64, whatever the precision of its tableaux.

    Assumptions: lambda_min(H) > 0. Why: a row ends on a fresh factorisation. Measured: the largest deviation from the
    least squares on the support. Where: derived here. Tight: bound 0.
    """
    claim = "the weights of a row that ended are the least squares on its support, in float64"
    found, _ = fast.swaps(problem, sparsity, W, None, place)
    exact = least_squares_exact(problem, found != 0)
    scale = float(np.abs(exact).max(initial=0.0) + np.abs(problem.W0).max()) * float(np.linalg.cond(problem.H))
    worst = float(np.abs(found - exact).max())
    return Certificate("swap-twin-ends", claim, WHERE, worst, 0.0, allowance(scale, len(problem.H)))


def _weights(case: Case) -> Iterator[tuple[Sparsity, Array]]:
    for budget in case.budgets:
        for score in (np.abs(case.judge.W0), -np.abs(case.judge.W0)):
            yield budget, np.where(budget.mask(score), case.judge.W0, 0.0)


def _steps(case: Case) -> Iterator[Certificate]:
    for budget, W in _weights(case):
        yield swap_twin_step(case.judge, budget, W)
        yield swap_twin_step(case.judge, budget, W, NARROW)


def _pairs(case: Case) -> Iterator[Certificate]:
    for budget, W in _weights(case):
        yield swap_twin_pair(case.judge, budget, W)


def _ends(case: Case) -> Iterator[Certificate]:
    for budget, W in _weights(case):
        yield swap_twin_ends(case.judge, budget, W)


def _runs(case: Case) -> Iterator[Certificate]:
    """A whole run of the twin descends by the gains that it tells, and leaves no row with an improving exchange.

    The claims are those of the reference, `swaps_descend` and `one_swap_sampled`, said of the twin as "swap-twin-run".
    """
    for budget, W in _weights(case):
        before = least_squares_exact(case.judge, W != 0)
        found, gains = fast.swaps(case.judge, budget, W, None, NARROW)
        yield replace(swaps_descend(case.judge, budget, before, found, gains), name="swap-twin-run")
        rows = np.ones(len(found), dtype=bool)
        ended = one_swap_sampled(case.judge, budget, found, rows)
        yield replace(ended, name="swap-twin-run")


CHECKS: dict[str, Check] = {
    "swap-twin-step": _steps,
    "swap-twin-pair": _pairs,
    "swap-twin-ends": _ends,
    "swap-twin-run": _runs,
}
