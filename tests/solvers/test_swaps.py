"""Swaps: the gain by hand, the best exchange by brute force, budgets that hold, endings that are optimal."""

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers.linalg import least_squares_exact
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import L0, L1, KeepGroups, KeepNofM, KeepPerLayer, KeepPerRow
from solvers.swaps import exchangeable, most_of, pair_gains, start, step, swaps
from theory_checks import allowance
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

PAIR = LayerProblem.of(np.array([[1.0, 3.0, 0.0]]), np.array([[4.0, 2, 0], [2, 4, 0], [0, 0, 1]]))
LAYER = Case("language_like", rows=4, inputs=24, seed=9)


def masked(case, budget):
    return budget.prox(case.judge.W0, 1.0)


def reach(case, W):
    scale = case.judge.magnitude(W) + case.judge.magnitude(np.zeros_like(W))
    return allowance(scale * float(np.linalg.cond(case.judge.H)), case.inputs)


def test_a_gain_by_hand():
    """f of the row (1, 3, 0): keeping input 0 alone leaves 27/2, input 1 alone 3/2; the exchange gains 12."""
    k = start(PAIR, 0, np.array([0]), np.array([1, 2]))
    assert k.w.tolist() == [2.5, 0, 0]
    assert pair_gains(PAIR, k).tolist() == [[12.0, -12.5]]
    after = step(PAIR, 0, k, 0, 0)
    assert after.w.tolist() == [0, 3.5, 0]
    assert (after.kept.tolist(), after.removed.tolist()) == ([1], [0, 2])
    W, gains = swaps(PAIR, KeepPerRow(1), np.array([[2.5, 0, 0]]), None)
    assert (W.tolist(), [row.tolist() for row in gains]) == ([[0, 3.5, 0]], [[12.0]])


@given(case=cases())
def test_the_pivot_is_a_fresh_start_on_the_exchanged_support(case):
    for row, S in enumerate(case.budgets[0].mask(np.abs(case.some_weight()))):
        if not 0 < S.sum() < len(S):
            continue
        k = start(case.judge, row, np.flatnonzero(S), np.flatnonzero(~S))
        a, b = (int(case.rng(60).integers(n)) for n in k.B.shape)
        after = step(case.judge, row, k, a, b)
        fresh = start(case.judge, row, after.kept, after.removed)
        condition = float(np.linalg.cond(case.judge.H))
        for name in ("A", "B", "s", "w", "g"):
            size = float(
                np.abs(getattr(k, name)).max() + np.abs(getattr(fresh, name)).max() + np.abs(case.W0).max() + 1
            )
            error = float(np.abs(getattr(after, name) - getattr(fresh, name)).max())
            assert error <= allowance(size * condition**2, case.inputs), name


@given(case=cases())
def test_swaps_end_where_a_greedy_search_by_refits_ends(case):
    """Each row: the best exchange by |S||c| Cholesky refits until none improves reaches the same value."""
    problem, budget = case.judge, case.budgets[0]
    found, gains = swaps(problem, budget, masked(case, budget), None)
    for row, S in enumerate(masked(case, budget) != 0):
        part = LayerProblem(problem.W0[row : row + 1], problem.gram)

        def value(T, part=part):
            return part.value(least_squares_exact(part, T[None]))

        made, slack = 0, reach(case, found)
        while True:
            tried = {}
            for i in np.flatnonzero(S):
                for j in np.flatnonzero(~S):
                    T = S.copy()
                    T[[i, j]] = False, True
                    tried[i, j] = T
            best = min(tried.values(), key=value, default=S)
            if value(best) >= value(S) - slack:
                break
            S, made = best, made + 1
        ties = case.tied or case.family in ("orthogonal", "duplicated")
        assert ties or made <= len(gains[row])
        assert ties or abs(part.value(found[row : row + 1]) - value(S)) <= (2 + made) * slack


@given(case=cases())
def test_budgets_hold_values_fall_and_the_last_weights_are_the_refit(case):
    problem = case.judge
    for budget in [*case.budgets, case.penalty]:
        W = masked(case, budget)
        before = W.copy()
        for n in (0, 1, None):
            found, gains = swaps(problem, budget, W, n)
            assert np.array_equal(W, before)
            assert n is None or all(len(row) <= n for row in gains)
            assert all((row > 0).all() for row in gains)
            assert isinstance(budget, L0) or budget.allows(found)
            assert (np.count_nonzero(found, axis=1) <= np.count_nonzero(W, axis=1)).all()
            assert not np.signbit(found[found == 0]).any()
            total = sum(float(row.sum()) for row in gains)
            refit = least_squares_exact(problem, W != 0)
            slack = (1 + sum(map(len, gains))) * reach(case, refit)
            assert abs(problem.value(refit) - problem.value(found) - total) <= slack
            assert np.abs(np.where(found != 0, problem.grad(found), 0.0)).max() <= slack + reach(case, np.ones_like(W))


