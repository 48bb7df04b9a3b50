"""Operators by hand: what the prox of a penalty with a ridge keeps, and where a statement ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.sparsity import L0, L1, KeepGroups, KeepNofM
from theory_checks.certificate import allowance
from theory_checks.projections import (
    diagonal_projection,
    firmly_nonexpansive,
    group_projection,
    moreau_decomposition,
    ridge_in_prox,
    ridge_prox,
)
from theory_checks.strategies import cases

ROW = np.array([[3.0, -1.0, 0.5, -4.0]])


def test_a_ridge_in_the_prox_shrinks_the_weight_and_the_threshold():
    """s = mu = lam = 1: the mean of 3 and 1 is 2, the threshold sqrt(2 / 2) = 1; 3/4 and 1/2 have mean 5/8."""
    Z, C = np.array([[3.0, 0.75]]), np.array([[1.0, 0.5]])
    assert ridge_prox(Z, C, 1.0, 1.0, 1.0).tolist() == [[2.0, 0.0]]
    assert ridge_in_prox(Z, C, 1.0, 1.0, 1.0).bound == (1 / 2 + 1 / 2 + 1) + (9 / 32 + 1 / 8)


def test_without_a_ridge_it_is_the_hard_threshold():
    assert np.array_equal(ridge_prox(ROW, 7 * ROW, 0.3, 0.0, 2.0), L0(2.0).prox(ROW, 0.3))


@given(case=cases(), seed=st.integers(0, 99))
def test_no_weight_beats_the_prox_with_a_ridge(case, seed):
    Z, C, lam = case.W0, case.some_weight(), case.penalty.lam
    rng = np.random.default_rng(seed)
    V = ridge_prox(Z, C, 0.7, 0.4, lam)
    other = np.where(rng.random(V.shape) < 0.5, 0.0, V + rng.standard_normal(V.shape))

    def cost(U):
        ridge = 0.4 / 2 * np.square(U - C).sum()
        return np.square(U - Z).sum() / (2 * 0.7) + ridge + lam * np.count_nonzero(U)

    assert cost(V) <= cost(other) + allowance(cost(other) + cost(V), V.size)


def test_a_hard_threshold_is_not_nonexpansive(monkeypatch):
    pair = np.array([[1.1]]), np.array([[0.9]])
    assert firmly_nonexpansive(1.0, *pair, 1.0).outcome == "holds"
    monkeypatch.setattr(L1, "prox", lambda self, Z, s: L0(self.lam**2 * s / 2).prox(Z, s))
    expanded = firmly_nonexpansive(1.0, *pair, 1.0)
    assert expanded.outcome == "fails"
    assert expanded.measured == 1.1**2
    assert moreau_decomposition(1.0, pair[0], 1.0).outcome == "fails"


def test_on_the_same_side_firm_nonexpansiveness_is_an_equality():
    certificate = firmly_nonexpansive(1.0, np.array([[3.0]]), np.array([[5.0]]), 1.0)
    assert (certificate.measured, certificate.bound) == (4.0, 4.0)


def test_groups_rank_by_norm_not_by_their_mean():
    """Inputs 0, 1, 2 have norm^2 = 12, input 3 has 9: the larger mean loses."""
    certificate = group_projection(KeepGroups(1, (0, 0, 0, 1)), np.array([[2.0, 2, 2, 3]]))
    assert (certificate.outcome, certificate.measured, certificate.bound) == ("holds", 9.0, 9.0)


def test_under_a_diagonal_metric_the_smaller_weight_may_stay():
    certificate = diagonal_projection(KeepNofM(1, 2), np.array([[1.0, 2.0]]), np.array([9.0, 1.0]))
    assert (certificate.outcome, certificate.measured, certificate.bound) == ("holds", 4.0, 4.0)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: group_projection(KeepGroups(1, tuple(range(13))), np.ones((1, 13))), "groups = 13 > 12"),
        (lambda: diagonal_projection(KeepNofM(7, 14), np.ones((1, 14)), np.ones(14)), "patterns = 3432 > 1000"),
    ],
)
def test_what_is_too_wide_to_enumerate_is_told(certificate, reason):
    assert certificate().applies == reason
