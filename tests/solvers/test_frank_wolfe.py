"""Frank-Wolfe on masks: two steps by hand, the polytope, derivatives, what comes out and what is refused."""

import numpy as np
import pytest
from hypothesis import given

from solvers import frank_wolfe
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import KeepNofM, KeepPerRow
from theory_checks import allowance
from theory_checks.relaxation import row_values
from theory_checks.strategies import cases


def test_two_steps_by_hand():
    """H = I, w = (2, 1, 1), k = 1: from 1/3 to the vertex (1, 0, 0), then two thirds of the way to (0, 1, 0)."""
    problem = LayerProblem.of(np.array([[2.0, 1, 1]]), np.eye(3))
    now = frank_wolfe.start(problem, 1)
    assert np.array_equal(now.M, np.full((1, 3), 1 / 3))
    now = frank_wolfe.step(problem, 1, now)
    assert (now.M.tolist(), now.n) == ([[1.0, 0, 0]], 1)
    assert frank_wolfe.gradient(problem, now.M).tolist() == [[0.0, -1, -1]]
    assert frank_wolfe.gaps(problem, 1, now.M).tolist() == [1.0]
    now = frank_wolfe.step(problem, 1, now)
    assert np.abs(now.M - [[1 / 3, 2 / 3, 0]]).max() <= allowance(1.0, 3)


@given(case=cases())
def test_every_mask_stays_in_the_polytope(case):
    k = round(case.keep * case.inputs)
    now = frank_wolfe.start(case.judge, k)
    for _ in range(20):
        now = frank_wolfe.step(case.judge, k, now)
        assert np.abs(now.M.sum(axis=1) - k).max() <= allowance(2.0 * case.inputs, case.inputs)
        assert now.M.min() >= 0
        assert now.M.max() <= 1 + allowance(1.0, case.inputs)


@given(case=cases())
def test_the_gradient_is_that_of_the_value(case):
    """g is quadratic, so that g(M + d) - g(M - d) = 2 <grad g(M), d>."""
    M, d = (case.rng(i).uniform(0, 1, case.W0.shape) for i in (30, 31))
    rise = row_values(case.judge, M + d) - row_values(case.judge, M - d)
    w = np.abs(case.judge.W0)
    scale = 16 * float((w * (w @ np.abs(case.judge.H))).sum())
    slope = 2 * (frank_wolfe.gradient(case.judge, M) * d).sum(axis=1)
    assert np.abs(rise - slope).max() <= allowance(scale, case.inputs)


def test_of_equal_gradients_the_lower_index_stays():
    assert frank_wolfe.vertex(np.zeros((1, 4)), 2).tolist() == [[1.0, 1, 0, 0]]
    assert frank_wolfe.vertex(np.array([[3.0, -1, 2, -1]]), 3).tolist() == [[0.0, 1, 1, 1]]


@given(case=cases())
def test_kept_weights_keep_their_values_and_counts_are_exact(case):
    sparsity = KeepPerRow(round(case.keep * case.inputs))
    found = frank_wolfe.frank_wolfe(case.problem, sparsity, iters=10).weight
    kept = found != 0
    assert np.array_equal(found[kept], case.W0[kept])
    assert (kept.sum(axis=1) <= sparsity.keep).all()
    assert case.tied or (kept.sum(axis=1) == sparsity.keep).all()


def test_it_sees_that_one_of_two_copies_suffices():
    """Magnitude keeps both copies; the relaxation keeps one copy and the weight that nothing else carries."""
    H = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    problem = LayerProblem.of(np.array([[4.0, -3, 2]]), H)
    found = frank_wolfe.frank_wolfe(problem, KeepPerRow(1), iters=200).weight
    assert found.tolist() == [[0.0, 0, 2]]
    assert problem.value(found) == 0.5


def test_another_pattern_is_refused():
    with pytest.raises(Refusal, match=r"k weights per row; got 2:4|k weights per row; got KeepNofM"):
        frank_wolfe.frank_wolfe(LayerProblem.of(np.ones((1, 4)), np.eye(4)), KeepNofM(2, 4))
