"""OMP: against scikit-learn, by hand, indifferent to the scale of inputs, and what it refuses."""

import numpy as np
import pytest
import scipy.linalg

from solvers import omp
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import KeepPerLayer, KeepPerRow
from theory_checks import allowance


def _regression(seed=0, n=40, p=12, rows=5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    X *= np.sqrt(n) / np.linalg.norm(X, axis=0)
    return X, rng.standard_normal((rows, p))


def _problem(X, W0):
    H = X.T @ X / len(X)
    return LayerProblem.of(W0, (H + H.T) / 2)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_it_is_the_pursuit_of_scikit_learn_on_columns_of_one_norm(k):
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, W0 = _regression(k)
    found = omp.omp(_problem(X, W0), KeepPerRow(k)).weight
    oracle = linear_model.OrthogonalMatchingPursuit(n_nonzero_coefs=k, fit_intercept=False).fit(X, X @ W0.T).coef_
    assert np.array_equal(found != 0, np.atleast_2d(oracle) != 0)
    condition = np.linalg.cond(X) ** 2
    assert np.abs(found - oracle).max() <= allowance(condition * np.abs(W0).sum(), W0.size)


def test_two_rounds_by_hand():
    """grad f(0) = -(2, 1.9, 0) picks input 0, whose refit 2 leaves (0, 0.7, 0); then 1: the dense weight."""
    H = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 1.0]])
    W0 = np.array([[2.0 - 0.6 * 1.09375, 1.09375, 0.0]])
    problem = LayerProblem.of(W0, H)
    one, two = (omp.omp(problem, KeepPerRow(k)).weight for k in (1, 2))
    assert np.array_equal(one != 0, [[True, False, False]])
    assert abs(one[0, 0] - 2.0) <= allowance(4.0, 3)
    assert np.abs(two - W0).max() <= allowance(4.0, 9)


def _supports(scale):
    X, W0 = _regression(4)
    return omp.omp(_problem(X * scale, W0 / scale), KeepPerRow(4)).weight != 0


def test_the_scale_of_an_input_does_not_matter_and_a_score_without_it_would_show(monkeypatch):
    scale = 2.0 ** np.arange(-6, 6)
    assert np.array_equal(_supports(np.ones(12)), _supports(scale))
    monkeypatch.setattr(omp, "pulls", lambda problem, W, mask: np.where(mask, 0.0, np.abs(problem.grad(W))))
    assert not np.array_equal(_supports(np.ones(12)), _supports(scale))


def test_nothing_pulls_on_the_support_and_removed_entries_are_plus_zero():
    X, W0 = _regression(2)
    problem, before = _problem(X, W0), W0.copy()
    W = omp.omp(problem, KeepPerRow(5)).weight
    assert np.array_equal(W0, before)
    assert (np.count_nonzero(W, axis=1) == 5).all()
    assert not np.signbit(W[W == 0]).any()
    H = problem.H
    for row, w0, S in zip(W, W0, W != 0, strict=True):
        best = scipy.linalg.solve(H[np.ix_(S, S)], (H @ w0)[S])
        assert np.abs(row[S] - best).max() <= allowance(np.linalg.cond(H) * np.abs(w0).sum(), H.size)


def test_ties_go_to_the_lower_index_and_the_dead_are_never_chosen():
    assert np.array_equal(omp.omp(LayerProblem.of(np.ones((1, 4)), np.eye(4)), KeepPerRow(2)).weight, [[1, 1, 0, 0]])
    dead = LayerProblem.of(np.ones((1, 3)), np.diag([0.0, 1.0, 1.0]))
    assert np.array_equal(omp.omp(dead, KeepPerRow(3)).weight, [[0, 1, 1]])


def test_a_row_that_is_fitted_keeps_what_it_has():
    W0 = np.array([[3.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    assert np.array_equal(omp.omp(LayerProblem.of(W0, np.eye(3)), KeepPerRow(3)).weight, W0)
    assert not omp.omp(LayerProblem.of(W0, np.eye(3)), KeepPerRow(0)).weight.any()


@pytest.mark.parametrize(
    ("budget", "words"), [(KeepPerLayer(2), "in every row"), (KeepPerRow(4), "0 to 3 inputs"), (KeepPerRow(-1), "0 to")]
)
def test_another_budget_is_refused(budget, words):
    with pytest.raises(Refusal, match=words):
        omp.omp(LayerProblem.of(np.ones((2, 3)), np.eye(3)), budget)
