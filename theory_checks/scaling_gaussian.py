"""Scaling laws of the risk on Gaussian designs, of the points that IHT and mAIHT return rather than of a minimiser.

Experiments: seed -> certificate. Letters and model as in `spikes`; every n, k or p has its own designs.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from solvers import iht, maiht
from theory_checks import chance, spikes
from theory_checks.certificate import Certificate

WIDTH = 0.03  # half-width to which a slope must be known
LINEAR = 0.02  # share of variance that a straight line in log p may leave over
NS = tuple(500 * 2**i for i in range(9))
KS = (*range(4, 13), *range(14, 30, 2))
PS = (8, 12, 16, 24, 32, 48, 64, 96)
MANY = 2000  # observations where n is fixed: sparse signals then disturb each other little


def slope_in_n(seed: int, *, reps: int = 3000) -> Certificate:
    """The risk falls as 1/n: slope -1 of its logarithm over log n.

    Assumptions: Gaussian design, p = 16, k = 2, n >= 500, spikes at tau / sqrt(n), lam at the universal threshold.
    Measured on the output of IHT. Where: Raskutti, Wainwright, Yu 2011 (rate).
    """
    rng = np.random.default_rng([seed, 1])
    risks = [spikes.gaussian_risks(rng, iht.iht, n, 16, 2, reps).mean() for n in NS]
    claim = "log risk over log n has slope -1"
    return chance.slope_within(
        "risk-slope-n", claim, "derived here", np.log(np.array(NS)), np.log(np.array(risks)), -1.0, -1.0, WIDTH
    )


def slope_in_k(seed: int, *, reps: int = 2000) -> Certificate:
    """The risk grows a little slower than k, as k log(p/k) does: slope in [0.9, 1] over log k.

    Assumptions: Gaussian design, n = 2000, p = 80, k = 4 to 28, spikes and lam at the universal threshold. Measured
    on the output of mAIHT; `reps` at the smallest k and fewer beyond, where the risk varies less. Where: Raskutti,
    Wainwright, Yu 2011 (rate).
    """
    rng = np.random.default_rng([seed, 6])
    risks = [spikes.gaussian_risks(rng, maiht.maiht, MANY, 80, k, reps * KS[0] // k, designs=8).mean() for k in KS]
    claim = "log risk over log k has a slope in [0.9, 1]"
    return chance.slope_within(
        "gaussian-slope-k", claim, "derived here", np.log(np.array(KS)), np.log(np.array(risks)), 0.9, 1.0, WIDTH
    )


def linear_in_log_p(seed: int, *, reps: int = 3200) -> Certificate:
    """The risk is linear in log p: a straight line leaves less than 2 % of its variance over (R^2 > 0.98).

    Assumptions: Gaussian design, n = 2000, k = 2, p = 8 to 96, spikes and lam at the universal threshold. Measured
    on the output of mAIHT. Where: Raskutti, Wainwright, Yu 2011 (rate).
    """
    rng = np.random.default_rng([seed, 7])
    samples = np.array([spikes.gaussian_risks(rng, maiht.maiht, MANY, p, 2, reps, designs=16) for p in PS])
    left = 1 - float(np.corrcoef(np.log(PS), samples.mean(axis=1))[0, 1]) ** 2
    error = float((samples.std(axis=1) / samples.mean(axis=1)).max()) / sqrt(reps)
    why = f"the means are known to {error:.2g} > {LINEAR} only" if error > LINEAR else ""
    claim = f"1 - R^2 of the risk over log p <= 0.02; seen R^2 = {1 - left:.4f}"
    return Certificate("gaussian-linear-log-p", claim, "derived here", left, LINEAR, inconclusive=why)


EXPERIMENTS: dict[str, Callable[[int], Certificate]] = {
    "risk-slope-n": slope_in_n,
    "gaussian-slope-k": slope_in_k,
    "gaussian-linear-log-p": linear_in_log_p,
}
