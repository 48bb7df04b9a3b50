"""What a top-k projection may do to a vector, and the penalties whose hard threshold is the same projection.

Letters: Z, Y (out, in), z, y a row; k kept of n in a row; K, k' nonzeros of y; s step; lam penalty.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import numpy as np

from solvers.sparsity import L0, Array, KeepPerRow
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check


def top_k_distance(Z: Array, Y: Array, k: int, fewer: int) -> Certificate:
    """|P_k(z) - z|^2 <= (n - k) / (n - k') |y - z|^2 for every k'-sparse y, k' <= k < n, row by row.

    Assumptions: as stated, counted. Why: the mean of the n - k smallest squares is at most that of the n - k' smallest.
    Where: Jain, Tewari, Kar 2014, Lemma 1. Tight: equality where all magnitudes are equal.
    """
    name, claim = "top-k-distance", "|P_k(z) - z|^2 <= (n - k)/(n - k') |y - z|^2 for every k'-sparse y"
    where, n = "Jain, Tewari, Kar 2014, Lemma 1", Z.shape[1]
    most = int(np.count_nonzero(Y, axis=1).max())
    if not most <= fewer <= k < n:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"not {most} <= k' = {fewer} <= k = {k} < n = {n}")
    left = np.square(KeepPerRow(k).prox(Z) - Z).sum(axis=1)
    right = (n - k) / (n - fewer) * np.square(Y - Z).sum(axis=1)
    return _worst_row(name, claim, where, left, right, np.square(np.abs(Y) + np.abs(Z)).sum(axis=1), n)


def expansion(K: int, k: int, n: int) -> float:
    """nu = 1 + (rho + sqrt((4 + rho) rho)) / 2, rho = min(K, n - k) / (k - K + min(K, n - k)); 2.618 at k = K."""
    d = min(K, n - k)
    rho = d / (k - K + d) if d else 0.0
    return 1 + (rho + sqrt((4 + rho) * rho)) / 2


def top_k_expansion(Z: Array, Y: Array, k: int) -> Certificate:
    """|P_k(z) - y|^2 <= nu |z - y|^2 for every y with K <= k nonzeros, row by row; nu from `expansion`.

    Assumptions: as stated, counted. Where: Shen, Li 2018, "A tight bound of hard thresholding".
    Tight: y = (0, 1), z = (a, a), a = 0.618 reaches nu = 2.618 (the classical constant 4 is never reached).
    """
    name, claim = "top-k-expansion", "|P_k(z) - y|^2 <= nu |z - y|^2 for every K-sparse y, nu = 2.618 at k = K"
    where, K = "Shen, Li 2018, tight bound of hard thresholding", int(np.count_nonzero(Y, axis=1).max())
    if k < K:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"k = {k} < K = {K}")
    left = np.square(KeepPerRow(k).prox(Z) - Y).sum(axis=1)
    right = expansion(K, k, Z.shape[1]) * np.square(Z - Y).sum(axis=1)
    return _worst_row(name, claim, where, left, right, np.square(np.abs(Y) + np.abs(Z)).sum(axis=1), Z.shape[1])


def _worst_row(name: str, claim: str, where: str, left: Array, right: Array, scale: Array, n: int) -> Certificate:
    i = int(np.argmax(left - right))
    return Certificate(name, claim, where, float(left[i]), float(right[i]), allowance(float(3 * scale[i]), n))


def penalty_interval(z: Array, k: int, s: float) -> tuple[float, float]:
    """The penalties [low, high) whose hard threshold sqrt(2 lam s) keeps exactly the k largest of |z|."""
    a = np.concatenate([[np.inf], np.sort(np.abs(z))[::-1], [0.0]])
    return float(a[k + 1] ** 2 / (2 * s)), float(a[k] ** 2 / (2 * s))


def penalty_is_budget(z: Array, k: int, s: float) -> Certificate:
    """prox_{s lam |.|_0}(z) = P_k(z) exactly for lam in [|z|_(k+1)^2 / 2s, |z|_(k)^2 / 2s), and for no other lam.

    Assumptions: |z|_(k+1) < |z|_(k) by more than rounding (a tie has an empty interval). Measured: entries that differ
    at three penalties inside, plus the penalties on either side that agree. Where: derived here. Tight: bound 0.
    """
    name, claim, where = "penalty-interval", "threshold sqrt(2 lam s) = top-k, lam in an interval", "order statistics"
    low, high = penalty_interval(z, k, s)
    if not (high - low) * 2 * s > 4 * allowance(float(np.square(z).max()), 2):
        reason = f"|z|_(k)^2 - |z|_(k+1)^2 = {(high - low) * 2 * s:.3g} is a tie"
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    target = KeepPerRow(k).prox(z[None])[0]
    top = high if np.isfinite(high) else 2 * low + 1.0
    inside = [low + t * (top - low) for t in (0.25, 0.5, 0.75)]
    differing = sum(np.count_nonzero(L0(lam).prox(z, s) != target) for lam in inside)
    outside = [low / 2] * (low > 0) + [2 * high] * bool(np.isfinite(high))
    agreeing = sum(np.array_equal(L0(lam).prox(z, s), target) for lam in outside)
    return Certificate(name, claim, where, float(differing + agreeing), 0.0)


def _sparse(case: Case, k: int, purpose: int) -> Array:
    """A k-sparse weight whose supports have nothing to do with W0."""
    order = case.rng(purpose).permuted(np.tile(np.arange(case.inputs), (case.rows, 1)), axis=1)
    return np.where(order < k, case.some_weight(purpose + 1), 0.0)


def _distance(case: Case) -> Iterator[Certificate]:
    Z, k = case.some_weight(29), min(round(case.keep * case.inputs), case.inputs - 1)
    for fewer in {0, k // 2, k}:
        nearest = np.where(np.argsort(np.argsort(-np.abs(Z))) < fewer, Z, 0.0)
        for Y in (nearest, _sparse(case, fewer, 30)):
            yield top_k_distance(Z, Y, k, fewer)
    ones = np.ones_like(Z)
    yield top_k_distance(ones, np.where(np.arange(case.inputs) < k, ones, 0.0), k, k)


def _expansion(case: Case) -> Iterator[Certificate]:
    k = round(case.keep * case.inputs)
    for K in {0, k // 2, k}:
        Y = _sparse(case, K, 32)
        for noise in (0.3, 1.0, 3.0):
            yield top_k_expansion(Y + noise * case.some_weight(34), Y, k)
    a = np.append(np.linspace(0.4, 0.9, 25), (sqrt(5) - 1) / 2)[:, None]
    yield top_k_expansion(np.hstack([a, a]), np.hstack([0 * a, 0 * a + 1]), 1)


def _interval(case: Case) -> Iterator[Certificate]:
    s = float(case.rng(35).uniform(0.05, 2))
    for Z in (case.W0, case.some_weight(36)):
        for k in {0, round(case.keep * Z.size), Z.size}:
            yield penalty_is_budget(Z.ravel(), k, s)


CHECKS: dict[str, Check] = {
    "top-k-distance": _distance,
    "top-k-expansion": _expansion,
    "penalty-interval": _interval,
}
