"""The released recipe: its controller by formula, exact counts, its absolute step, and what no theorem says of it."""

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers.problem import LayerProblem
from solvers.released import maiht_released, steer
from solvers.sparsity import L0, KeepNofM, KeepPerLayer, KeepPerRow
from theory_checks import certify
from theory_checks.strategies import cases
from theory_checks.support import violations
from theory_checks.synthetic import Case


@pytest.mark.parametrize(
    ("keep", "kept_first", "delta"), [(50, 95, 0.015), (75, 97, 0.01), (90, 99, 0.01)], ids=["half", "quarter", "tenth"]
)
def test_the_controller_starts_with_a_few_percent_and_follows_the_gap(keep, kept_first, delta):
    W0, s, target = np.arange(100.0, 0, -1)[None], 0.25, 1 - keep / 100
    penalty = steer(KeepPerLayer(keep), W0, 2, s)
    threshold = W0[0, kept_first]
    assert penalty(0, W0, None) == L0(threshold**2 / (2 * s) * (1 + target - delta))
    x = np.where(W0 > 30, W0, 0.0)
    assert penalty(1, x, L0(7.0)) == L0(7.0 * (1 + target - delta - 0.3))
    assert penalty(2, x, L0(7.0)) is None


@given(case=cases())
def test_the_count_is_exact_for_any_step(case):
    for budget in case.budgets[1:]:
        for step in (0.0, 1e-3):
            W = maiht_released(case.judge, budget, step=step, polish=3).weight
            assert violations(budget, W) == 0
            assert case.tied or np.count_nonzero(W) == _expected(budget, case)


def _expected(budget, case):
    return budget.keep if isinstance(budget, KeepPerLayer) else case.W0.size * budget.keep // budget.of


def test_n_of_m_is_projected_from_the_first_iteration():
    problem = Case(rows=3, inputs=8).judge
    trace = maiht_released(problem, KeepNofM(2, 4), step=0.0).trace
    assert trace.nonzeros == [12] * len(trace)


def test_the_step_is_absolute_unless_it_is_zero():
    problem = Case().judge
    assert maiht_released(problem, KeepPerLayer(12)).trace.step == 1e-3
    assert maiht_released(problem, KeepPerLayer(12), step=0.0).trace.step == 0.97 / problem.lipschitz


def test_the_polish_is_that_many_gradient_steps_on_the_projected_support():
    problem, budget = Case(seed=2).judge, KeepPerLayer(12)
    plain, polished = (maiht_released(problem, budget, step=0.1, polish=n).weight for n in (0, 1))
    assert np.array_equal(polished, plain - 0.1 * np.where(budget.mask(np.abs(plain)), problem.grad(plain), 0.0))
    assert problem.value(polished) < problem.value(plain)


@pytest.mark.parametrize("sparsity", ["2:4", "50%/layer"])
def test_a_polish_that_diverges_is_refused_with_what_was_too_long(sparsity):
    case = Case()
    with pytest.raises(solvers.Refusal, match=r"the polish diverged: f rose from .*step \* L = .*Keep it below 2"):
        solvers.solve(case.W0, case.problem.H, method="maiht-released", sparsity=sparsity, step=10.0)
    kept = solvers.solve(case.W0, case.problem.H, method="maiht-released", sparsity=sparsity, step=0).weight
    assert np.abs(kept).max() < 10 * np.abs(case.W0).max()


def test_the_theorems_do_not_apply_above_the_limit_and_say_by_how_much():
    method, case = solvers.find("maiht-released"), Case("language_like")
    run = solvers.run(method, case.problem, KeepNofM(2, 4), step=1.0)
    product = run.problem.lipschitz
    assert product > 1
    by_name = {c.name: c for c in certify(method, run, "none")}
    assert by_name["sufficient-decrease"].applies == f"step * L = {product:.3g} > 1"
    assert by_name["residual-rate"].outcome == "not applicable"
    assert "step-size" not in by_name


def test_a_budget_per_row_was_never_released():
    with pytest.raises(solvers.Refusal, match=r"maiht-released cannot meet .*it can do 50%/layer, 2:4"):
        solvers.find("maiht-released").require("maiht-released", KeepPerRow(3))


def test_one_weight_is_enough():
    problem = LayerProblem.of(np.array([[2.0]]), np.eye(1))
    assert maiht_released(problem, KeepPerLayer(0)).weight.tolist() == [[0.0]]
    assert maiht_released(problem, KeepPerLayer(1)).weight.tolist() == [[2.0]]
