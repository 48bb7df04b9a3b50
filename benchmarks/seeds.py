"""What may be said of two methods when the calibration was drawn several times: windows and seeds must both agree.

d_s, the difference in mean nats per token with calibration seed s; two intervals around its mean over S seeds:

    windows   the texts vary, the draws stay: paired bootstrap of the windows' differences, averaged over seeds    (1)
    seeds     the draws vary, the text stays: mean(d) +- t(0.975, S-1) sd(d) / sqrt(S)  (Student 1908)             (2)

A method is lower, or higher, only where both intervals lie on that side of zero; with one seed (2) does not exist, and
nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student_t

Interval = tuple[float, float]
LEVEL = 0.95


def student(values: Sequence[float]) -> Interval | None:
    """The 95 % interval (2) of the mean of independent draws; None for fewer than two."""
    if len(values) < 2:
        return None
    reach = float(student_t.ppf((1 + LEVEL) / 2, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return fmean(values) - reach, fmean(values) + reach


def verdict(windows: Sequence[float] | None, seeds: Sequence[float] | None) -> str:
    """``lower`` or ``higher`` where both intervals of a difference say so, else ``not separated``."""
    if not windows or not seeds:
        return "not separated"
    if max(windows[1], seeds[1]) < 0:
        return "lower"
    return "higher" if min(windows[0], seeds[0]) > 0 else "not separated"
