"""Verdicts about random quantities: a probability, means, a slope; and when a sample is too small for one.

A statement that the sample contradicts fails; one that it neither contradicts nor supports is inconclusive.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from scipy.special import betaincinv, gammainc, kolmogi, stdtrit

from solvers.sparsity import Array
from theory_checks.certificate import Certificate

LEVEL = 1e-3  # of every interval, two-sided: 99.9 %
Z = 5.0  # standard errors at which a mean contradicts its prediction; 6e-7 a cell, so a thousand cells are allowed for
REJECT, FAR = 1e-4, 0.1  # level of the test of a law, and the distance that it must be able to see
ENOUGH = 100  # repetitions below which the standard error of a skewed quantity is itself unknown
PRECISION = 0.05  # relative standard error above which a mean supports nothing


def clopper_pearson(hits: int, trials: int) -> tuple[float, float]:
    """The exact 99.9 % interval of a probability."""
    low = float(betaincinv(hits, trials - hits + 1, LEVEL / 2)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - LEVEL / 2)) if hits < trials else 1.0
    return low, high


def rare(name: str, claim: str, where: str, misses: int, trials: int, delta: float) -> Certificate:
    """The probability of a miss is at most delta: measured is the lower end of its interval.

    Inconclusive while delta lies inside the interval.
    """
    low, high = clopper_pearson(misses, trials)
    why = f"{misses} of {trials} allow a probability up to {high:.3g} > {delta:.3g}" if high > delta else ""
    return Certificate(name, f"{claim}; seen {misses} of {trials}", where, low, delta, inconclusive=why)


def means(name: str, claim: str, where: str, samples: Array, expected: Array) -> Certificate:
    """Every row's mean is its expectation: measured is the largest |z|, bound 5.

    Parameters
    ----------
    samples : (cells, repetitions)
    expected : (cells,) not zero
    """
    error = samples.std(axis=1, ddof=1) / sqrt(samples.shape[1])
    worst = float(np.abs((samples.mean(axis=1) - expected) / error).max())
    relative = float((error / np.abs(expected)).max())
    why = f"a standard error of {relative:.2g} > {PRECISION} of the mean" if relative > PRECISION else ""
    if samples.shape[1] < ENOUGH:
        why = f"{ENOUGH} > {samples.shape[1]} repetitions"
    return Certificate(name, claim, where, worst, Z, inconclusive=why)


def slope_within(
    name: str, claim: str, where: str, x: Array, y: Array, low: float, high: float, width: float
) -> Certificate:
    """The slope of y over x lies in [low, high]: measured is its distance to it, bound its half-width.

    The interval is that of ordinary least squares at 99.9 %. Inconclusive if the half-width exceeds `width`.
    """
    far = x - x.mean()
    slope = float(far @ y / (far @ far))
    left = y - y.mean() - slope * far
    error = sqrt(float(left @ left) / (len(x) - 2) / float(far @ far))
    half = error * float(stdtrit(len(x) - 2, 1 - LEVEL / 2))
    why = f"the slope is known to {half:.2g} > {width} only" if half > width else ""
    distance = max(low - slope, slope - high, 0.0)
    return Certificate(name, f"{claim}; seen {slope:.4f} +- {half:.4f}", where, distance, half, inconclusive=why)


def chi_square(name: str, claim: str, where: str, sample: Array, degrees: int) -> Certificate:
    """A sample has the chi-square law: measured is its Kolmogorov-Smirnov distance, bound the quantile at `REJECT`.

    Inconclusive if a distance above 0.1 would pass.
    """
    rank = np.arange(len(sample) + 1) / len(sample)
    law = gammainc(degrees / 2, np.sort(sample) / 2)
    distance = float(max((rank[1:] - law).max(), (law - rank[:-1]).max()))
    bound = float(kolmogi(REJECT)) / sqrt(len(sample))
    why = f"a distance up to {bound:.2g} > {FAR} would pass" if bound > FAR else ""
    return Certificate(name, claim, where, distance, bound, inconclusive=why)
