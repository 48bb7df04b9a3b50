"""Planted defects of the risk slice: constants, events and conventions that a wrong proof or a wrong text would have.

The constants are those of the worst cases constructed here; the defects in solvers are ones that only a risk can show.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np

from solvers import iht, linalg, maiht, refine
from solvers.iterate import iterate as _iterate
from solvers.solution import Stop
from theory_checks import planted, probability, recovery, risk, scaling, shrinkage, spikes, stationary_risk
from theory_checks.mutant import Mutant, Patch

_penalty, _event, _hard, _soft = (
    risk.universal_penalty,
    shrinkage.event_value,
    shrinkage.hard_risk,
    shrinkage.soft_risk,
)


def _boastful(*args: Any, **options: Any) -> Any:
    """A solver that stops early and reports the tolerance that it was asked for."""
    found = _iterate(*args, **{**options, "tol": 0.3})
    assert found.trace is not None
    found.trace.tol = options["tol"]
    return found


def _always_converged(*args: Any, **options: Any) -> Any:
    """A solver that says converged when its iterations, cut to three, are spent."""
    step, state, problem, schedule = args
    found = _iterate(step, state, problem, lambda t, x, last: schedule(t, x, last) if t < 3 else None, **options)
    object.__setattr__(found, "stop", Stop.CONVERGED)
    return found


def _one_step(problem: Any, mask: Any, W: Any, **options: Any) -> Any:
    return linalg.least_squares_pcg(problem, mask, W, tol=0.0, iters=1)


def _on_the_same_data(X: Any, y: Any, k: int) -> Any:
    best = risk.subsets(X.shape[1], k)[int(risk.caught(X, k, y).argmax())]
    return np.isin(np.arange(X.shape[1]), best)


def _dense(self: Any) -> Any:
    """Every input carries a share of the truth, whatever k says."""
    return self.height * self.rng(2).uniform(0.5, 1.5, self.p)


def _heavy_tailed(rng: Any, n: int, root: Any) -> Any:
    """Elliptical rows of the same covariance: one in ten is seven times as long as the others."""
    lengths = np.where(rng.random((n, 1)) < 0.1, 7.0, 1.0) / sqrt(0.1 * 49 + 0.9)
    return lengths * rng.standard_normal((n, len(root))) @ root


MUTANTS: tuple[Mutant, ...] = (
    Mutant("T1: 2 instead of 4", (Patch(risk, "CONSTRAINED", 2.0),), ("l0-constrained-risk",)),
    Mutant("T1: the truth is not k-sparse", (Patch(planted.Planted, "w", property(_dense)),), ("l0-constrained-risk",)),
    Mutant(
        "T1: no price for the choice of the support",
        (Patch(probability, "log_supports", lambda p, size: 0.0),),
        ("noise-event",),
    ),
    Mutant("T2: 2 instead of the first 4", (Patch(risk, "PENALISED_NOISE", 2.0),), ("l0-penalised-risk",)),
    Mutant(
        "T2: lam0 / 100",
        (Patch(risk, "universal_penalty", lambda sigma, p: _penalty(sigma, p) / 100),),
        ("penalised-rate",),
    ),
    Mutant(
        "T3: sqrt(2 lam alpha), and no noise term",
        (
            Patch(stationary_risk, "stationary_threshold", lambda lam, alpha: sqrt(2 * lam * alpha)),
            Patch(stationary_risk, "uncaught_noise", lambda X, missed, residual: 0.0),
        ),
        ("stationary-bias",),
    ),
    Mutant(
        "T3: stops at 0.3, reports the tolerance asked for",
        (Patch(iht, "iterate", _boastful), Patch(maiht, "iterate", _boastful)),
        ("stationary-pythagoras",),
    ),
    Mutant(
        "T3: three iterations count as converged",
        (Patch(iht, "iterate", _always_converged), Patch(maiht, "iterate", _always_converged)),
        ("stationary-pythagoras",),
    ),
    Mutant("T4: 1 instead of 2", (Patch(risk, "NEAR", 1.0),), ("near-minimiser",)),
    Mutant(
        "T5: hard and soft risk exchanged",
        (Patch(shrinkage, "hard_risk", _soft), Patch(shrinkage, "soft_risk", _hard)),
        ("thresholding-risk", "threshold-means"),
    ),
    Mutant(
        "T5: threshold sqrt(log p)",
        (Patch(shrinkage, "universal_threshold", lambda p: sqrt(log(p))),),
        ("oracle-inequality",),
    ),
    Mutant(
        "T5: the refit takes one conjugate gradient step",
        (Patch(refine, "least_squares_pcg", _one_step),),
        ("oracle-chi-square", "fresh-error"),
    ),
    Mutant(
        "T6: lam at 5 % of the event",
        (Patch(shrinkage, "event_value", lambda problem: 0.05 * _event(problem)),),
        ("lasso-slow-rate", "lasso-fast-rate", "lasso-cone"),
    ),
    Mutant("T6: slow rate with 2 for 3", (Patch(shrinkage, "SLOW", 2.0),), ("lasso-slow-rate",)),
    Mutant("T6: fast rate with 4 for 9", (Patch(shrinkage, "FAST", 4.0),), ("lasso-fast-rate",)),
    Mutant("T6: a cone of 2 for 3", (Patch(shrinkage, "CONE", 2.0),), ("lasso-cone",)),
    Mutant(
        "T6: no price for p columns",
        (Patch(probability, "lasso_level", lambda sigma, n, p, delta: 2 * sigma * sqrt(2 * log(2 / delta) / n)),),
        ("lasso-event",),
    ),
    Mutant(
        "T7: the risk is a sum over observations",
        (Patch(spikes, "per_observation", lambda squares, n: squares),),
        ("risk-slope-n",),
    ),
    Mutant(
        "T7: a threshold that ignores p",
        (Patch(spikes, "selection_threshold", lambda p: 1.5),),
        ("risk-slope-k", "risk-linear-log-p", "risk-constant", "gaussian-slope-k", "gaussian-linear-log-p"),
    ),
    Mutant(
        "T7: the truth is dense",
        (Patch(spikes, "spikes", lambda p, k: np.full(p, sqrt(2 * log(p)))),),
        ("risk-slope-k", "risk-linear-log-p", "risk-constant", "gaussian-slope-k", "gaussian-linear-log-p"),
    ),
    Mutant(
        "T8: tokens with heavy tails",
        (Patch(scaling, "tokens", _heavy_tailed),),
        ("calibration-error", "fresh-error"),
    ),
    Mutant(
        "T8: the support is chosen on the same tokens",
        (Patch(scaling, "support", _on_the_same_data),),
        ("calibration-error", "fresh-error"),
    ),
    Mutant("T2: 2 instead of the second 4", (Patch(risk, "PENALISED_COUNT", 2.0),), ("l0-penalised-risk",)),
    Mutant(
        "L3: step 3 / (L + m)",
        (Patch(recovery.Recovery, "step", property(lambda self: 3 / sum(self.extremes))),),
        ("golden-ratio-recovery",),
    ),
    Mutant("L3: 1 instead of the golden ratio", (Patch(recovery, "EXPANSION", 1.0),), ("golden-ratio-recovery",)),
)
