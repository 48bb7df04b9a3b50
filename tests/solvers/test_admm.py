"""ADMM: where a fixed mask converges, how a moving one tightens, what is refused, and that arguments are left alone."""

import inspect

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers import KeepNofM, KeepPerLayer, KeepPerRow, LayerProblem, Refusal, Stop
from solvers.admm import State, admm, at_once, fixed_mask_admm, ramp, rounds, step
from solvers.linalg import cholesky, least_squares_exact
from solvers.released import admm_released
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


def _counts(budget, choose=None, iters=20):
    choose = choose or ramp(budget, CASE.judge.shape, 15)
    return [np.count_nonzero(k.Z) for _, k in rounds(CASE.judge, choose, 1.0, iters)]


def test_the_first_round_starts_at_the_dense_weight_and_the_mask_rests_after_fifteen():
    budget = KeepPerRow(3)
    made = list(rounds(CASE.judge, ramp(budget, CASE.judge.shape, 15), 1.0, 20))
    assert len(made) == 21
    assert np.array_equal(made[0][0], CASE.judge.W0)
    supports = [k.Z != 0 for _, k in made]
    assert all(np.array_equal(supports[14], later) for later in supports[15:])
    assert np.array_equal(admm(CASE.judge, budget).weight, made[-1][1].Z)


@pytest.mark.parametrize(
    ("budget", "removed", "windows"),
    [(KeepPerRow(3), 5, 3), (KeepPerLayer(9), 15, 1), (KeepNofM(1, 4), 18, 1)],
    ids=["per row", "per layer", "n:m"],
)
def test_the_mask_tightens_on_the_cubic_schedule(budget, removed, windows):
    expected = [24 - windows * int(removed * (1 - (1 - t / 15) ** 3) + 0.5) for t in range(1, 16)]
    assert _counts(budget) == expected + [expected[-1]] * 6


def test_the_winners_of_every_window_are_safe_while_n_of_m_ramps():
    budget = KeepNofM(2, 4)
    choose = ramp(budget, CASE.judge.shape, 15)
    for t in range(15):
        scores = np.abs(CASE.some_weight(70 + t))
        assert choose(t, scores)[budget.mask(scores)].all()
    assert np.array_equal(choose(14, scores), budget.mask(scores))
    assert choose(15, scores) is None


@given(case=cases())
def test_with_enough_rounds_it_solves_least_squares_on_the_support_it_chose(case):
    design = design_of(case)
    for budget in case.budgets:
        found = admm(case.judge, budget, iters=600, rho=_best_rho(case)).weight
        reference = least_squares_exact(case.judge, found != 0)
        stretch = float(np.sqrt(design.spectrum()[-1] / design.spectrum()[0]))
        assert np.linalg.norm(found - reference) <= design.rounding(reference) * (2 + 2 * stretch)


def test_the_release_ramps_every_budget_but_the_whole_layers():
    for budget in (KeepPerRow(3), KeepNofM(2, 4)):
        assert np.array_equal(admm(CASE.judge, budget).weight, admm_released(CASE.judge, budget).weight)
    whole = KeepPerLayer(9)
    assert _counts(whole, at_once(whole, CASE.judge.shape, 15)) == [9] * 21
    assert not np.array_equal(admm(CASE.judge, whole).weight, admm_released(CASE.judge, whole).weight)
    assert np.count_nonzero(admm_released(CASE.judge, whole).weight) == 9


@pytest.mark.parametrize("rho", [1.0, 4.0])
def test_on_a_diagonal_gram_it_keeps_the_best_support_where_rho_is_the_diagonal_or_more(rho):
    problem = LayerProblem.of(np.array([[1.0, 0.97, -0.5, 0.1]]), np.eye(4))
    kept = admm(problem, KeepPerRow(2), rho=rho).weight
    assert (kept != 0).tolist() == [[True, True, False, False]]
    assert np.abs(kept - [[1.0, 0.97, 0.0, 0.0]]).max() <= allowance(4.0, 4)


def test_a_smaller_rho_lets_a_removed_weight_back_for_a_better_one_so_the_optimum_is_not_promised():
    """h = 1, rho = 1/4: a removed w scores w (1 - 2 rho / (h + rho)) + w = 1.6 w in the next round, above a kept 1."""
    problem = LayerProblem.of(np.array([[1.0, 0.97]]), np.eye(2))
    ended = {tuple(admm(problem, KeepPerRow(1), rho=0.25, refresh=r).weight[0] != 0) for r in range(1, 16)}
    assert ended == {(True, False), (False, True)}
    assert "identity" not in solvers.find("admm").promises


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"refresh": 0}, "refresh is 1 to iters + 1 = 21 rounds; got 0. The release takes 15 of 20."),
        ({"refresh": 12, "iters": 10}, "refresh is 1 to iters + 1 = 11 rounds; got 12."),
        ({"rho": 0.0}, "rho must be positive and finite; got 0.0."),
    ],
)
def test_a_budget_that_would_not_be_reached_is_refused(options, words):
    for method in (admm, admm_released):
        with pytest.raises(Refusal) as refusal:
            method(CASE.judge, KeepPerRow(3), **options)
        assert words in str(refusal.value)
