"""Top-k: the constants are reached where the notes say, and the intervals of penalties tile the line."""

from itertools import pairwise
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given

from theory_checks.certificate import allowance
from theory_checks.strategies import cases
from theory_checks.top_k import expansion, penalty_interval, penalty_is_budget, top_k_distance, top_k_expansion

GOLDEN = (1 + sqrt(5)) / 2


def test_the_expansion_constant_is_the_golden_ratio_squared_and_is_reached():
    a = np.linspace(0.01, 0.99, 9801)[:, None]
    scanned = top_k_expansion(np.hstack([a, a]), np.hstack([0 * a, 0 * a + 1]), 1)
    ratios = (1 + np.square(a)) / (np.square(a) + np.square(1 - a))
    assert abs(expansion(1, 1, 2) - GOLDEN**2) <= allowance(GOLDEN**2, 2)
    assert scanned.outcome == "holds"
    assert 2.618 < ratios.max() <= GOLDEN**2
    exact = top_k_expansion(np.array([[GOLDEN - 1, GOLDEN - 1]]), np.array([[0.0, 1.0]]), 1)
    assert abs(exact.slack) <= exact.allowance


@pytest.mark.parametrize(
    ("K", "k", "n", "nu"), [(0, 0, 4, 1), (0, 3, 4, 1), (4, 4, 4, 1), (2, 4, 4, 1), (1, 4, 9, 1.6404)]
)
def test_the_expansion_constant_shrinks_as_more_is_kept(K, k, n, nu):
    assert round(expansion(K, k, n), 4) == nu


def test_equal_magnitudes_reach_the_distance_bound():
    certificate = top_k_distance(np.ones((1, 5)), np.array([[1.0, 0, 0, 0, 0]]), 3, 1)
    assert (certificate.measured, certificate.bound) == (2.0, 2.0)


def test_the_penalty_interval_by_hand():
    z = np.array([1.0, -3.0, 2.0])
    assert [penalty_interval(z, k, 0.5) for k in range(4)] == [(9, inf), (4, 9), (1, 4), (0, 1)]


@given(case=cases())
def test_the_intervals_tile_the_penalties(case):
    z = case.W0.ravel()
    ends = [penalty_interval(z, k, 0.3) for k in range(z.size + 1)]
    assert ends[0][1] == inf
    assert ends[-1][0] == 0
    assert all(above[0] == below[1] for above, below in pairwise(ends))


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: top_k_distance(np.ones((1, 3)), np.ones((1, 3)), 2, 1), "not 3 <= k' = 1 <= k = 2 < n = 3"),
        (lambda: top_k_distance(np.ones((1, 3)), np.zeros((1, 3)), 3, 0), "not 0 <= k' = 0 <= k = 3 < n = 3"),
        (lambda: top_k_expansion(np.ones((1, 3)), np.ones((1, 3)), 2), "k = 2 < K = 3"),
        (lambda: penalty_is_budget(np.array([1.0, -1.0]), 1, 1.0), "|z|_(k)^2 - |z|_(k+1)^2 = 0 is a tie"),
    ],
)
def test_a_claim_outside_its_assumptions_says_why(certificate, reason):
    assert certificate().applies == reason
