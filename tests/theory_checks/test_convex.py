"""The strongly convex rates, Frank-Wolfe on masks, cached products: reasons, constructed worst cases, references."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, target

from solvers import L0, L1, KeepPerRow, LayerProblem, frank_wolfe, maiht
from theory_checks import allowance, cached, linear, paths, rates, relaxation, strong
from theory_checks import frank_wolfe as claims
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

CASE = Case("language_like", rows=2, inputs=8, seed=4)
L = CASE.judge.lipschitz
SINGULAR = LayerProblem.of(np.ones((1, 2)), np.ones((2, 2)))
DRIFTED = LayerProblem(np.ones((1, 1)), LayerProblem.of(np.ones((1, 1)), np.eye(1)).gram, R=np.ones((1, 1)))
WIDE = LayerProblem.of(np.ones((1, 13)), np.eye(13))


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: rates.halves_rate(CASE.judge, L1(0.1), CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
        (lambda: linear.yang_yu_rate(CASE.judge, L0(0.1), CASE.W0, 1.5 / L, monotone=False), "step * L = 1.5 > 1"),
        (lambda: strong.strong_rate(SINGULAR, L1(0.1), SINGULAR.W0, 0.1), "lambda_min(H) = 0"),
        (lambda: strong.restart_halves(SINGULAR, L1(0.1), SINGULAR.W0, 0.1), "lambda_min(H) = 0"),
        (lambda: strong.strong_rate(CASE.judge, L1(0.1), CASE.W0, 1.5 / L), "step * L = 1.5 > 1"),
        (lambda: strong.restart_halves(DRIFTED, L1(0.1), DRIFTED.W0, 0.5), "the problem has drift"),
        (lambda: strong.restart_halves(*strong.gentle(1e-9, 1.0)), "K = 89443 > 10000"),
        (lambda: claims.lower_bound(WIDE, 2, WIDE.W0 / 13), "inputs = 13 > 12"),
        (lambda: claims.diameter(1, np.array([[1.0, 0.5]])), "a point is outside P by 0.5"),
        (lambda: cached.cached_gradients(CASE.judge, L0(0.1), CASE.W0, 2.5 / L), "step * L = 2.5 > 2"),
    ],
)
def test_a_claim_outside_its_assumptions_says_why(certificate, reason):
    found = certificate()
    assert found.outcome == "not applicable"
    assert reason in found.applies


@pytest.mark.parametrize("n", [1, 2, 4, 8, 30])
def test_the_momentum_of_halves_attains_its_rate(n):
    found = rates.halves_rate(*rates.flat((n * n + 5 * n + 2) / 8), n=n)
    assert abs(found.measured - found.bound) <= allowance(1.0, n)
    assert abs(found.bound - 2 / (n * n + 5 * n + 2)) <= allowance(1.0, n)


def test_constant_momentum_nearly_attains_its_rate():
    found = strong.strong_rate(*strong.gentle(1e-4, 1.55))
    assert 0.95 * found.bound < found.measured < found.bound


def test_the_bounds_that_are_called_equalities_are():
    for claim, instance in (
        (claims.duality_gap, claims.tilted()),
        (claims.lower_bound, claims.copies()),
    ):
        found = claim(*instance)
        assert abs(found.measured - found.bound) <= found.allowance
        assert found.measured > 0
    assert claims.diameter(2, np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])).slack == 0


def test_the_first_step_of_frank_wolfe_may_leave_the_best_mask_for_the_worst():
    problem, k, M = claims.slide()
    found = claims.value_rate(problem, k, M, n=1)
    assert abs(found.measured / found.bound - 3 / 8) <= 1 / 512
    assert claims.walk(problem, k, M, 1)[1].tolist() == [[0.0, 1.0]]


@given(case=cases())
def test_the_relaxation_is_below_whatever_is_tried(case):
    k = round(case.keep * case.inputs)
    best, reason = relaxation.relaxed(case.judge, k)
    assert not reason
    masks = [np.isin(np.arange(case.inputs), kept) for kept in combinations(range(case.inputs), k)][:50]
    tries = [np.tile(mask, (case.rows, 1)).astype(np.float64) for mask in masks]
    tries += [frank_wolfe.start(case.judge, k).M, np.mean(tries, axis=0)]
    values, rounding = relaxation.above(case.judge, best, np.array(tries))
    assert (values >= -rounding).all()
    whole = relaxation.row_values(case.judge, tries[-1]) - relaxation.row_values(case.judge, best)
    assert np.abs(values[-1] - whole).max() <= 2 * rounding.max()


def test_a_wrong_relaxation_is_noticed_and_the_claim_withdraws(monkeypatch):
    monkeypatch.setattr(relaxation, "_relaxed", lambda w, problem, row, k: np.full(len(w), k / len(w)))
    found = claims.duality_gap(CASE.judge, 4, frank_wolfe.start(CASE.judge, 4).M)
    assert "the reference misses its minimum by up to" in found.applies


@given(case=cases())
def test_the_two_texts_part_by_no_more_than_rounding(case):
    problem = case.judge
    found = cached.cached_gradients(problem, case.penalty, case.some_weight(), 0.95 / problem.lipschitz)
    target(found.measured / found.allowance, label="share of the rounding")
    assert found.outcome == "holds"


@pytest.mark.parametrize("sparsity", [L0(0.02), L0(0.3), L1(0.1), KeepPerRow(4)], ids=str)
def test_after_fifty_steps_the_two_texts_stand_at_the_same_point(sparsity):
    """No decision of these runs is within rounding, so that nothing ends the comparison early."""
    problem, s = CASE.judge, 0.95 / L
    direct = paths.walk(maiht.step, maiht.start(problem), problem, sparsity, s, 50)
    kept = paths.walk(cached.step, cached.start(problem, problem.W0), problem, sparsity, s, 50)
    scale = 50 * float(np.abs(problem.W0).sum()) * (1 + s * float(np.abs(problem.H).sum()))
    assert not np.array_equal(direct[-1].x, problem.W0)
    assert np.abs(direct[-1].x - kept[-1].x).max() <= allowance(scale, problem.W0.size)


def test_products_are_counted_by_the_array_itself():
    H = CASE.judge.H.view(cached.Watched)
    W = CASE.judge.W0
    _ = (W @ H, W @ H.T, np.dot(W, H), H + 1, np.abs(H), W @ np.asarray(H))
    assert H.products == ["__call__", "__call__", "dot"]
    assert type(W @ H) is np.ndarray


def test_the_first_text_takes_twice_as_many():
    assert cached.two_products(CASE.judge, CASE.penalty, CASE.W0, 0.9 / L, n=7).measured == 14
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cached, "step", maiht.step)
        patch.setattr(cached, "start", lambda problem, x: maiht.start(problem))
        found = cached.two_products(CASE.judge, CASE.penalty, CASE.W0, 0.9 / L, n=7)
    assert (found.measured, found.outcome) == (28, "fails")


@given(case=cases())
def test_a_cycle_uses_a_share_of_what_it_may(case):
    found = strong.restart_halves(case.judge, case.absolute, case.some_weight(), 1 / case.judge.lipschitz)
    assert found.outcome == "holds"
    if found.bound > found.allowance:
        target(found.measured / found.bound, label="share of half the gap")
