"""Supports found and kept: every claim under an adversary, its sharp radius, its exact slope, its withdrawals."""

import numpy as np
import pytest
from hypothesis import assume, example, given, target
from hypothesis import strategies as st

from solvers import L0, KeepPerRow, iht
from solvers.problem import LayerProblem
from theory_checks import allowance
from theory_checks.claims import worst
from theory_checks.identification import (
    CHECKS as IDENTIFICATION,
)
from theory_checks.identification import (
    INSIDE,
    adversarial,
    ball,
    fixed,
    identification_ball,
    magnitude_floor,
    nested_supports,
    reborn,
    support_changes,
    theorem_step,
)
from theory_checks.local import CHECKS as LOCAL
from theory_checks.local import finite_length, local_dynamics, local_slope, maiht_local_factor, restricted, slow
from theory_checks.paths import curvature, iterates, walk
from theory_checks.strategies import cases
from theory_checks.synthetic import Case, ascent_problem

CHECKS = {**IDENTIFICATION, **LOCAL}
CASE = Case("language_like", rows=2, inputs=8, seed=4)
L = CASE.judge.lipschitz
MASK = CASE.budgets[0].mask(np.abs(CASE.judge.W0))
NO_DIRECTIONS = np.zeros((0, *CASE.W0.shape))
DRIFTED = LayerProblem(np.ones((1, 1)), LayerProblem.of(np.ones((1, 1)), np.eye(1)).gram, R=np.ones((1, 1)))


@pytest.mark.parametrize("name", CHECKS)
@given(case=cases())
@example(case=Case("rank_deficient", 3, 3, seed=1259070422, tied=True, keep=0.7, strength=1.1275903337293267))
@example(case=Case("language_like", 1, 3, seed=1037252669, tied=True, keep=1.0, strength=100.0))
@example(case=Case("autoregressive", 3, 3, seed=3, tied=True, keep=0.5, strength=1.0))
@example(case=Case("orthogonal", 5, 5, seed=2078605665, tied=True, keep=0.7, strength=100.0))
def test_a_claim_about_supports_never_fails(name, case):
    """The examples once failed: weights born zero leave a row short, X zero where S is not, X off by rounding."""
    certificates = list(CHECKS[name](case))
    assert not [str(c) for c in certificates if c.outcome == "fails"]
    assert {c.name for c in certificates} == {name}
    assert all(c.claim and c.where for c in certificates)
    close = worst(certificates)
    sides = abs(close.measured) + abs(close.bound) + close.allowance
    target(close.excess / sides if np.isfinite(sides) and sides > 0 else -1.0, label=name)


