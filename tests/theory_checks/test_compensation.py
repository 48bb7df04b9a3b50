"""SparseGPT's claims: both sides by hand, and what each of them refuses."""

import numpy as np
import pytest

from solvers import KeepNofM, KeepPerRow, LayerProblem, sparsegpt
from theory_checks.certificate import allowance
from theory_checks.compensation import (
    best_given_left,
    conditional,
    cost_root,
    damped_design,
    identity,
    pruned,
    scores,
)
from theory_checks.restoration import Design
from theory_checks.synthetic import Case

CASE = Case("language_like", rows=3, inputs=8, seed=4)
PAIR = Design(np.linalg.cholesky([[2.0, 1.0], [1.0, 2.0]]).T, np.array([[1.0, 1.0]]))


def test_both_sides_of_the_identity_by_hand():
    """H = [[2, 1], [1, 2]]: removing w_0 = 1 costs e^2 = 1 / U_00^2 = 3/2, and d = (-1, 1/2) gives d H d' = 3/2."""
    problem = LayerProblem.of(PAIR.W0, np.array([[2.0, 1.0], [1.0, 2.0]]))
    W, E = sparsegpt.prune(problem, KeepPerRow(1), sparsegpt.upper_factor(problem.H), 128)
    rounding = allowance(6.0, 2)
    assert abs(np.square(E).sum() - 1.5) <= rounding
    assert abs(2 * PAIR.value(W) - 1.5) <= rounding
    assert abs(cost_root(PAIR.A, 0) ** 2 - 1.5) <= rounding
    assert abs(cost_root(PAIR.A, 1) ** 2 - 2.0) <= rounding


def test_what_is_left_is_held_and_what_is_right_is_free():
    moved = best_given_left(PAIR, np.array([[0.0, 9.0]]), 1)
    assert abs(moved.item() - 1.5) <= allowance(6.0, 2)
    assert np.abs(best_given_left(PAIR, np.array([[7.0, 9.0]]), 0) - PAIR.W0).max() <= allowance(6.0, 2)


def test_the_tokens_have_the_damped_gram_and_a_dead_input_counts_one():
    for family in ("language_like", "dead"):
        case = Case(family, rows=3, inputs=8, seed=4)
        A, H = damped_design(case).A, sparsegpt.damped(case.problem.H, 0.01)
        assert np.abs(A.T @ A - H).max() <= allowance(float((np.abs(A).T @ np.abs(A)).max()), sum(A.shape))


def test_the_identity_holds_on_ill_conditioned_layers_of_some_size():
    for family in ("language_like", "rank_deficient", "duplicated", "dead"):
        case = Case(family, rows=6, inputs=64, seed=1)
        for claim in (identity, conditional, scores):
            for budget in (KeepPerRow(20), KeepNofM(2, 4)):
                certificate = claim(case.problem, damped_design(case), budget, 24)
                assert certificate.outcome == "holds", str(certificate)


@pytest.mark.parametrize(
    ("claim", "spoiled"),
    [
        (identity, lambda W, E: (W, 1.001 * E)),
        (conditional, lambda W, E: (1.001 * W, E)),
        (scores, lambda W, E: (np.where(W == 0, CASE.W0, 0.0), E)),
    ],
    ids=["errors", "weights", "mask"],
)
def test_a_thousandth_too_much_or_the_other_mask_is_noticed(monkeypatch, claim, spoiled):
    made = pruned(CASE.problem, KeepPerRow(4), 128)
    monkeypatch.setattr("theory_checks.compensation.pruned", lambda *args: spoiled(*made))
    assert claim(CASE.problem, damped_design(CASE), KeepPerRow(4), 128).outcome == "fails"
