"""Exchanges as a judge sees them: two texts of the gain, allowed pairs, verdicts with both sides."""

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers.problem import LayerProblem
from solvers.sparsity import L0, KeepNofM, KeepPerLayer, KeepPerRow
from solvers.swaps import pair_gains, start
from theory_checks import allowance
from theory_checks.exchange import (
    closed_form,
    one_swap_again,
    one_swap_optimal,
    one_swap_sampled,
    pairs,
    recomputed,
    swap_gain_exact,
    swaps_descend,
)
from theory_checks.restoration import design_of
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

CASE = Case("autoregressive", rows=3, inputs=8, seed=6)
DESIGN = design_of(CASE)
EVERY = np.ones(3, dtype=bool)


def ran(n):
    return solvers.run(solvers.find("magnitude"), CASE.problem, KeepPerRow(4), swaps=n, refine_mu=0.1)


@given(case=cases())
def test_add_then_drop_is_the_common_denominator(case):
    """The judge's two steps with a fresh inverse and the solver's one formula agree on every pair."""
    for row, S in enumerate(case.budgets[0].mask(np.abs(case.judge.W0))):
        if 0 < S.sum() < len(S):
            k = start(case.judge, row, np.flatnonzero(S), np.flatnonzero(~S))
            if np.count_nonzero(k.w) < S.sum():
                continue  # a refit to zero leaves the support, which the judge reads from the weights
            gains, _ = closed_form(case.judge, row, k.w)
            size = float(np.abs(gains).max()) + case.judge.magnitude(np.zeros_like(case.W0))
            reach = allowance(size * float(np.linalg.cond(case.judge.H)) ** 2, case.inputs)
            assert np.abs(gains - pair_gains(case.judge, k)).max() <= reach


def test_the_gain_by_hand():
    """H = [[4, 2], [2, 4]], w0 = (1, 3): keeping input 0 alone leaves 27/2, input 1 alone 3/2."""
    problem = LayerProblem.of(np.array([[1.0, 3.0]]), np.array([[4.0, 2], [2, 4]]))
    gains, slack = closed_form(problem, 0, np.array([2.5, 0.0]))
    assert abs(gains[0, 0] - 12) <= slack
    design = DESIGN._replace(A=np.linalg.cholesky(problem.H).T, W0=problem.W0)
    assert abs(recomputed(design, 0, np.array([True, False]))[0, 0] - 12) <= allowance(27.0, 4)


def test_pairs_are_those_that_keep_the_budget():
    S = np.array([True, False, False, True, False, False, False, True])
    shape = (3, 8)
    windowed = [[True, True, False, False, False]] * 2 + [[False, False, True, True, True]]
    assert np.array_equal(pairs(KeepNofM(2, 4), shape, 1, S), windowed)
    for free in (KeepPerRow(3), KeepPerLayer(9), L0(0.1)):
        assert pairs(free, shape, 2, S).shape == (3, 5)
        assert pairs(free, shape, 2, S).all()


def test_what_ended_is_optimal_and_what_began_is_not():
    done, begun = ran("all"), ran(0)
    refit = solvers.swaps.swaps(done.refit, KeepPerRow(4), begun.found.weight, 0)[0]
    gains = recomputed(DESIGN, 0, begun.found.weight[0] != 0)
    assert one_swap_optimal(DESIGN, KeepPerRow(4), 0, done.swapped[0]).outcome == "holds"
    failing = one_swap_optimal(DESIGN, KeepPerRow(4), 0, begun.found.weight[0])
    assert (failing.outcome, failing.measured) == ("fails", gains.max())
    assert one_swap_sampled(done.refit, KeepPerRow(4), done.swapped, EVERY).outcome == "holds"
    assert one_swap_sampled(done.refit, KeepPerRow(4), refit, EVERY).outcome == "fails"
    assert one_swap_again(done.refit, KeepPerRow(4), done.swapped.astype(np.float32).astype(float)).outcome == "holds"
    assert one_swap_again(done.refit, KeepPerRow(4), begun.found.weight).outcome == "fails"


def test_a_row_of_the_sample_is_enough_to_fail_and_rows_that_did_not_end_claim_nothing():
    done, begun = ran("all"), ran(0)
    refit = solvers.swaps.swaps(done.refit, KeepPerRow(4), begun.found.weight, 0)[0]
    W = done.swapped.copy()
    W[2] = refit[2]
    assert one_swap_sampled(done.refit, KeepPerRow(4), W, EVERY).outcome == "fails"
    assert one_swap_sampled(done.refit, KeepPerRow(4), W, np.arange(3) < 2).outcome == "holds"
    assert one_swap_sampled(done.refit, KeepPerRow(4), W, ~EVERY).applies == "no row ended its swaps"
    assert one_swap_sampled(done.refit, KeepPerRow(8), DESIGN.W0, EVERY).applies == "nothing to exchange"


def test_swaps_that_gain_less_than_they_say_or_move_counts_fail():
    done = ran("all")
    args = (done.refit, KeepPerRow(4), done.refined, done.swapped)
    assert swaps_descend(*args, done.gains).outcome == "holds"
    boastful = [row * 1.01 for row in done.gains]
    assert swaps_descend(*args, boastful).outcome == "fails"
    assert swaps_descend(*args, [-row for row in done.gains]).measured == np.inf
    assert swaps_descend(done.refit, KeepPerRow(4), done.refined, done.refit.W0, done.gains).measured == np.inf
    assert swaps_descend(done.refit, KeepNofM(2, 4), *args[2:], done.gains).measured == np.inf


@pytest.mark.parametrize("S", [EVERY[:1].repeat(8), ~EVERY[:1].repeat(8)], ids=["all kept", "none kept"])
def test_where_nothing_can_be_exchanged_the_claims_say_so(S):
    assert swap_gain_exact(CASE.judge, DESIGN, 0, S).applies == "nothing to exchange"
    w = np.where(S, CASE.judge.W0[0], 0.0)
    assert one_swap_optimal(DESIGN, KeepPerRow(4), 0, w).applies == "nothing to exchange"


def test_enumeration_is_no_worse_than_swaps():
    from theory_checks.enumeration import exact_optimum, optimum

    best, done = optimum(CASE.judge, 4), ran("all")
    found = [exact_optimum(DESIGN, best, row, w) for row, w in enumerate(done.swapped)]
    assert [c.outcome for c in found] == ["holds"] * 3
    assert sum(c.slack for c in found) < sum(
        exact_optimum(DESIGN, best, r, w).slack for r, w in enumerate(done.refined)
    )
