"""Moreau envelopes: their closed forms, the Lipschitz constant of their gradient, and what it says about scores.

    e_rho(x) = min_v q(v) + |v - x|^2 / 2 rho,    grad e_rho(x) = (x - prox(x)) / rho

Letters: rho > 0; q = lam |.|_0, lam |.|_1 or the quadratic <x, A x> / 2 with A >= -beta I, rho beta < 1; x, w vectors.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from solvers.sparsity import L0, L1, Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check


def envelope(penalty: L0 | L1, X: Array, rho: float) -> tuple[float, Array]:
    """e_rho(X) and its gradient, through the proximal operator."""
    P = penalty.prox(X, rho)
    return penalty.value(P) + float(np.square(X - P).sum()) / (2 * rho), (X - P) / rho


def envelope_value(penalty: L0 | L1, X: Array, rho: float) -> Certificate:
    """e_rho(lam |.|_1) = Huber, e_rho(lam |.|_0) = sum min(lam, x^2 / 2 rho); and e_rho <= the penalty.

    Assumptions: rho > 0. Measured: |e - closed form| plus what e exceeds the penalty by. Where: Beck 2017, ch. 6
    (L1). Tight: bound 0.
    """
    e, t = envelope(penalty, X, rho)[0], rho * penalty.lam
    squares = np.square(X) / (2 * rho)
    if isinstance(penalty, L0):
        closed, above = float(np.minimum(squares, penalty.lam).sum()), penalty.lam * float(np.count_nonzero(X))
    else:
        inside = np.abs(X) <= t
        closed = float(np.where(inside, squares, penalty.lam * (np.abs(X) - t / 2)).sum())
        above = penalty.lam * float(np.abs(X).sum())
    claim = "e_rho(lam |x|_1) = Huber, e_rho(lam |x|_0) = sum min(lam, x^2/2 rho), both <= the penalty"
    measured = abs(e - closed) + max(0.0, e - above)
    scale = 2 * above + float(squares.sum())
    return Certificate("envelope-value", claim, "Beck 2017, ch. 6", measured, 0.0, allowance(scale, X.size))


def envelope_gradient(penalty: L0 | L1, X: Array, rho: float) -> Certificate:
    """(x - prox(x)) / rho is clip(x / rho, -lam, lam) for lam |.|_1; x / rho below sqrt(2 rho lam), else 0, for |.|_0.

    Assumptions: no |x_i| at the threshold of |.|_0 up to rounding (the envelope has a kink there). Measured: the
    largest deviation, times rho. Where: Beck 2017, ch. 6 (L1). Tight: bound 0.
    """
    name, claim = "envelope-gradient", "grad e_rho(x) = (x - prox(x)) / rho = the derivative of the closed form"
    gradient = envelope(penalty, X, rho)[1]
    if isinstance(penalty, L0):
        threshold = float(np.sqrt(2 * rho * penalty.lam))
        gap = float(np.abs(np.abs(X) - threshold).min())
        if threshold > 0 and gap <= allowance(threshold, 1):
            reason = f"||x_i| - sqrt(2 rho lam)| = {gap:.3g} is a kink"
            return Certificate(name, claim, "Beck 2017, ch. 6", 0.0, 0.0, applies=reason)
        closed = np.where(np.abs(X) < threshold, X / rho, 0.0)
    else:
        closed = np.clip(X / rho, -penalty.lam, penalty.lam)
    scale = float(np.abs(X).max()) + rho * penalty.lam
    measured = rho * float(np.abs(gradient - closed).max())
    return Certificate(name, claim, "Beck 2017, ch. 6", measured, 0.0, allowance(scale, 1))


def smoothed_gradient(A: Array, x: Array, rho: float) -> Array:
    """grad e_rho(x) for q = <x, A x> / 2: A v at v = prox(x) = (I + rho A)^-1 x."""
    return np.asarray(A @ np.linalg.solve(np.eye(len(A)) + rho * A, x))


def lipschitz(rho: float, beta: float) -> float:
    """1 / min(rho, 1/beta - rho), the Lipschitz constant of grad e_rho when q + beta/2 |.|^2 is convex."""
    return 1 / min(rho, 1 / beta - rho)


def _spread(A: Array, rho: float) -> float:
    """Condition number of I + rho A, by which a solve multiplies rounding."""
    values = 1 + rho * np.linalg.eigvalsh(A)
    return float(np.abs(values).max() / np.abs(values).min())


def envelope_lipschitz(A: Array, x: Array, y: Array, rho: float) -> Certificate:
    """|grad e(x) - grad e(y)| <= |x - y| / min(rho, 1/beta - rho) for the quadratic A >= -beta I.

    Assumptions: beta > 0 and rho beta < 1, checked. Why: the envelope's Hessian has the eigenvalues l / (1 + rho l).
    Where: Hoheisel, Laborde, Oberman 2020. Tight: rho > 1 / 2 beta and x - y along the lowest eigenvector.
    """
    name, claim = "envelope-lipschitz", "|grad e(x) - grad e(y)| <= |x - y| / min(rho, 1/beta - rho)"
    where, beta = "weakly convex envelopes, Hoheisel et al. 2020", -float(np.linalg.eigvalsh(A)[0])
    if not (beta > 0 and rho * beta < 1):
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"beta = {beta:.3g}, rho * beta = {rho * beta:.3g}")
    measured = float(np.linalg.norm(smoothed_gradient(A, x, rho) - smoothed_gradient(A, y, rho)))
    bound = lipschitz(rho, beta) * float(np.linalg.norm(x - y))
    reach = float(np.linalg.norm(np.abs(A).sum(axis=1))) * float(np.linalg.norm(x) + np.linalg.norm(y))
    curved = _spread(A, rho) * lipschitz(rho, beta) * rho
    scale = _spread(A, rho) ** 2 * reach + curved * bound
    return Certificate(name, claim, where, measured, bound, allowance(scale, len(A)))


def score_bound(w: Array, delta: Array, gradient: Array, L: float) -> Array:
    """|delta_i| |g_i(w)| + |w_i + delta_i| L |delta|, how far the score w_i g_i(w) may move."""
    return np.asarray(np.abs(delta) * np.abs(gradient) + np.abs(w + delta) * L * np.linalg.norm(delta))


def score_stability(A: Array, w: Array, delta: Array, rho: float) -> Certificate:
    """|s_i(w + delta) - s_i(w)| <= |delta_i| |g_i(w)| + |w_i + delta_i| Lip |delta| for s_i = w_i g_i(w), g = grad e.

    Assumptions: beta > 0 and rho beta < 1, checked; a statement on values, not on ranks. The worst input is shown.
    Why: s_i(w + delta) - s_i(w) = delta_i g_i(w) + (w_i + delta_i)(g_i(w + delta) - g_i(w)). Where: derived here. Upper
    bound, reached with a single input.
    """
    name, claim = "score-stability", "|s_i(w + d) - s_i(w)| <= |d_i| |g_i(w)| + |w_i + d_i| Lip |d|, s = w grad e(w)"
    where, beta = "product rule and envelope-lipschitz", -float(np.linalg.eigvalsh(A)[0])
    if not (beta > 0 and rho * beta < 1):
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"beta = {beta:.3g}, rho * beta = {rho * beta:.3g}")
    g, moved = smoothed_gradient(A, w, rho), smoothed_gradient(A, w + delta, rho)
    left, right = np.abs((w + delta) * moved - w * g), score_bound(w, delta, g, lipschitz(rho, beta))
    i = int(np.argmax(left - right))
    reach = float(np.linalg.norm(np.abs(A).sum(axis=1))) * float(np.linalg.norm(w) + np.linalg.norm(delta))
    scale = _spread(A, rho) ** 2 * reach * float(abs(w[i]) + abs(delta[i])) + float(right[i]) * _spread(A, rho)
    return Certificate(name, claim, where, float(left[i]), float(right[i]), allowance(2 * scale, len(A)))


def mask_stability(A: Array, w: Array, delta: Array, rho: float, k: int) -> Certificate:
    """The k largest scores are the same inputs after w -> w + delta, if the k-th and the next differ by more than twice
    the largest `score_bound`.

    Assumptions: that gap, with its number; beta > 0 and rho beta < 1. Measured: inputs that change sides. Where: theory
    M3. Sufficient only: it is no statement that an envelope flips fewer masks than the raw gradient.
    """
    name, claim = "mask-stability", "top-k of s is unchanged if its gap exceeds twice the largest score bound"
    where, beta = "score-stability", -float(np.linalg.eigvalsh(A)[0])
    if not (beta > 0 and rho * beta < 1 and 0 < k < len(w)):
        reason = f"beta = {beta:.3g}, rho * beta = {rho * beta:.3g}, k = {k} of {len(w)}"
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    g, moved = smoothed_gradient(A, w, rho), smoothed_gradient(A, w + delta, rho)
    ranked = np.sort(w * g)[::-1]
    gap, reach = float(ranked[k - 1] - ranked[k]), 2 * float(score_bound(w, delta, g, lipschitz(rho, beta)).max())
    noise = allowance(_spread(A, rho) ** 2 * float(np.abs(A).sum()) * float(np.square(w).sum()), 2 * len(A))
    if gap <= reach + noise:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"score gap = {gap:.3g} <= {reach + noise:.3g}")
    before, after = (set(np.argsort(-s)[:k].tolist()) for s in (w * g, (w + delta) * moved))
    return Certificate(name, claim, where, float(len(before - after)), 0.0)


def _penalties(case: Case) -> Iterator[tuple[L0 | L1, Array, float]]:
    for rho in (1.0, *case.rng(50).uniform(0.05, 4, 2)):
        for X in (case.W0, case.some_weight(51)):
            yield case.penalty, X, float(rho)
            yield case.absolute, X, float(rho)


def _value(case: Case) -> Iterator[Certificate]:
    yield from (envelope_value(*drawn) for drawn in _penalties(case))


def _gradient(case: Case) -> Iterator[Certificate]:
    yield from (envelope_gradient(*drawn) for drawn in _penalties(case))


def _quadratics(case: Case) -> Iterator[tuple[Array, Array, Array, float]]:
    """Indefinite A, a point, unit directions (random and lowest eigenvector), rho on both sides of 1 / 2 beta."""
    values, vectors = np.linalg.eigh(case.judge.H)
    w, d = case.some_weight(52)[0], case.some_weight(53)[0]
    for share in (0.3, 0.5, 0.8, 0.95):
        beta = float(case.rng(54).uniform(0.2, 2))
        A = case.judge.H - (values[0] + beta) * np.eye(case.inputs)
        for direction in (vectors[:, 0], d / max(float(np.linalg.norm(d)), float(np.finfo(np.float64).tiny))):
            yield A, w, direction, share / beta


def _lipschitz(case: Case) -> Iterator[Certificate]:
    for A, w, d, rho in _quadratics(case):
        yield envelope_lipschitz(A, w, w + d, rho)


def _scores(case: Case) -> Iterator[Certificate]:
    for A, w, d, rho in _quadratics(case):
        for size in (1.0, 30.0):
            yield score_stability(A, size * w, d, rho)


def _masks(case: Case) -> Iterator[Certificate]:
    for A, w, d, rho in _quadratics(case):
        for size in np.logspace(-4, 0, 5):
            yield mask_stability(A, w, size * d, rho, max(1, round(case.keep * case.inputs) - 1))


CHECKS: dict[str, Check] = {
    "envelope-value": _value,
    "envelope-gradient": _gradient,
    "envelope-lipschitz": _lipschitz,
    "score-stability": _scores,
    "mask-stability": _masks,
}
