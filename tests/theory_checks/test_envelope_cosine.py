"""The envelope of the cosine: its prox is a global minimiser, its constant is reached at a maximum."""

from math import pi

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from theory_checks import envelope
from theory_checks.certificate import allowance
from theory_checks.envelope_cosine import (
    cosine_envelope_lipschitz,
    cosine_gradient,
    cosine_prox,
    cosine_prox_minimises,
)

BETAS, SHARES, POINTS = st.floats(0.1, 10), st.floats(0.02, 0.98), st.floats(-10, 10)


def test_by_hand_at_the_extremes_of_the_cosine():
    assert cosine_prox(0.0, 0.5, 1.0) == 0
    for x in (pi, -pi):
        assert abs(cosine_prox(x, 0.5, 1.0) - x) <= allowance(4 * abs(x), 1)


@given(beta=BETAS, share=SHARES, x=POINTS)
def test_the_prox_is_no_worse_than_a_grid(beta, share, x):
    certificate = cosine_prox_minimises(beta, x, share / beta)
    assert certificate.outcome == "holds", str(certificate)
    target(certificate.excess, label="cosine-prox")


@given(beta=BETAS, share=SHARES, x=POINTS)
def test_the_gradient_of_the_envelope_is_that_of_the_cosine_at_the_prox(beta, share, x):
    rho = share / beta
    v = cosine_prox(x, rho, beta)
    scale = (abs(x) + 4 * rho * beta) * (1 / rho + beta) / (1 - share)
    assert abs(cosine_gradient(x, rho, beta) + beta * np.sin(v)) <= allowance(scale, 1)


@given(beta=BETAS, share=SHARES, x=POINTS, y=POINTS)
def test_the_gradient_is_lipschitz(beta, share, x, y):
    certificate = cosine_envelope_lipschitz(beta, x, y, share / beta)
    assert certificate.outcome == "holds", str(certificate)
    if certificate.bound > 0:
        target(certificate.measured / (certificate.bound + certificate.allowance), label="cosine-lipschitz")


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_the_constant_is_reached_at_a_maximum(share):
    for top in (0.0, 2 * pi):
        h = (1 - share) * 2.0**-8
        certificate = cosine_envelope_lipschitz(2.0, top + h, top - h, share / 2)
        assert certificate.outcome == "holds"
        assert certificate.measured / certificate.bound > 1 - 2.0**-13


def test_one_over_rho_is_no_constant_beyond_half_of_one_over_beta(monkeypatch):
    """At rho = 0.8 / beta the slope near 0 is 5 beta, and 1/rho is 1.25 beta."""
    monkeypatch.setattr(envelope, "lipschitz", lambda rho, beta: 1 / rho)
    assert cosine_envelope_lipschitz(1.0, 0.01, -0.01, 0.8).outcome == "fails"
    assert cosine_envelope_lipschitz(1.0, 0.01, -0.01, 0.4).outcome == "holds"


def test_outside_its_assumptions_it_says_why():
    assert cosine_envelope_lipschitz(1.0, 0.0, 1.0, 1.5).applies == "beta = 1, rho * beta = 1.5"
    assert cosine_prox_minimises(-1.0, 0.0, 0.5).applies == "beta = -1, rho * beta = -0.5"
