"""Risk bounds under an adversary, at their constructed worst cases, and outside their assumptions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers import L0, iht, magnitude, maiht
from solvers.sparsity import KeepPerRow
from theory_checks.certificate import Certificate, allowance
from theory_checks.planted import Planted, against, along_the_cone, level, opposed, planted, twins
from theory_checks.risk import best_subset, caught, constrained_risk, fit, near_minimiser, penalised_risk, reflected
from theory_checks.shrinkage import (
    donoho_johnstone,
    event_value,
    lasso,
    lasso_cone,
    lasso_fast_rate,
    lasso_slow_rate,
    thresholding_risk,
)
from theory_checks.stationary_risk import just_missed, stationary_bias, stationary_pythagoras
from theory_checks.strategies import cases

WIDE = Planted("gaussian", n=30, p=11, k=2)
NOISY = Planted("gaussian", n=20, p=6, k=2, sigma=0.5, seed=4)
SINGULAR = Planted("gaussian", n=4, p=6, k=3, sigma=0.1)


def _used(certificate):
    return certificate.measured / (certificate.bound + certificate.allowance)


@pytest.mark.parametrize("seed", range(5))
def test_constructed_cases_use_their_bounds_up(seed):
    """Constants that no random draw would defend: 4 of T1 and T2, the threshold of T3, 2 of T4, 3 and 9 of T6."""
    assert _used(constrained_risk(twins(seed))) > 0.99
    problem, penalty, found = just_missed(seed)
    assert _used(stationary_bias(problem, penalty, found)) > 0.99
    weak = against(seed)
    assert _used(penalised_risk(weak, float(np.square(weak.y).sum()) * 0.501)) > 0.74
    facing = opposed(seed)
    lam = event_value(facing)
    assert _used(lasso_slow_rate(facing, lam, facing.w * 2.0**-20)) > 0.99
    assert _used(lasso_fast_rate(facing, lam, facing.w * 2.0**-20)) > 0.99
    assert _used(lasso_cone(facing, lam, along_the_cone(facing))) > 0.99
    loud = level(seed)
    T = np.union1d(loud.support, [loud.p - 1])
    assert _used(near_minimiser(loud, reflected(loud, T, 2.0))) > 0.81


@given(case=cases())
def test_the_best_subset_is_no_worse_than_the_truth(case):
    problem = planted(case.seed)
    found = fit(problem, best_subset(problem, 0.0, range(problem.k, problem.k + 1)))
    residual = float(np.square(problem.y - problem.X @ found).sum())
    assert residual <= float(np.square(problem.eps).sum()) + allowance(problem.scale, problem.size)
    assert np.count_nonzero(found) <= problem.k
    everything = caught(problem.X, problem.p, problem.y)
    assert everything.shape == (1,)


@given(case=cases(), factor=st.floats(1, 5))
def test_the_exact_lasso_uses_at_most_half_of_the_slow_and_a_quarter_of_the_fast_rate(case, factor):
    """Optimality of the minimiser replaces |X nu|^2 / 2n by |X nu|^2 / n in the basic inequality."""
    problem = planted(case.seed, 1)
    lam = factor * event_value(problem)
    w = lasso(problem, lam)
    for claim, share in ((lasso_slow_rate, 2), (lasso_fast_rate, 4)):
        certificate = claim(problem, lam, w)
        assert certificate.outcome in ("holds", "not applicable"), str(certificate)
        assert share * certificate.measured <= certificate.bound * (1 + 2.0**-10) + certificate.allowance


def _rested(method, lam, **options):
    penalty = L0(lam)
    return NOISY, penalty, method(NOISY.problem, penalty, **options)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: constrained_risk(WIDE), "inputs = 11 > 10"),
        (lambda: penalised_risk(WIDE, 1.0), "inputs = 11 > 10"),
        (lambda: stationary_pythagoras(*_rested(iht.iht, 0.1, iters=1, tol=1e-10)), "iterations exhausted; the last"),
        (lambda: stationary_bias(*_rested(maiht.maiht, 0.1, iters=1, tol=1e-10)), "iterations exhausted; the last"),
        (lambda: stationary_bias(*_rested(iht.iht, 1e-4, iters=900, tol=1e-9)), "missed entries of the truth = 0 of 2"),
        (lambda: stationary_pythagoras(*_rested(iht.iht, 0.0, iters=900, tol=1e-9)), ">= the threshold 0"),
        (
            lambda: stationary_bias(NOISY, L0(0.1), magnitude.magnitude(NOISY.problem, KeepPerRow(2))),
            "the method takes no proximal steps",
        ),
        (lambda: near_minimiser(SINGULAR, np.ones(6)), "zero to rounding"),
        (lambda: thresholding_risk(-0.5, 1.0), "min(theta, tau) = -0.5 < 0"),
        (lambda: donoho_johnstone(1.0, 3), "p = 3 < 4"),
        (
            lambda: lasso_slow_rate(NOISY, event_value(NOISY) / 2, NOISY.w),
            f"< 2 |X'eps|_inf / n = {event_value(NOISY):.3g}",
        ),
        (lambda: lasso_fast_rate(NOISY, event_value(NOISY) / 2, NOISY.w), f"lam = {event_value(NOISY) / 2:.3g} <"),
        (lambda: lasso_cone(NOISY, 0.0, NOISY.w), "lam = 0 <"),
        (lambda: lasso_fast_rate(SINGULAR, event_value(SINGULAR), SINGULAR.w), "gamma = "),
    ],
)
def test_outside_its_assumptions_a_risk_bound_says_why_with_the_number(certificate, reason):
    found = certificate()
    assert found.outcome == "not applicable"
    assert reason in found.applies


def test_a_sample_that_is_too_small_is_its_own_outcome_but_a_contradiction_fails():
    small = Certificate("c", "m <= b", "here", 0.5, 1.0, inconclusive="3 draws")
    assert small.outcome == "inconclusive"
    assert str(small) == "c: 0.5 <= 1 + 0: inconclusive because 3 draws"
    assert small.as_dict()["inconclusive"] == "3 draws"
    assert replace(small, measured=2.0).outcome == "fails"
    assert replace(small, measured=float("nan")).outcome == "fails"
    assert replace(small, applies="not here").outcome == "not applicable"
    assert "inconclusive" not in replace(small, inconclusive="").as_dict()
