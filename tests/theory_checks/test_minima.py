"""Minima: the radius and its sharpness, the hierarchy by brute force and its false converse, the step limit."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, target
from hypothesis import strategies as st

from solvers import L0, L1, iht
from solvers.problem import LayerProblem
from theory_checks import allowance
from theory_checks.claims import worst
from theory_checks.minima import (
    CHECKS,
    best_mask,
    convex_step,
    coordinatewise_minimum,
    global_minimum_rests,
    local_minimum_radius,
    reach,
    steepest,
    step_limit_sharp,
)
from theory_checks.paths import on_support
from theory_checks.strategies import cases
from theory_checks.synthetic import Case, ascent_problem

CASE = Case("language_like", rows=2, inputs=8, seed=4)
L = CASE.judge.lipschitz
WIDE = Case("iid", rows=1, inputs=12).judge
DRIFTED = LayerProblem(np.ones((1, 1)), LayerProblem.of(np.ones((1, 1)), np.eye(1)).gram, R=np.ones((1, 1)))
SINGULAR = LayerProblem.of(np.ones((1, 2)), np.ones((2, 2)))
NO_DIRECTIONS = np.zeros((0, *CASE.W0.shape))


@pytest.mark.parametrize("name", CHECKS)
@given(case=cases())
@example(case=Case("autoregressive", 1, 5, seed=833366960, tied=True, keep=0.7, strength=0.018335960312681664))
def test_a_claim_about_minima_never_fails(name, case):
    """In the example a weight born zero comes back from least squares as 1e-17, and the radius with it."""
    certificates = list(CHECKS[name](case))
    assert not [str(c) for c in certificates if c.outcome == "fails"]
    assert {c.name for c in certificates} == {name}
    assert all(c.claim and c.where for c in certificates)
    close = worst(certificates)
    sides = abs(close.measured) + abs(close.bound) + close.allowance
    target(close.excess / sides if np.isfinite(sides) and sides > 0 else -1.0, label=name)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: local_minimum_radius(CASE.judge, L0(0.0), 0 * CASE.W0, NO_DIRECTIONS), "delta = 0"),
        (lambda: local_minimum_radius(DRIFTED, L0(1.0), DRIFTED.W0 * 0, np.zeros((0, 1, 1))), "delta = inf"),
        (lambda: global_minimum_rests(CASE.judge, L0(0.1), 1.5 / L), "step * L = 1.5 > 1"),
        (lambda: global_minimum_rests(WIDE, L0(0.1), 0.5 / WIDE.lipschitz), "inputs = 12 > 10"),
        (lambda: coordinatewise_minimum(DRIFTED, L0(0.1)), "the problem has drift"),
        (lambda: coordinatewise_minimum(SINGULAR, L0(0.1)), "lambda_min(H) = "),
        (lambda: step_limit_sharp(1.0), "step * L = 1 is not in (1, 2]"),
        (lambda: step_limit_sharp(2.5), "step * L = 2.5 is not in (1, 2]"),
        (lambda: convex_step(CASE.judge, L1(0.1), CASE.W0, 2.5 / L), "step * L = 2.5 > 2"),
    ],
)
def test_a_claim_outside_its_assumptions_says_why(certificate, reason):
    found = certificate()
    assert found.outcome == "not applicable"
    assert reason in found.applies


def test_three_times_the_radius_does_decrease():
    mask = CASE.budgets[0].mask(np.abs(CASE.judge.W0))
    X = on_support(CASE.judge, mask)
    d = steepest(CASE.judge, X)
    g = np.vdot(d, CASE.judge.grad(X))
    penalty = L0(float(g**2 / (20 * np.diag(CASE.judge.H).max())))
    delta = reach(CASE.judge, penalty, X)
    assert delta == penalty.lam / -g
    change = [CASE.judge.change(X, X + k * delta * d) + penalty.lam for k in (0.99, 3.0)]
    assert change[0] > 0 > change[1]


@given(case=cases(), lam=st.floats(0.001, 2.0))
def test_the_brute_force_is_the_minimum_over_every_support(case, lam):
    small = Case(case.family, rows=case.rows, inputs=min(case.inputs, 5), seed=case.seed).judge
    X = on_support(small, best_mask(small, L0(lam)))
    for row in range(small.shape[0]):
        values = []
        for bits in product([False, True], repeat=small.shape[1]):
            W = small.W0.copy()
            mask = np.ones_like(W, dtype=bool)
            mask[row] = bits
            W[row] = on_support(small, mask)[row]
            values.append(small.value(W) + lam * sum(bits))
        W = small.W0.copy()
        W[row] = X[row]
        found = small.value(W) + lam * np.count_nonzero(X[row])
        assert found <= min(values) + allowance(small.magnitude(0 * W) + lam * W.size, W.size)


def test_a_fixed_point_is_rarely_the_global_minimum():
    """The converse of the hierarchy is false: most layers have several points at which IHT rests."""
    several = 0
    for seed in range(10):
        case = Case(rows=1, inputs=6, seed=seed)
        problem, penalty = case.judge, case.penalty
        s, resting = 0.95 / problem.lipschitz, 0
        for bits in product([False, True], repeat=6):
            X = on_support(problem, np.array([bits]))
            after = iht.step(problem, penalty, s, iht.State(X, X)).x
            resting += np.array_equal(after != 0, X != 0)
        assert resting >= 1
        several += resting > 1
    assert several > 5


@pytest.mark.parametrize("product", [1.001, 1.2, 1.9, 2.0])
def test_the_step_limit_is_sharp_and_the_rise_exact(product):
    found = step_limit_sharp(product)
    assert found.outcome == "holds"
    assert found.bound < 0
    assert abs(found.measured - found.bound) <= found.allowance


def test_above_the_limit_the_global_minimum_does_not_rest():
    problem, penalty, _ = ascent_problem(1.9)
    X = on_support(problem, best_mask(problem, penalty))
    assert iht.step(problem, penalty, 1.9, iht.State(X, X)).x.item() != X.item()
    assert global_minimum_rests(problem, penalty, 0.95 / problem.lipschitz).outcome == "holds"


@given(case=cases(), safety=st.floats(0.01, 2.0))
def test_a_convex_step_descends_up_to_twice_the_limit(case, safety):
    assert convex_step(case.judge, case.absolute, case.some_weight(), safety / case.judge.lipschitz).outcome == "holds"
