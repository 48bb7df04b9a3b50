"""Rates under an adversary, constructed worst cases, and the planted defects of all five files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers import L0, L1, fista, iht
from solvers.problem import LayerProblem
from theory_checks import allowance, linear, paths, rates
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

CASE = Case("language_like", rows=2, inputs=8, seed=4)
L = CASE.judge.lipschitz
DRIFTED = LayerProblem(np.ones((1, 1)), LayerProblem.of(np.ones((1, 1)), np.eye(1)).gram, R=np.ones((1, 1)))
SINGULAR = LayerProblem.of(np.ones((1, 2)), np.ones((2, 2)))


def _closeness(certificate):
    sides = abs(certificate.measured) + abs(certificate.bound) + certificate.allowance
    return certificate.excess / sides if np.isfinite(sides) and sides > 0 else -1.0


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: rates.ista_rate(CASE.judge, L1(0.1), CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
        (lambda: rates.fista_lyapunov(CASE.judge, L1(0.1), CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
        (lambda: rates.mfista_monotone(CASE.judge, L1(0.1), CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
        (lambda: rates.maiht_convex_rate(DRIFTED, L1(0.1), DRIFTED.W0, 0.5), "the problem has drift"),
        (lambda: linear.linear_rate(CASE.judge, L1(0.1), CASE.W0, 2.5 / L), "step * L = 2.5 > 2"),
        (lambda: linear.linear_value_rate(SINGULAR, L1(0.1), SINGULAR.W0, 0.1), "lambda_min(H) = "),
        (lambda: linear.frozen_rate(CASE.judge, L0(0.1), CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
        (
            lambda: linear.frozen_rate(CASE.judge, L0(9.0), CASE.judge.W0, 0.9 / L, n=1),
            "still moves in iteration 1 of 1",
        ),
        (lambda: linear.yang_yu_rate(CASE.judge, L0(0.1), CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
    ],
)
def test_a_rate_outside_its_assumptions_says_why(certificate, reason):
    found = certificate()
    assert found.outcome == "not applicable"
    assert reason in found.applies


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16])
def test_ista_attains_the_tight_constant_exactly(n):
    found = rates.ista_tight(*rates.flat(n), n=n)
    assert found.measured == found.bound == 1 / (4 * n)
    assert rates.ista_rate(*rates.flat(n), n=n).measured == 1 / (4 * n)


@pytest.mark.parametrize(("n", "worst_case"), [(1, 0.25), (2, 0.125), (4, 0.05167), (8, 0.01820)])
def test_fista_attains_the_worst_case_that_pepit_found(n, worst_case):
    """f = 0 in one dimension with the penalty that is worst after n steps: lam = 1 / 2c, c the distance run."""
    run = paths.walk(fista.step, fista.start(np.full((1, 1), 1e3)), rates.flat(1)[0], L1(1.0), 1.0, n)
    c = 1e3 - run[-1].x.item()
    assert round(1 / (4 * c), 5) == worst_case
    assert rates.fista_rate(rates.flat(1)[0], L1(1 / (2 * c)), np.ones((1, 1)), 1.0, n=n).outcome == "holds"


def test_the_linear_rates_are_equalities_on_the_slow_eigenvector():
    found = linear.linear_rate(*linear.slow_start(CASE))
    assert abs(found.measured - found.bound) <= found.allowance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "curvature", lambda H: 2 * float(np.linalg.eigvalsh(H)[0]))
        assert linear.linear_rate(*linear.slow_start(CASE)).outcome == "fails"


def test_the_numbers_are_those_of_the_paper():
    t = rates.numbers(6)
    assert (t >= np.arange(2.0, 8.0) / 2).all()
    recursion = t[1:] ** 2 - t[1:] - t[:-1] ** 2
    assert np.abs(recursion).max() <= allowance(2 * float(t[-1]) ** 2, 1)


@given(case=cases(), n=st.integers(2, 6))
def test_the_reference_is_below_whatever_is_tried(case, n):
    best = paths.lasso(case.judge, case.absolute.lam)
    assert not paths.not_minimal(case.judge, case.absolute.lam, best)
    tries = np.array([case.some_weight(20 + k) for k in range(n)] + [case.judge.W0, np.zeros_like(case.W0)])
    values, rounding = paths.gaps(case.judge, case.absolute, best, tries)
    assert (values >= -rounding).all()


def test_a_wrong_reference_is_noticed_and_the_rate_withdraws(monkeypatch):
    monkeypatch.setattr(paths, "lasso", lambda problem, lam: problem.W0)
    found = rates.ista_rate(CASE.judge, CASE.absolute, CASE.some_weight(), 1 / L)
    assert "the reference violates its optimality conditions by" in found.applies


def test_the_tightest_iteration_is_reported_and_nan_comes_first():
    one = np.ones(3)
    assert paths.tightest("c", "m", "w", np.array([0.1, 0.9, 0.5]), one, 0 * one).measured == 0.9
    assert paths.tightest("c", "m", "w", np.array([0.1, np.nan, 5.0]), one, 0 * one).outcome == "fails"
    assert paths.tightest("c", "m", "w", 0 * one, 0 * one, 0 * one).outcome == "holds"


def test_the_support_rests_where_it_last_moved():
    path = np.array([[[1.0, 0]], [[0.0, 1]], [[2.0, 1]], [[3.0, 1]]])
    assert linear.rest(path) == 2
    assert linear.rest(path[2:]) == 0
    states = paths.walk(iht.step, iht.State(CASE.W0, CASE.W0), CASE.judge, L0(0.0), 0.5 / L, 3)
    assert len(states) == 4
    assert paths.iterates(states).shape == (4, *CASE.W0.shape)
