"""Refinement on a chosen support: two ways down, one way refused."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers.refine import gradient_steps, refine
from solvers.refusal import Refusal
from theory_checks import allowance
from theory_checks.strategies import cases
from theory_checks.synthetic import Case


@given(case=cases())
def test_refinement_goes_down_towards_the_exact_solution_and_stays_on_the_support(case):
    problem, mask = case.judge, case.budgets[0].mask(np.abs(case.some_weight()))
    start = np.where(mask, problem.W0, 0.0)
    values = []
    for how in ("none", "gradient:2", "gradient:30", "exact"):
        W = refine(problem, mask, start, how)
        assert not W[~mask].any()
        values.append(problem.value(W))
    values.append(problem.value(solvers.linalg.least_squares_exact(problem, mask)))
    reach = allowance(problem.magnitude(start) + problem.magnitude(np.zeros_like(start)), case.inputs)
    descending = [values[:3], [values[0], values[3]], values[3:]]
    assert all(b <= a + reach for chain in descending for a, b in pairwise(chain))


def test_none_touches_nothing_and_gradient_takes_its_steps():
    case = Case(seed=3)
    mask = case.budgets[0].mask(np.abs(case.W0))
    W = np.where(mask, case.W0, 0.0)
    assert refine(case.judge, mask, W, "none") is W
    s = 0.95 / case.judge.lipschitz
    once = W - s * np.where(mask, case.judge.grad(W), 0.0)
    assert np.array_equal(refine(case.judge, mask, W, "gradient:1"), once)
    assert np.array_equal(refine(case.judge, mask, W, "gradient:3"), gradient_steps(case.judge, mask, once, 2, s))


def test_a_gradient_step_lowers_f_by_what_its_docstring_says():
    case = Case("language_like", seed=3)
    problem, mask = case.judge, case.budgets[0].mask(np.abs(case.W0))
    W = np.where(mask, problem.W0, 0.0)
    s = 0.95 / problem.lipschitz
    V = gradient_steps(problem, mask, W, 1, s)
    slope = float(np.square(np.where(mask, problem.grad(W), 0.0)).sum())
    reach = allowance(problem.magnitude(W), case.inputs)
    assert problem.change(W, V) <= -s * (1 - s * problem.lipschitz / 2) * slope + reach


@pytest.mark.parametrize("how", ["Exact", "gradient", "gradient:", "gradient:-1", "gradient:1.5", "", None, 30])
def test_a_refinement_that_does_not_exist_is_refused(how):
    case = Case()
    with pytest.raises(Refusal, match=rf"one of none, gradient:30 \(any number of steps\) or exact; got '{how}'"):
        refine(case.judge, case.W0 != 0, case.W0, how)