@pytest.mark.parametrize("budget", [KeepPerRow(12), KeepPerLayer(48), KeepNofM(2, 4)], ids=str)
def test_all_swaps_continue_where_fewer_stopped(budget):
    W = np.where(budget.mask(-np.abs(LAYER.judge.W0)), LAYER.judge.W0, 0.0)  # the smallest: a long way to go
    everything, gains = swaps(LAYER.judge, budget, W, None)
    longest = max(map(len, gains))
    assert longest > 1
    values, by_one = [], W
    for n in range(longest + 1):
        found, _ = swaps(LAYER.judge, budget, W, n)
        values.append(LAYER.judge.value(found))
        assert np.array_equal(found != 0, by_one != 0)
        by_one, _ = swaps(LAYER.judge, budget, by_one, 1)
    assert values == sorted(values, reverse=True)
    assert np.array_equal(everything != 0, found != 0)
    assert not any(len(row) for row in swaps(LAYER.judge, budget, everything, None)[1])


def test_exchanges_stay_in_their_window():
    k = start(LAYER.judge, 0, np.array([0, 1, 6, 7]), np.array([2, 3, 4, 5, 8]))
    expected = [[True, True, False, False, False]] * 2 + [[False, False, True, True, False]] * 2
    assert np.array_equal(exchangeable(KeepNofM(2, 4), k), expected)
    assert exchangeable(KeepPerRow(4), k) is True


def test_a_layer_budget_moves_no_count_between_rows():
    W = masked(LAYER, KeepPerLayer(40))
    found, _ = swaps(LAYER.judge, KeepPerLayer(40), W, None)
    assert np.array_equal(np.count_nonzero(found, axis=1), np.count_nonzero(W, axis=1))


def test_a_copy_may_take_the_place_of_its_original():
    """Input 1 is a copy of input 0 with twice the norm of 2's pull: s = 0, d = B^2 > 0, and nothing is gained by it."""
    H = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    problem = LayerProblem.of(np.array([[1.0, 1, 1]]), H)
    k = start(problem, 0, np.array([0]), np.array([1, 2]))
    assert k.s.tolist() == [0.0, 1.0]
    assert pair_gains(problem, k)[0, 0] == 0.0
    assert step(problem, 0, k, 0, 0).w.tolist() == [0, 2, 0]


def test_inputs_that_have_no_exchange_are_left_out_and_a_singular_support_is_refused():
    H = np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 2]])
    problem = LayerProblem.of(np.array([[1.0, 1, 1, 1]]), H)
    k = start(problem, 0, np.array([0, 2]), np.array([1, 3]))
    assert np.isneginf(pair_gains(problem, k)).tolist() == [[False, False], [True, False]]
    with pytest.raises(Refusal, match="Gram on the support of row 0 is not positive definite"):
        swaps(problem, KeepPerRow(2), np.array([[1.0, 1, 0, 0]]), None)


def test_the_drift_is_part_of_the_refit():
    case = Case("scaled", rows=2, inputs=6, seed=2)
    problem = LayerProblem(case.judge.W0, Gram(case.judge.H), R=case.some_weight())
    found, gains = swaps(problem, KeepPerRow(3), masked(case, KeepPerRow(3)), None)
    refit = least_squares_exact(problem, found != 0)
    slack = reach(case, found) + reach(case, np.ones_like(found) * np.abs(problem.R).max())
    assert np.abs(refit - found).max() <= slack
    first = least_squares_exact(problem, masked(case, KeepPerRow(3)) != 0)
    assert abs(problem.value(first) - problem.value(found) - sum(row.sum() for row in gains)) <= slack


def test_nothing_kept_and_nothing_removed():
    for W in (np.zeros_like(LAYER.W0), np.ones_like(LAYER.W0)):
        found, gains = swaps(LAYER.judge, KeepPerRow(0), W, None)
        assert np.array_equal(found, W * LAYER.judge.W0)
        assert not any(map(len, gains))


@pytest.mark.parametrize("sparsity", [L1(0.1), KeepGroups(1, (0,) * 24)], ids=["L1", "groups"])
def test_what_has_no_single_exchange_is_refused(sparsity):
    with pytest.raises(Refusal, match="swaps exchange single inputs"):
        swaps(LAYER.judge, sparsity, LAYER.judge.W0, 1)


def test_the_number_of_swaps_is_read():
    assert [most_of(n) for n in (0, 3, np.int64(4), "5", "all")] == [0, 3, 4, 5, None]
    for wrong in (-1, 1.0, "-1", "", "ALL", None, True):
        with pytest.raises(Refusal, match="0 or more, or all"):
            most_of(wrong)


def test_swaps_improve_what_a_method_found_on_its_support():
    for method in ("wanda", "maiht"):
        done = solvers.run(solvers.find(method), LAYER.problem, KeepPerRow(12), swaps="all")
        values = [done.refit.value(W) for W in (done.found.weight, done.refined, done.swapped)]
        assert values == sorted(values, reverse=True)


def test_exchanges_end_where_an_inexact_inverse_promises_them_for_ever(monkeypatch):
    """A refit that overstates its gradient promises 0 for 1 and 1 for 0; f did not fall since the last one: it ends."""
    made = []

    def overstated(problem, row, kept, removed):
        made.append(kept.tolist())
        assert len(made) < 20
        k = start(problem, row, kept, removed)
        return k._replace(g=10 * k.g)

    monkeypatch.setattr("solvers.swaps.start", overstated)
    swaps(PAIR, KeepPerRow(1), np.array([[2.5, 0, 0]]), None)
    assert made == [[0], [1], [0]]
