"""Moreau envelopes: derivatives, tight constants, and the words where a theorem has nothing to say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.sparsity import L0, L1
from theory_checks.certificate import allowance
from theory_checks.envelope import (
    envelope,
    envelope_gradient,
    envelope_lipschitz,
    envelope_value,
    lipschitz,
    mask_stability,
    score_bound,
    score_stability,
    smoothed_gradient,
)
from theory_checks.strategies import cases

A = np.diag([-1.0, 3.0])
X, Y = np.array([1.0, 0.0]), np.array([2.0, 0.0])


def test_the_envelopes_by_hand():
    x = np.array([[3.0, 0.5]])
    assert envelope(L1(1.0), x, 1.0)[0] == (3 - 1 / 2) + 1 / 8
    assert envelope(L1(1.0), x, 1.0)[1].tolist() == [[1.0, 0.5]]
    assert envelope(L0(1.0), x, 1.0)[0] == 1 + 1 / 8
    assert envelope(L0(1.0), x, 1.0)[1].tolist() == [[0.0, 0.5]]


@given(case=cases(), rho=st.floats(0.1, 4.0))
def test_the_gradient_is_the_limit_of_differences(case, rho):
    """Central differences of a piecewise quadratic are exact where no kink lies between."""
    W, h = case.some_weight(), 2.0**-10
    for penalty in (case.absolute, case.penalty):
        threshold = rho * penalty.lam if isinstance(penalty, L1) else np.sqrt(2 * rho * penalty.lam)
        i = np.unravel_index(np.argmax(np.abs(np.abs(W) - threshold)), W.shape)
        if abs(abs(W[i]) - threshold) <= h or abs(W[i]) <= h:
            continue
        e = np.zeros_like(W)
        e[i] = h
        above, below = (envelope(penalty, W + sign * e, rho)[0] for sign in (1, -1))
        size = penalty.value(W + 1) + float(np.square(np.abs(W) + 1).sum()) / rho
        found = envelope(penalty, W, rho)[1][i]
        assert abs((above - below) / (2 * h) - found) <= allowance(size / h, W.size)


@given(case=cases())
def test_penalty_and_envelope_have_the_same_minimum(case):
    for penalty in (case.absolute, case.penalty):
        assert envelope(penalty, np.zeros_like(case.W0), 0.7)[0] == 0
        assert envelope(penalty, case.W0, 0.7)[0] >= 0


def test_on_the_lowest_eigenvector_the_constant_is_reached():
    for rho in (0.5, 0.75, 0.9375):
        certificate = envelope_lipschitz(A, X, Y, rho)
        assert certificate.outcome == "holds"
        assert abs(certificate.slack) <= certificate.allowance
    assert lipschitz(0.25, 1.0) == 4
    assert lipschitz(0.75, 1.0) == 4
    assert envelope_lipschitz(A, X, Y, 0.25).slack > 1


def test_one_over_rho_is_no_constant_beyond_half_of_one_over_beta():
    moved = np.linalg.norm(smoothed_gradient(A, X, 0.75) - smoothed_gradient(A, Y, 0.75))
    assert moved > np.linalg.norm(X - Y) / 0.75


def test_the_raw_gradient_is_steeper_than_the_envelope():
    steep = np.diag([-1.0, 500.0])
    x, y = np.array([0.0, 1.0]), np.array([0.0, 2.0])
    assert envelope_lipschitz(steep, x, y, 0.5).outcome == "holds"
    assert np.linalg.norm(steep @ (x - y)) > lipschitz(0.5, 1.0) * np.linalg.norm(x - y)


def test_with_one_input_the_score_bound_is_reached():
    certificate = score_stability(np.array([[-1.0]]), np.array([2.0]), np.array([1.0]), 0.75)
    assert abs(certificate.slack) <= certificate.allowance
    assert score_bound(np.array([2.0]), np.array([1.0]), np.array([8.0]), 4.0).tolist() == [20.0]


def test_a_small_move_keeps_the_mask_and_a_large_one_is_not_judged():
    w = np.array([1.0, 2.0])
    still = mask_stability(A, w, np.array([2.0**-10, 0.0]), 0.5, 1)
    assert (still.outcome, still.measured) == ("holds", 0.0)
    assert "score gap = " in mask_stability(A, w, np.array([10.0, 0.0]), 0.5, 1).applies


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: envelope_lipschitz(A, X, Y, 1.5), "beta = 1, rho * beta = 1.5"),
        (lambda: envelope_lipschitz(np.eye(2), X, Y, 1.5), "beta = -1, rho * beta = -1.5"),
        (lambda: score_stability(A, X, Y, 1.25), "beta = 1, rho * beta = 1.25"),
        (lambda: mask_stability(A, X, Y, 0.5, 2), "beta = 1, rho * beta = 0.5, k = 2 of 2"),
        (lambda: envelope_gradient(L0(2.0), np.array([[2.0]]), 1.0), "||x_i| - sqrt(2 rho lam)| = 0 is a kink"),
    ],
)
def test_a_claim_outside_its_assumptions_says_why(certificate, reason):
    assert certificate().applies == reason


def test_a_threshold_that_keeps_too_much_raises_the_envelope(monkeypatch):
    monkeypatch.setattr(L0, "prox", lambda self, Z, s: Z)
    assert envelope_value(L0(1.0), np.array([[0.5]]), 1.0).outcome == "fails"
