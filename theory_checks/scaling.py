"""Scaling laws of the risk in n, k and log p, and what calibration on n tokens costs a refit.

Experiments, not per-layer checks: seed -> certificate. Letters and model of the risks as in `spikes`; here designs are
orthonormal, `scaling_gaussian` has the others. Calibration: X (n, p) tokens, S the k inputs that a refit may use.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from solvers.problem import LayerProblem
from solvers.refine import refine
from solvers.sparsity import Array, Mask
from theory_checks import chance, probability, scaling_gaussian, spikes
from theory_checks.certificate import Certificate
from theory_checks.scaling_gaussian import LINEAR, WIDTH
from theory_checks.synthetic import Rng

RATIO = (0.3, 1.2)  # of the risk to 2 sigma^2 k log p
KS = (4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48)
PS = tuple(2**i for i in range(6, 14))
TOKENS = (12, 20, 40, 160)


def slope_in_k(seed: int, *, reps: int = 2500) -> Certificate:
    """The risk grows a little slower than k, as k log(p/k) does: slope in [0.9, 1] over log k, p = 1000.

    Assumptions: orthonormal design, spikes and threshold at tau. Where: Raskutti, Wainwright, Yu 2011.
    """
    rng = np.random.default_rng([seed, 2])
    risks = [spikes.orthonormal_risks(rng, 1000, k, reps).mean() for k in KS]
    claim = "log risk over log k has a slope in [0.9, 1]"
    return chance.slope_within(
        "risk-slope-k", claim, "derived here", np.log(np.array(KS)), np.log(np.array(risks)), 0.9, 1.0, WIDTH
    )


def _over_p(seed: int, purpose: int, reps: int) -> Array:
    """(len(PS), reps) risks at k = 8, in units of sigma^2."""
    rng = np.random.default_rng([seed, purpose])
    return np.array([spikes.orthonormal_risks(rng, p, 8, reps) for p in PS])


def linear_in_log_p(seed: int, *, reps: int = 1000) -> Certificate:
    """The risk is linear in log p: a straight line leaves less than 2 % of its variance over (R^2 > 0.98).

    Assumptions: orthonormal design, k = 8, p = 64 to 8192. Where: Donoho, Johnstone 1994.
    """
    samples = _over_p(seed, 3, reps)
    left = 1 - float(np.corrcoef(np.log(PS), samples.mean(axis=1))[0, 1]) ** 2
    error = float((samples.std(axis=1) / samples.mean(axis=1)).max()) / sqrt(reps)
    why = f"the means are known to {error:.2g} > {LINEAR} only" if error > LINEAR else ""
    claim = f"1 - R^2 of the risk over log p <= 0.02; seen R^2 = {1 - left:.4f}"
    return Certificate("risk-linear-log-p", claim, "derived here", left, LINEAR, inconclusive=why)


def constant_of_log_p(seed: int, *, reps: int = 1000) -> Certificate:
    """The risk is 2 sigma^2 k log p up to a factor in [0.3, 1.2], at every p.

    Measured: the largest distance from the middle of the interval. Assumptions: as for `linear_in_log_p`. Where:
    the sharp minimax constant is 2 sigma^2 k log(p/k), arXiv 2405.05344.
    """
    samples = _over_p(seed, 4, reps) / (16 * np.log(PS))[:, None]
    ratios = samples.mean(axis=1)
    error = float(samples.std(axis=1).max()) / sqrt(reps)
    why = f"the ratios are known to {error:.2g} > {LINEAR} only" if error > LINEAR else ""
    claim = f"0.3 <= risk / (2 sigma^2 k log p) <= 1.2; seen {ratios.min():.3f} to {ratios.max():.3f}"
    middle, reach = sum(RATIO) / 2, (RATIO[1] - RATIO[0]) / 2
    measured = float(np.abs(ratios - middle).max())
    return Certificate("risk-constant", claim, "derived here", measured, reach, inconclusive=why)


def tokens(rng: Rng, n: int, root: Array) -> Array:
    """(n, p) normal tokens with covariance root' root."""
    return np.asarray(rng.standard_normal((n, len(root))) @ root)


def support(X: Array, y: Array, k: int) -> Mask:
    """(p,) the inputs that are kept: the first k, whatever the tokens say."""
    return np.arange(X.shape[1]) < k


def _calibrated(seed: int, reps: int) -> tuple[Array, Array]:
    """(len(TOKENS), reps) training and fresh errors of the refit of k = 3 of 8 inputs, over sigma_S^2."""
    rng = np.random.default_rng([seed, 5])
    p, k = 8, 3
    root = rng.standard_normal((p, p)) / sqrt(p) + np.eye(p)
    cov, W0 = root.T @ root, rng.standard_normal((1, p))
    errors = np.empty((2, len(TOKENS), reps))
    for i, n in enumerate(TOKENS):
        for r in range(reps):
            X = tokens(rng, n, root)
            S = support(X, X @ W0[0], k)
            dropped = cov[np.ix_(~S, ~S)] - cov[np.ix_(~S, S)] @ np.linalg.solve(cov[np.ix_(S, S)], cov[np.ix_(S, ~S)])
            H = X.T @ X / n
            problem = LayerProblem.of(W0, (H + H.T) / 2)
            D = refine(problem, S[None, :], np.where(S, W0, 0.0), "exact") - W0
            variance = float(W0[0, ~S] @ dropped @ W0[0, ~S])
            errors[:, i, r] = np.square(X @ D[0]).mean() / variance, float(D[0] @ cov @ D[0]) / variance
    return errors[0], errors[1]


def calibration_error(seed: int, *, reps: int = 500) -> Certificate:
    """E |X (w^ - W0)|^2 / n = sigma_S^2 (1 - k/n): the refit looks better on its n tokens than it is.

    Assumptions: normal inputs, a fixed support of k inputs, exact refit, no ridge; sigma_S^2 the variance of the
    dropped part given the kept inputs. Measured: the largest |z| over n. Where: derived here. Tight.
    """
    claim = "E(training error) = sigma_S^2 (1 - k/n)"
    expected = 1 - 3 / np.array(TOKENS)
    return chance.means("calibration-error", claim, "derived here", _calibrated(seed, reps)[0], expected)


def fresh_error(seed: int, *, reps: int = 800) -> Certificate:
    """E(error on fresh tokens) / sigma_S^2 - 1 = k / (n - k - 1): how calibration size limits a refit.

    The excess over 1 is what must be known to 5 %. Assumptions: as for `calibration_error`, n > k + 1. Why: the mean
    of an inverse Wishart matrix. Where: derived here. Tight.
    """
    claim = "E(fresh error) / sigma_S^2 - 1 = k/(n-k-1)"
    expected = 3 / (np.array(TOKENS) - 4)
    return chance.means("fresh-error", claim, "derived here", _calibrated(seed, reps)[1] - 1, expected)


EXPERIMENTS: dict[str, Callable[[int], Certificate]] = {
    **probability.EXPERIMENTS,
    **scaling_gaussian.EXPERIMENTS,
    "risk-slope-k": slope_in_k,
    "risk-linear-log-p": linear_in_log_p,
    "risk-constant": constant_of_log_p,
    "calibration-error": calibration_error,
    "fresh-error": fresh_error,
}
