"""The duality gap bounds the error of any point, and a planted defect in it is seen."""

import numpy as np
from hypothesis import given, target

from solvers.fista_pruner import fista_pruner
from solvers.problem import LayerProblem
from solvers.sparsity import L1, KeepPerRow
from theory_checks import paths
from theory_checks.certificate import allowance
from theory_checks.duality import CHECKS, duality_gap, gap_bounds_error, gap_bounds_step, relaxation
from theory_checks.strategies import cases
from theory_checks.synthetic import Case


@given(case=cases())
def test_the_gap_bounds_the_error_and_the_step(case):
    for check in CHECKS.values():
        found = list(check(case))
        assert [c for c in found if c.outcome == "fails"] == []
        used = [c.measured / c.bound for c in found if c.bound > 0 and not c.applies]
        target(max(used, default=0.0), label=found[0].name)


@given(case=cases())
def test_the_gap_is_never_negative_and_closes_at_the_minimiser(case):
    problem, penalty = case.judge, case.absolute
    best, reason = paths.reference(problem, penalty, 1 / problem.lipschitz)
    assert duality_gap(problem, penalty, case.some_weight()) >= 0
    if not reason:
        scale = problem.magnitude(best) + penalty.value(best) + problem.magnitude(np.zeros_like(best))
        condition = float(np.linalg.cond(problem.H))
        assert duality_gap(problem, penalty, best) <= allowance(condition * scale, best.size)


def test_the_error_at_zero_is_found_exactly_in_one_dimension():
    """f = (x - 1)^2 / 2 and lam = 1/2: F* = 3/8 at x = 1/2, F(0) = 1/2, c = 1/2, gap = 1/8."""
    problem, penalty, zero = LayerProblem.of(np.ones((1, 1)), np.ones((1, 1))), L1(0.5), np.zeros((1, 1))
    certificate = gap_bounds_error(problem, penalty, zero)
    assert abs(certificate.measured - 0.125) <= allowance(1.0, 1)
    assert certificate.bound == 0.125
    step = gap_bounds_step(problem, penalty, zero)
    assert abs(step.measured - 0.25) + abs(step.bound - 0.25) <= allowance(1.0, 1)


def test_a_dual_point_that_is_not_feasible_claims_too_little(monkeypatch):
    monkeypatch.setattr("theory_checks.duality.scaling", lambda problem, penalty, V: 1.0)
    case = Case()
    assert any(c.outcome == "fails" for check in CHECKS.values() for c in check(case))


def test_a_rounded_relaxation_answers_on_a_layer_and_its_slack_is_the_gap():
    case = Case("language_like", rows=6, inputs=16)
    found = fista_pruner(case.problem, KeepPerRow(8)).relaxed
    assert [c.outcome for c in relaxation(found)] == ["holds", "holds"]
    gap = duality_gap(*found)
    assert 0 < gap < found.problem.value(found.weight) + found.penalty.value(found.weight)
    assert abs(relaxation(found)[0].slack - gap) <= allowance(relaxation(found)[0].bound, 1)


def test_without_inputs_only_the_penalty_is_left():
    problem = LayerProblem.of(np.ones((1, 2)), np.zeros((2, 2)))
    assert duality_gap(problem, L1(1.0), np.ones((1, 2))) == 2.0
