"""Three outcomes, and an allowance with a derivation."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory_checks import Certificate, allowance

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("measured", "bound", "outcome"),
    [
        (1.0, 1.0, "holds"),
        (1.5, 1.0, "holds"),
        (1.5000001, 1.0, "fails"),
        (-INF, 0.0, "holds"),
        (1.0, INF, "holds"),
        (INF, 1.0, "fails"),
        (1.0, -INF, "fails"),
        (NAN, 1.0, "fails"),
        (1.0, NAN, "fails"),
    ],
)
def test_measured_within_bound_plus_allowance_holds_and_nan_fails(measured, bound, outcome):
    assert Certificate("c", "m <= b", "here", measured, bound, 0.5).outcome == outcome


def test_a_nan_allowance_fails():
    assert Certificate("c", "m <= b", "here", 0.0, 1.0, NAN).outcome == "fails"


@pytest.mark.parametrize("measured", [0.0, 5.0, NAN])
def test_an_assumption_that_is_not_met_is_its_own_outcome(measured):
    certificate = Certificate("c", "m <= b", "here", measured, 1.0, applies="step * L = 1.9 > 1")
    assert certificate.outcome == "not applicable"
    assert "not applicable because step * L = 1.9 > 1" in str(certificate)


def test_both_sides_are_told():
    certificate = Certificate("decrease", "m <= b", "Li, Lin 2015", 3.0, 1.0, 0.5)
    assert (certificate.slack, certificate.excess) == (-2.0, 1.5)
    assert str(certificate) == "decrease: 3 <= 1 + 0.5: fails"
    assert certificate.as_dict() == {
        "name": "decrease",
        "claim": "m <= b",
        "where": "Li, Lin 2015",
        "measured": 3.0,
        "bound": 1.0,
        "allowance": 0.5,
        "applies": "",
        "outcome": "fails",
    }


@given(scale=st.floats(0, 1e6), size=st.integers(0, 10**6), more=st.integers(1, 10))
def test_the_allowance_grows_with_size_scale_and_roundoff(scale, size, more):
    assert allowance(scale, size) <= allowance(scale, size + more)
    assert allowance(scale, size) <= allowance(scale * (1 + more), size)
    assert allowance(scale, size) <= allowance(scale, size, np.float32)


def test_the_allowance_is_gamma_of_four_times_the_size():
    m, u = 4 * (100 + 8), 2.0**-53
    assert allowance(7.0, 100) == m * u / (1 - m * u) * 7.0
    assert allowance(7.0, 100, np.float32) == m * 2.0**-24 / (1 - m * 2.0**-24) * 7.0
    assert allowance(1.0, 10, np.float16) > 0.03
    assert allowance(1.0, 10**6, np.float16) == INF
    assert allowance(0.0, 10) == 0


@given(pairs=st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=30))
def test_the_allowance_covers_a_sum_of_products(pairs):
    pairs = [(a, b) for a, b in pairs if a * b == 0 or abs(a * b) > 2.0**-900]
    computed = sum(a * b for a, b in pairs)
    exact = sum(Fraction(a) * Fraction(b) for a, b in pairs if a * b)
    assert abs(computed - exact) <= allowance(sum(abs(a * b) for a, b in pairs), len(pairs))
