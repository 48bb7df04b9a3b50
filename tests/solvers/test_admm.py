"""ADMM on a fixed mask: where it converges, what it refuses, and that it leaves its arguments alone."""

import inspect

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers import LayerProblem, Refusal, Stop
from solvers.admm import State, fixed_mask_admm, step
from solvers.linalg import cholesky, least_squares_exact
from theory_checks.certificate import allowance
from theory_checks.restoration import design_of, masks_of
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

CASE = Case("language_like", rows=3, inputs=8, seed=2)
MASK = CASE.budgets[0].mask(np.abs(CASE.judge.W0))


def _best_rho(case):
    spectrum = design_of(case).spectrum()
    return float(np.sqrt(spectrum[0] * spectrum[-1]))


@given(case=cases())
def test_it_converges_to_the_masked_least_squares_weight(case):
    design, rho = design_of(case), _best_rho(case)
    for mask in masks_of(case):
        found = fixed_mask_admm(case.judge, mask, rho=rho, iters=600).weight
        reference = least_squares_exact(case.judge, mask)
        stretch = float(np.sqrt(design.spectrum()[-1] / design.spectrum()[0]))
        assert np.linalg.norm(found - reference) <= design.rounding(reference) * (2 + 2 * stretch)
        assert not found[~mask].any()
        assert not np.signbit(found[~mask]).any()


def test_no_round_returns_the_masked_dense_weight():
    assert np.array_equal(fixed_mask_admm(CASE.judge, MASK, iters=0).weight, np.where(MASK, CASE.judge.W0, 0.0))


def test_everything_kept_is_the_dense_weight_and_nothing_kept_is_zero():
    everything, nothing = np.ones_like(MASK), np.zeros_like(MASK)
    assert np.array_equal(fixed_mask_admm(CASE.judge, everything).weight, CASE.judge.W0)
    assert not fixed_mask_admm(CASE.judge, nothing).weight.any()


def test_a_round_is_the_three_lines_of_the_page():
    """By hand with H = 2, rho = 1, W0 = 3, Z = 1, U = 4: W = 3 + (1 - 4 - 3)/3 = 1, Z = 1 + 4, U = 4 + 1 - 5."""
    problem = LayerProblem.of(np.array([[3.0]]), np.array([[2.0]]))
    factor = cholesky(np.array([[3.0]]), "H + rho")
    state = State(np.array([[1.0]]), np.array([[4.0]]))
    kept, removed = (step(problem, np.array([[keep]]), 1.0, factor, state) for keep in (True, False))
    rounding = allowance(10.0, 1)
    assert abs(kept.Z - 5).max() <= rounding
    assert abs(kept.U).max() <= rounding
    assert removed.Z == 0
    assert abs(removed.U - 5).max() <= rounding


def test_drift_moves_the_optimum_as_it_moves_the_normal_equations():
    judge = CASE.judge
    drifted = LayerProblem(judge.W0, judge.gram, R=CASE.some_weight(60), e0=1.0)
    found = fixed_mask_admm(drifted, MASK, rho=_best_rho(CASE), iters=600).weight
    reference = least_squares_exact(drifted, MASK)
    design = design_of(CASE)
    stretch = float(design.spectrum()[-1] / design.spectrum()[0])
    assert np.linalg.norm(found - reference) <= design.rounding(np.abs(reference) + np.abs(drifted.R)) * stretch
    assert np.linalg.norm(found - least_squares_exact(judge, MASK)) > np.linalg.norm(found - reference)


def test_a_singular_gram_is_no_obstacle_and_nothing_is_written():
    problem = Case("rank_deficient", rows=2, inputs=12, seed=3).problem
    mask = np.abs(problem.W0) > np.median(np.abs(problem.W0))
    before = problem.W0.copy(), problem.H.copy(), mask.copy()
    solution = fixed_mask_admm(problem, mask, iters=50)
    assert np.isfinite(solution.weight).all()
    assert problem.value(solution.weight) < problem.value(np.where(mask, problem.W0, 0.0))
    assert all(np.array_equal(a, b) for a, b in zip(before, (problem.W0, problem.H, mask), strict=True))
    assert solution.stop is Stop.EXHAUSTED


@pytest.mark.parametrize(
    ("mask", "options", "words"),
    [
        (MASK[:, :-1], {}, "the mask is boolean of shape (3, 8); got bool of shape (3, 7)."),
        (MASK.astype(float), {}, "the mask is boolean of shape (3, 8); got float64 of shape (3, 8)."),
        (MASK, {"rho": 0.0}, "rho must be positive and finite; got 0.0."),
        (MASK, {"rho": float("nan")}, "rho must be positive and finite; got nan."),
        (MASK, {"rho": float("inf")}, "rho must be positive and finite; got inf."),
        (MASK, {"iters": -1}, "iters is 0 or more; got -1."),
    ],
)
def test_it_refuses_in_words(mask, options, words):
    with pytest.raises(Refusal) as refusal:
        fixed_mask_admm(CASE.judge, mask, **options)
    assert words in str(refusal.value)


def test_it_is_a_page_of_its_own_and_no_method_that_chooses_a_mask():
    assert fixed_mask_admm not in [method.run for method in solvers.METHODS.values()]
    explained = inspect.signature(fixed_mask_admm).parameters.keys() - {"problem"}
    assert all(f"    {name} : " in fixed_mask_admm.__doc__ for name in explained)
