"""SparseGPT: two inputs by hand, the conditional factor, exact counts in blocks, dead inputs, drift, a plain text."""

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers import KeepNofM, KeepPerLayer, KeepPerRow, LayerProblem, Refusal
from solvers.sparsegpt import blocks, damped, prune, sparsegpt, upper_factor
from theory_checks.certificate import allowance
from theory_checks.strategies import cases
from theory_checks.support import exact_count
from theory_checks.synthetic import Case

PAIR = LayerProblem.of(np.array([[1.0, 1.0]]), np.array([[2.0, 1.0], [1.0, 2.0]]))


def test_two_inputs_by_hand():
    """H^-1 = [[2, -1], [-1, 2]] / 3, so U_00^2 = 2/3 and U_11^2 = 2/3 - (1/3)^2 / (2/3) = 1/2.

    The first entry costs 1.5, the second 2: the first goes, the second grows by (1/3) / (2/3). The diagonal of H^-1
    sees a tie.
    """
    W = sparsegpt(PAIR, KeepPerRow(1), damping=0.0).weight
    assert W[0, 0] == 0.0
    assert abs(W[0, 1] - 1.5) <= allowance(3.0, 2)
    squares = np.square(np.diag(upper_factor(PAIR.H)))
    assert np.abs(squares - [2 / 3, 1 / 2]).max() <= allowance(3.0, 2)


@given(case=cases())
def test_the_factor_is_upper_and_belongs_to_the_inverse(case):
    H = damped(case.problem.H, 0.01)
    U = upper_factor(H)
    assert np.array_equal(U, np.triu(U))
    assert (np.diag(U) > 0).all()
    gap = np.linalg.norm(U @ H @ U.T - np.eye(len(H)))
    assert gap <= allowance(float(np.linalg.cond(H)), len(H))


def test_the_damping_is_a_share_of_the_mean_and_dead_inputs_count_one():
    assert np.array_equal(damped(np.diag([8.0, 0.0, 4.0]), 0.5), np.diag([10.0, 1.0, 6.0]))


def plain(problem, budget, U, blocksize):
    """The same pass with every update made at once: one column, one rank-one product over all that is to its right."""
    W, n = problem.W0.copy(), problem.shape[1]
    for block, period, part in blocks(budget, n, blocksize):
        for j in range(block.start, block.stop):
            if (j - block.start) % period == 0:
                group = slice(j, min(j + period, block.stop))
                kept = part.mask(np.abs(W[:, group]) / np.diag(U)[group])
            e = np.where(kept[:, j - group.start], 0.0, W[:, j]) / U[j, j]
            W[:, j:] -= np.outer(e, U[j, j:])
            W[e != 0, j] = 0.0
    return W


@pytest.mark.parametrize("budget", [KeepPerRow(80), KeepPerLayer(5 * 71), KeepNofM(2, 4)], ids=str)
def test_updates_by_blocks_and_updates_at_once_agree_to_rounding(budget):
    problem = Case("language_like", rows=5, inputs=160, seed=3).problem
    U = upper_factor(damped(problem.H, 0.01))
    (W, E), reference = prune(problem, budget, U, 30), plain(problem, budget, U, 30)
    assert np.array_equal(W != 0, reference != 0)
    growth = float(np.linalg.cond(U))
    assert np.abs(W - reference).max() <= allowance(growth * float((np.abs(E) @ np.abs(U)).max()), 160)


def test_permuted_rows_permute_the_result_bit_for_bit_in_one_block_and_to_rounding_in_several():
    case = Case("language_like", rows=7, inputs=160, seed=3)
    order = case.rng(8).permutation(7)
    moved = LayerProblem(case.W0[order], case.problem.gram)
    for blocksize in (160, 30):
        here, there = (sparsegpt(p, KeepPerRow(80), blocksize=blocksize).weight for p in (case.problem, moved))
        assert np.array_equal(here[order] != 0, there != 0)
        reach = float(np.linalg.cond(damped(case.problem.H, 0.01)) * np.abs(case.W0).max())
        assert np.abs(here[order] - there).max() <= (0.0 if blocksize == 160 else allowance(reach, 160))