def _ball(sparsity, s=0.05):
    X, s, penalty = fixed(CASE.judge, MASK, s)
    return CASE.judge, sparsity or penalty, X, s, NO_DIRECTIONS


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: support_changes(CASE.judge, L0(0.0), CASE.W0, 0.5 / L), "lam (1 - sL) = 0"),
        (lambda: support_changes(CASE.judge, L0(1.0), CASE.W0, 1.5 / L), "lam (1 - sL) = -0.5"),
        (lambda: support_changes(DRIFTED, L0(1.0), DRIFTED.W0, 0.5), "the problem has drift"),
        (lambda: identification_ball(CASE.judge, L0(1.0), CASE.judge.W0, 3 / L, NO_DIRECTIONS), "step * L = 3 > 2"),
        (lambda: identification_ball(*_ball(KeepPerRow(7))), "the radius is -"),
        (lambda: nested_supports(CASE.judge, L0(1e-6), CASE.some_weight(), 0.9 / L), "> 2 lam = 2e-06"),
        (lambda: local_dynamics(CASE.judge, CASE.penalty, CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
        (lambda: local_dynamics(CASE.judge, L0(9.0), CASE.judge.W0, 0.9 / L, n=1), "still moves in iteration 1 of 1"),
        (lambda: local_slope(CASE.judge, L0(1e6), CASE.judge.W0, 0.9 / L), "radius = -"),
        (lambda: finite_length(CASE.judge, L0(1e6), CASE.judge.W0, 0.9 / L), "m_S = inf"),
        (lambda: maiht_local_factor(CASE.judge, CASE.penalty, CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
    ],
)
def test_a_claim_outside_its_assumptions_says_why(certificate, reason):
    found = certificate()
    assert found.outcome == "not applicable"
    assert reason in found.applies


@pytest.mark.parametrize("budget", [False, True])
def test_the_radius_is_sharp_in_the_adversarial_direction(budget):
    problem, sparsity, X, s, _ = _ball(KeepPerRow(4) if budget else None, 1e-6)
    radius = ball(problem, sparsity, X, s)
    for factor, leaves in ((INSIDE, False), (1 / INSIDE, True)):
        supports = []
        for d in adversarial(problem, sparsity, X, s):
            x = X + factor * radius * d / np.linalg.norm(d)
            supports.append((iht.step(problem, sparsity, s, iht.State(x, x)).x != 0).tolist())
        assert any((X != 0).tolist() != S for S in supports) == leaves


@given(case=cases())
def test_the_constructed_point_is_a_fixed_point_of_iht(case):
    X, s, penalty = fixed(case.judge, case.budgets[0].mask(np.abs(case.judge.W0)), 0.95)
    assume(X.any() and ball(case.judge, penalty, X, s) > allowance(np.abs(X).max() + 1, X.size))
    after = iht.step(case.judge, penalty, s, iht.State(X, X)).x
    assert np.array_equal(after != 0, X != 0)
    scale = float((np.abs(X) + np.abs(case.judge.W0)).sum()) * (1 + s * float(np.abs(case.judge.H).sum()))
    assert np.abs(after - X).max() <= allowance(scale, X.size)


def test_a_step_above_the_limit_changes_the_support_forever():
    problem, penalty, x = ascent_problem(1.9)
    path = iterates(walk(iht.step, iht.State(x, x), problem, penalty, 1.9, 60))
    assert ((path[1:] != 0) != (path[:-1] != 0)).sum() > 30
    assert support_changes(problem, penalty, x, 0.95 / problem.lipschitz).outcome == "holds"


def test_a_budget_has_no_floor():
    """IHT under a budget keeps entries below any threshold: U1 is a statement about penalties."""
    problem = LayerProblem.of(np.array([[1.0, 1e-9]]), np.eye(2))
    x = iht.step(problem, KeepPerRow(2), 0.5, iht.State(problem.W0, problem.W0)).x
    assert np.abs(x).min() == 1e-9
    assert magnitude_floor(problem, L0(0.1), problem.W0, 0.5).outcome == "holds"


def test_supports_grow_when_the_step_is_longer_than_the_theorem_allows():
    problem = LayerProblem.of(np.array([[10.0, 10.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    x = np.array([[10.0, 0.0]])
    long, short = 0.9 / problem.lipschitz, theorem_step(problem, L0(0.1), x)
    assert nested_supports(problem, L0(0.1), x, short).outcome == "holds"
    path = iterates(walk(iht.step, iht.State(x, x), problem, L0(0.1), long, 3))
    assert path[1, 0, 1] != 0
    assert "s G^2 = 90 > 2 lam = 0.2" in nested_supports(problem, L0(0.1), x, long).applies


def test_the_slope_is_that_of_the_support_and_not_of_the_whole_gram():
    X, s, penalty = fixed(CASE.judge, MASK, 0.95)
    row = MASK[0]
    assert restricted(CASE.judge.H, row) > curvature(CASE.judge.H)
    x = slow(CASE.judge, X, ball(CASE.judge, penalty, X, s) / 2)
    far = np.linalg.norm(iterates(walk(iht.step, iht.State(x, x), CASE.judge, penalty, s, 20)) - X, axis=(1, 2))
    rounding = 1000 * allowance(float(np.abs(X).sum() + np.abs(CASE.judge.W0).sum()), X.size)
    assert abs(far[20] - (1 - s * restricted(CASE.judge.H, row)) ** 20 * far[0]) <= rounding
    assert abs(far[20] - (1 - s * curvature(CASE.judge.H)) ** 20 * far[0]) > rounding


@given(share=st.floats(0.01, 0.99))
def test_the_tail_is_as_long_as_the_bound_on_the_slow_eigenvector(share):
    problem = LayerProblem.of(np.ones((1, 1)), np.ones((1, 1)))
    found = finite_length(problem, L0(0.0), np.full((1, 1), 2.0), share, n=60)
    assert found.outcome == "holds"
    assert found.measured >= found.bound * (1 - (1 - share) ** 60) - found.allowance


def test_momentum_carries_the_weight_past_zero_only_without_the_projection():
    assert nested_supports(*reborn()).outcome == "holds"
