"""Recovery at the golden ratio's rate: the instance that uses it up, and the one that never recovers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory_checks.certificate import allowance
from theory_checks.planted import Planted
from theory_checks.recovery import (
    GOLDEN,
    Recovery,
    golden_ratio_recovery,
    ill_conditioned,
    of_planted,
    restricted_eigenvalues,
    tight,
)


@given(m=st.floats(0.01, 100), blocks=st.integers(1, 2))
def test_one_step_can_use_the_golden_ratio_up(m, blocks):
    problem = tight(m, blocks)
    first, second = (np.linalg.norm(x - problem.w) for x in problem.iterates(2))
    rho = GOLDEN * problem.spread
    assert abs(second - rho * first) <= allowance(first, 8 * len(problem.w))
    assert golden_ratio_recovery(problem).outcome == "holds"


@pytest.mark.parametrize("ratio", [20.0, 100.0, 1e4])
def test_with_an_ill_conditioned_design_iht_rests_on_a_wrong_column_without_noise(ratio):
    problem = ill_conditioned(ratio)
    *_, last = problem.iterates(2000)
    assert np.flatnonzero(last).tolist() == [1]
    certificate = golden_ratio_recovery(problem)
    assert certificate.outcome == "not applicable"
    assert certificate.applies == f"rho = {GOLDEN * problem.spread:.3g} >= 1"


@given(seed=st.integers(0, 2**31 - 1))
def test_without_noise_the_truth_is_recovered(seed):
    problem = of_planted(Planted("gaussian", n=400, p=10, k=2, sigma=0.0, seed=seed))
    *_, last = problem.iterates(200)
    assert np.flatnonzero(last).tolist() == np.flatnonzero(problem.w).tolist()
    assert np.linalg.norm(last - problem.w) <= allowance(float(np.abs(problem.w).sum()), 10 * len(problem.w))


def test_restricted_eigenvalues_are_those_of_the_blocks():
    assert restricted_eigenvalues(np.diag([1.0, 2.0, 3.0, 4.0]), 2) == (1.0, 4.0)
    H = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    assert restricted_eigenvalues(H, 1) == (2.0, 2.0)
    assert np.abs(np.subtract(restricted_eigenvalues(H, 9), (1.0, 3.0))).max() <= allowance(3.0, 3)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Recovery(np.eye(11), np.eye(11)[0], np.zeros(11), np.zeros(11)), "inputs = 11 > 10"),
        (Recovery(np.eye(4), np.eye(4)[0], np.ones(4), np.zeros(4)), "the start has 4 > s = 1 nonzeros"),
    ],
)
def test_outside_its_assumptions_it_says_why(problem, reason):
    assert golden_ratio_recovery(problem).applies == reason
