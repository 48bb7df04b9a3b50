"""Statements with a probability: noise events, the risk of the penalised minimiser, exact laws of simple estimators.

Experiments, not per-layer checks: seed -> certificate. Letters as in `risk` and `shrinkage`; delta the probability of
a miss that is allowed. Orthonormal designs make the global minimiser a threshold, so that p can be large.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb, log, sqrt

import numpy as np

from solvers.problem import LayerProblem
from solvers.refine import refine
from solvers.sparsity import L0, L1, Array, KeepPerRow
from theory_checks import chance, risk, shrinkage
from theory_checks.certificate import Certificate
from theory_checks.synthetic import autoregressive

DELTA = 0.1
PENALISED_RATE, PENALISED_TAIL = 8.0, 12.0


def log_supports(p: int, size: int) -> float:
    """log of the number of supports: the price of looking at all of them."""
    return log(comb(p, size))


def lasso_level(sigma: float, n: int, p: int, delta: float) -> float:
    """2 sigma sqrt(2 log(2p / delta) / n): at least 2 |X'eps|_inf / n with probability 1 - delta."""
    return 2 * sigma * sqrt(2 * log(2 * p / delta) / n)


def noise_event(seed: int, *, trials: int = 2000) -> Certificate:
    """P(max_{|T| <= 2k} |P_T eps|^2 > sigma^2 (2k + 2 sqrt(2k t) + 2t)) <= delta, t = log C(p, 2k) + log 1/delta.

    With `risk.constrained_risk` it bounds the risk of k-sparse least squares with probability 1 - delta. Assumptions:
    normal noise; here orthonormal columns, p = 50, k = 2. Where: Laurent, Massart 2000, Lemma 1, and a
    union bound. Upper bound.
    """
    p, size = 50, 4
    noise = np.sort(np.square(np.random.default_rng([seed, 11]).standard_normal((trials, p))), axis=1)
    t = log_supports(p, size) + log(1 / DELTA)
    misses = int((noise[:, -size:].sum(axis=1) > size + 2 * sqrt(size * t) + 2 * t).sum())
    claim = "P(max_T |P_T eps|^2 > sigma^2 (2k + 2 sqrt(2kt) + 2t)) <= 0.1"
    return chance.rare("noise-event", claim, "Laurent, Massart 2000, Lemma 1", misses, trials, DELTA)


def penalised_rate(seed: int, *, trials: int = 400) -> Certificate:
    """P(|X (w^ - w)|^2 > 8 k lam0 + 12 sigma^2 log 1/delta) <= delta for the l0-penalised minimiser at lam0.

    lam0 = sigma^2 (2 + 3 log(2 e p)). Assumptions: normal noise; here orthonormal columns (the minimiser is the hard
    threshold at sqrt(2 lam0)), p = 4000, k = 2, spikes at half, once and twice the threshold. Where: derived here.
    """
    p, k = 4000, 2
    rng = np.random.default_rng([seed, 12])
    true = 2 + 3 * log(2 * np.e * p)
    w = np.where(np.arange(p) < k, sqrt(2 * true), 0.0) * rng.choice([0.5, 1.0, 2.0], size=(trials, 1))
    found = L0(risk.universal_penalty(1.0, p)).prox(w + rng.standard_normal((trials, p)), 1.0)
    bound = PENALISED_RATE * k * true + PENALISED_TAIL * log(1 / DELTA)
    misses = int((np.square(found - w).sum(axis=1) > bound).sum())
    claim = "P(|X(w^ - w)|^2 > 8 k lam0 + 12 sigma^2 log 1/delta) <= 0.1"
    return chance.rare("penalised-rate", claim, "derived here", misses, trials, DELTA)


def lasso_event(seed: int, *, trials: int = 4000) -> Certificate:
    """P(2 |X'eps|_inf / n > lam) <= delta for lam = 2 sigma sqrt(2 log(2p / delta) / n).

    Assumptions: normal noise, columns of norm sqrt(n). Here a Gaussian design, n = 60, p = 40. Where: Bickel, Ritov,
    Tsybakov 2009. Upper bound (a union over 2p tails).
    """
    n, p, sigma = 60, 40, 0.7
    rng = np.random.default_rng([seed, 13])
    X = rng.standard_normal((n, p))
    X *= sqrt(n) / np.linalg.norm(X, axis=0)
    loudest = 2 * np.abs(sigma * rng.standard_normal((trials, n)) @ X).max(axis=1) / n
    misses = int((loudest > lasso_level(sigma, n, p, DELTA)).sum())
    claim = "P(2 |X'eps|_inf / n > 2 sigma sqrt(2 log(2p/delta)/n)) <= 0.1"
    return chance.rare("lasso-event", claim, "derived here", misses, trials, DELTA)


def oracle_chi_square(seed: int, *, trials: int = 2000) -> Certificate:
    """|X (w^ - w)|^2 / sigma^2 of the refit on the true support has the chi-square law with k degrees of freedom.

    Assumptions: normal noise, fixed design (correlated, n = 40, p = 12, k = 5). Measured: the Kolmogorov-Smirnov
    distance of `refine=exact`. Bound: its quantile at 1e-4. Where: Cochran 1934. Tight.
    """
    n, p, k = 40, 12, 5
    rng = np.random.default_rng([seed, 14])
    X = autoregressive(rng, n, p)
    H = X.T @ X / n
    w = np.where(np.arange(p) < k, 1.0, 0.0)
    noise = rng.standard_normal((trials, n)) @ X / n
    problem = LayerProblem.of(w + np.linalg.solve(H, noise.T).T, (H + H.T) / 2)
    mask = KeepPerRow(k).mask(np.broadcast_to(w, problem.shape))
    D = refine(problem, mask, np.where(mask, problem.W0, 0.0), "exact") - w
    claim = "KS distance of |X(w^ - w)|^2 / sigma^2 on the true support to chi-square(k)"
    return chance.chi_square("oracle-chi-square", claim, "derived here", np.square(D @ X.T).sum(axis=1), k)


def threshold_means(seed: int, *, trials: int = 100_000) -> Certificate:
    """The mean squared error of hard and soft thresholding is the closed risk, over a grid of means and thresholds.

    Assumptions: variance 1. Measured: the largest |z| over 2 x 12 cells. Where: Donoho, Johnstone 1994.
    """
    z = np.random.default_rng([seed, 15]).standard_normal(trials)
    samples: list[Array] = []
    expected: list[float] = []
    for theta in (0.0, 0.5, 1.5, 4.0):
        for tau in (0.5, 1.0, 2.0):
            for operator, closed in ((L0(tau**2 / 2), shrinkage.hard_risk), (L1(tau), shrinkage.soft_risk)):
                samples.append(np.square(operator.prox(theta + z, 1.0) - theta))
                expected.append(closed(theta, tau))
    claim = "mean of (prox(theta + z) - theta)^2 = closed risk"
    return chance.means("threshold-means", claim, "derived here", np.array(samples), np.array(expected))


EXPERIMENTS: dict[str, Callable[[int], Certificate]] = {
    "noise-event": noise_event,
    "penalised-rate": penalised_rate,
    "lasso-event": lasso_event,
    "oracle-chi-square": oracle_chi_square,
    "threshold-means": threshold_means,
}
