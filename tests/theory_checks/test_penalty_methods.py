"""Penalties by hand, at their tight cases, against a general optimiser, and outside their assumptions."""

import numpy as np
import pytest
from hypothesis import assume, given, target
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from theory_checks import l1_penalty, penalty_methods
from theory_checks.certificate import allowance
from theory_checks.l1_penalty import l1_gap, l1_penalised, l1_penalty_exact, l1_penalty_necessary
from theory_checks.penalty_methods import (
    Constrained,
    constrained,
    penalised,
    penalty_error,
    penalty_multiplier,
    penalty_path,
    slowest,
)
from theory_checks.strategies import cases

LINE = Constrained(np.array([[2.0]]), np.array([[1.0]]), np.array([3.0]))
"""d^2 with d = 3: nu = -6, S = 1/2, d_rho = 3 rho / (2 + rho), |d| penalised: d = rho / 2 up to rho = 6."""


def _used(certificate):
    assert certificate.outcome == "holds", str(certificate)
    return certificate.measured / (certificate.bound + certificate.allowance)


def _some(case, m):
    assume(m <= case.inputs)
    return constrained(case, m)


def test_one_equation_by_hand():
    best, nu = LINE.solution
    assert (best.tolist(), nu.tolist(), LINE.extremes) == ([3.0], [-6.0], (0.5, 0.5))
    assert penalised(LINE, 2.0).tolist() == [1.5]
    exact = penalty_multiplier(LINE, 2.0)
    assert (exact.measured, exact.bound) == (3.0, 3.0)
    assert penalty_error(LINE, 2.0).bound == 0.5


def test_one_equation_under_an_l1_penalty_by_hand():
    """min d^2 + rho |d - 3| is rho^2/4 + rho (3 - rho/2) at d = rho/2, below 9 by (6 - rho)^2 / 4."""
    for rho in (0.0, 2.0, 5.0, 6.0, 20.0):
        assert l1_gap(LINE, rho) == max(6 - rho, 0) ** 2 / 4
        assert l1_penalty_exact(LINE, rho).bound == max(6 - rho, 0) ** 2 / 4
        assert l1_penalty_necessary(LINE, rho).measured == max(6 - rho, 0) ** 2 / 4
    assert l1_penalised(LINE, np.array([1.0]), 2.0) == (1 + 2 * 2) - 9


@given(case=cases(), m=st.integers(1, 3), share=st.floats(0.01, 3000))
def test_rates_of_the_quadratic_penalty_are_reached_on_the_lowest_eigenvector(case, m, share):
    problem = slowest(_some(case, m))
    for claim in (penalty_multiplier, penalty_error):
        certificate = claim(problem, share / problem.extremes[0])
        assert abs(certificate.slack) <= certificate.allowance


@given(case=cases(), m=st.integers(1, 3), share=st.floats(0.01, 3000))
def test_rates_of_the_quadratic_penalty(case, m, share):
    problem = _some(case, m)
    for claim in (penalty_multiplier, penalty_error):
        certificate = claim(problem, share / problem.extremes[0])
        target(_used(certificate), label=certificate.name)


@given(case=cases(), m=st.integers(1, 3))
def test_beyond_a_thousand_over_s_the_error_is_known_to_a_tenth_of_a_percent(case, m):
    problem = _some(case, m)
    certificate = penalty_error(problem, 1000 / problem.extremes[0])
    assert certificate.outcome == "holds"
    assert certificate.measured <= 1 / 1001 + certificate.allowance


@given(case=cases(), m=st.integers(1, 3), low=st.floats(0.01, 1), step=st.floats(1, 10))
def test_the_path_is_monotone(case, m, low, step):
    problem = _some(case, m)
    certificate = penalty_path(problem, tuple(low * step**i / problem.extremes[0] for i in range(4)))
    assert certificate.outcome == "holds", str(certificate)


def test_a_path_that_runs_backwards_fails():
    certificate = penalty_path(LINE, (8.0, 1.0))
    assert certificate.outcome == "fails"


@given(case=cases(), m=st.integers(1, 3), share=st.floats(0, 2))
def test_an_l1_penalty_gives_up_what_the_multiplier_needs_beyond_it(case, m, share):
    problem = _some(case, m)
    rho = share * float(np.abs(problem.solution[1]).max())
    for claim in (l1_penalty_exact, l1_penalty_necessary):
        certificate = claim(problem, rho)
        assert certificate.outcome == "holds", str(certificate)
        if certificate.bound > certificate.allowance:
            target(_used(certificate), label=certificate.name)
        if m == 1:
            assert abs(certificate.slack) <= 2 * certificate.allowance


@pytest.mark.parametrize("seed", range(4))
def test_a_general_optimiser_finds_the_minimum_by_patterns(seed):
    """With slack variables, min f + rho sum t over t >= |A d - r| is smooth: nothing lower, and nothing much higher."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((4, 4))
    problem = Constrained(root @ root.T + np.eye(4), rng.standard_normal((2, 4)), rng.standard_normal(2))
    best = problem.solution[0]
    sides = [LinearConstraint(np.hstack([sign * problem.A, np.eye(2)]), sign * problem.r) for sign in (1, -1)]
    for share in (0.4, 0.9, 1.5):
        rho = share * float(np.abs(problem.solution[1]).max())
        least = problem.f(best) - l1_gap(problem, rho)

        def cost(x, rho=rho):
            return problem.f(x[:4]) + rho * float(x[4:].sum())

        found = minimize(cost, np.zeros(6), method="SLSQP", constraints=sides).x[:4]
        reached = problem.f(best) + l1_penalised(problem, found, rho)
        assert least - allowance(1 + least, 100) <= reached <= (1 + 2.0**-9) * least


@pytest.mark.parametrize("claim", [l1_penalty_exact, l1_penalty_necessary])
def test_too_many_equations_are_not_judged(claim):
    wide = Constrained(np.eye(6), np.eye(6), np.ones(6))
    assert claim(wide, 1.0).applies == "constraints = 6 > 5"


def test_an_error_of_zero_has_no_ratio():
    feasible = Constrained(np.eye(2), np.array([[1.0, 0.0]]), np.zeros(1))
    assert penalty_error(feasible, 1.0).applies == "|H^-1 A' S^-1 nu|_H = 0: w0 is feasible"
    assert penalty_multiplier(feasible, 1.0).outcome == "holds"


def test_half_of_the_penalty_is_noticed(monkeypatch):
    monkeypatch.setattr(penalty_methods, "penalised", lambda problem, rho: penalised(problem, rho / 2))
    assert penalty_multiplier(LINE, 20.0).outcome == "fails"
    assert penalty_error(LINE, 20.0).outcome == "fails"
    monkeypatch.setattr(l1_penalty, "uncovered", lambda nu, rho: np.zeros_like(nu))
    assert l1_penalty_exact(LINE, 2.0).outcome == "fails"