@pytest.mark.parametrize("inputs", [1, 7, 12, 33])
@pytest.mark.parametrize("blocksize", [1, 2, 5, 12, 128])
def test_the_shares_of_the_blocks_add_up_to_the_budget(inputs, blocksize):
    case = Case(rows=4, inputs=inputs, seed=inputs)
    for share in (0.0, 0.3, 0.5, 0.9, 1.0):
        for budget in (KeepPerRow(round(share * inputs)), KeepPerLayer(round(share * 4 * inputs))):
            W = sparsegpt(case.problem, budget, blocksize=blocksize).weight
            assert exact_count(budget, case.W0, W).outcome == "holds"
            most = [part.most((4, b.stop - b.start)) for b, _, part in blocks(budget, inputs, blocksize)]
            parts = [part.keep for _, _, part in blocks(budget, inputs, blocksize)]
            assert sum(parts) == budget.keep
            assert all(0 <= keep <= room for keep, room in zip(parts, most, strict=True))


def test_n_of_m_is_decided_where_it_stands_whatever_the_block():
    case = Case("autoregressive", rows=4, inputs=24, seed=5)
    found = [sparsegpt(case.problem, KeepNofM(2, 4), blocksize=b).weight != 0 for b in (1, 5, 8, 128)]
    assert all(np.array_equal(found[0], other) for other in found)


def test_on_a_diagonal_gram_the_weights_that_stay_are_not_touched():
    case = Case(rows=4, inputs=12, seed=1)
    problem = LayerProblem.of(case.W0, np.diag(case.rng(10).uniform(0.1, 10, 12)))
    for budget in (KeepPerRow(5), KeepPerLayer(20), KeepNofM(1, 4)):
        W = sparsegpt(problem, budget).weight
        assert np.array_equal(W[W != 0], case.W0[W != 0])
    identity = LayerProblem.of(case.W0, np.eye(12))
    assert np.array_equal(sparsegpt(identity, KeepPerRow(5)).weight, KeepPerRow(5).prox(case.W0))


def test_dead_inputs_go_first_and_come_back_bit_for_bit_where_they_stay():
    case = Case("dead", rows=4, inputs=8, seed=6)
    dead = case.problem.norms == 0
    assert dead.sum() == 1
    assert not sparsegpt(case.problem, KeepPerRow(7)).weight[:, dead].any()
    nothing_lives = LayerProblem.of(case.W0, np.zeros((8, 8)))
    kept = sparsegpt(nothing_lives, KeepPerRow(3)).weight
    assert np.array_equal(kept[kept != 0], case.W0[kept != 0])
    assert (np.count_nonzero(kept, axis=1) == 3).all()


def test_a_drift_is_the_same_problem_with_another_dense_weight():
    case = Case("language_like", rows=3, inputs=8, seed=2)
    R = case.some_weight(60)
    H = damped(case.problem.H, 0.01)
    moved = case.W0 - np.linalg.solve(H, R.T).T
    here = sparsegpt(LayerProblem(case.W0, case.problem.gram, R=R), KeepPerRow(4)).weight
    there = sparsegpt(LayerProblem(moved, case.problem.gram), KeepPerRow(4)).weight
    assert np.array_equal(here != 0, there != 0)
    reach = float(np.abs(moved).max() + np.abs(case.W0).max()) * float(np.linalg.cond(H))
    assert np.abs(here - there).max() <= allowance(reach, 8)
    assert np.abs(here - sparsegpt(case.problem, KeepPerRow(4)).weight).max() > allowance(reach, 8)


def test_without_damping_a_singular_gram_is_refused_and_nothing_is_substituted():
    copies = LayerProblem.of(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(Refusal, match=r"the damped Gram is not positive definite .* No substitute was used"):
        sparsegpt(copies, KeepPerRow(1), damping=0.0)
    W = sparsegpt(copies, KeepPerRow(1)).weight
    assert (np.count_nonzero(W, axis=1) == 1).all()
    assert copies.relative_error(W) < copies.relative_error(np.array([[1.0, 0.0]] * 2))


def test_it_refuses_blocks_without_columns_and_penalties_in_words():
    with pytest.raises(Refusal, match="blocksize is at least 1; got 0"):
        sparsegpt(PAIR, KeepPerRow(1), blocksize=0)
    with pytest.raises(Refusal, match=r"sparsegpt cannot meet L0\(lam=1.0\); it can do 50%, 50%/layer, 2:4"):
        solvers.solve(PAIR.W0, PAIR.H, method="sparsegpt", sparsity=solvers.L0(1.0))
