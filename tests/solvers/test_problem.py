"""The layer's quadratic against its tokens, its differences, its change of scale, and what it refuses."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import KeepPerRow
from theory_checks import allowance
from theory_checks.strategies import cases
from theory_checks.synthetic import Case


def _drifted(case):
    """The problem of a layer whose inputs drifted from X to Z, and Z."""
    X = case.X
    Z = X + 0.3 * case.rng(11).standard_normal(X.shape)
    T, drift = len(X), Z - X
    H = Z.T @ Z / T
    R, e0 = (case.W0 @ drift.T) @ Z / T, float(np.square(drift @ case.W0.T).sum()) / (2 * T)
    return LayerProblem(case.W0, Gram((H + H.T) / 2), R, e0), Z


@given(case=cases())
def test_with_drift_the_quadratic_is_the_output_error_over_the_tokens(case):
    problem, Z = _drifted(case)
    W = case.some_weight()
    tokens = float(np.square(Z @ W.T - case.X @ case.W0.T).sum()) / (2 * len(Z))
    terms = float(np.square(np.abs(Z) @ np.abs(W).T + (np.abs(Z) + np.abs(case.X)) @ np.abs(case.W0).T).sum()) / len(Z)
    assert abs(problem.value(W) - tokens) <= allowance(3 * terms, len(Z) + case.inputs)
    assert abs(problem.value(case.W0) - problem.e0) == 0


@given(case=cases())
def test_the_gradient_is_the_central_difference(case):
    problem, _ = _drifted(case)
    W, E = case.some_weight(), case.some_weight(12)
    difference = (problem.value(W + E) - problem.value(W - E)) / 2  # exact for a quadratic
    scale = problem.magnitude(W + E) + problem.magnitude(W - E) + problem.magnitude(W)
    assert abs(difference - float(np.vdot(problem.grad(W), E))) <= allowance(4 * scale, case.inputs)


def test_the_change_is_accurate_where_the_difference_of_values_is_not():
    H = np.array([[3.0, 1], [1, 2]])
    problem = LayerProblem(np.zeros((1, 2)), Gram(H), np.array([[1.0, -1]]), 5.0)
    W = np.array([[1000.0, -7000.0]])
    d = np.array([[2.0**-37, 2.0**-36]])
    g, step = [[Fraction(v) for v in np.ravel(a)] for a in (problem.grad(W), d)]
    exact = sum(a * b for a, b in zip(g, step, strict=True))
    exact += sum(Fraction(H[i, j]) * step[i] * step[j] for i in range(2) for j in range(2)) / 2
    reach = allowance(float(np.abs(problem.grad(W) * d).sum()), 2)
    assert abs(problem.change(W, W + d) - exact) <= reach
    assert abs(problem.value(W + d) - problem.value(W) - exact) > reach


@given(case=cases())
def test_the_magnitude_is_an_upper_bound_of_the_value(case):
    problem, _ = _drifted(case)
    W = case.some_weight()
    assert abs(problem.value(W)) <= problem.magnitude(W) + allowance(problem.magnitude(W), case.inputs)


@given(case=cases())
def test_normalisation_gives_a_unit_diagonal_and_comes_back(case):
    judge, W = case.problem.normalised(0.25), case.some_weight()
    live = case.problem.norms > 0
    assert np.abs(np.diag(judge.H) - np.where(live, 1.25, 0.25)).max() <= allowance(2.0, 1)
    assert judge.gram.ridge == 0.25
    back = judge.original(judge.scaled(W))
    assert np.abs(back - W)[:, live].max(initial=0) <= allowance(float(np.abs(W).max()), 1)
    assert np.array_equal(back[:, ~live], W[:, ~live])
    assert case.problem.scaled(W) is W is case.problem.original(W)


def test_weights_of_dead_inputs_that_stay_come_back_bit_for_bit_and_go_first():
    case = Case("dead", rows=4, inputs=6, seed=3)
    dead = case.problem.norms == 0
    kept = solvers.run(solvers.find("maiht"), case.problem, KeepPerRow(6)).weight
    assert np.array_equal(kept[:, dead], case.W0[:, dead])
    assert not solvers.run(solvers.find("maiht"), case.problem, KeepPerRow(5)).weight[:, dead].any()


def test_the_drift_is_normalised_with_the_inputs():
    problem, _ = _drifted(Case("scaled", rows=2, inputs=5))
    judge, W = problem.normalised(0.0), np.ones((2, 5))
    reach = allowance(problem.magnitude(W), 10)
    assert abs(judge.value(judge.scaled(W)) - problem.value(W)) <= reach
    assert judge.R is not None


def test_layers_of_one_site_share_the_normalised_gram():
    gram = Gram(np.eye(3))
    first, second = (LayerProblem(W, gram).normalised(0.1) for W in (np.ones((1, 3)), np.zeros((2, 3))))
    assert first.gram is second.gram


def test_the_relative_error_is_one_without_weights_and_nan_without_outputs():
    case = Case(seed=4)
    assert case.problem.relative_error(np.zeros_like(case.W0)) == 1
    assert case.problem.relative_error(case.W0) == 0
    assert np.isnan(LayerProblem.of(np.ones((1, 2)), np.zeros((2, 2))).relative_error(np.zeros((1, 2))))


W, H = np.ones((2, 3)), np.eye(3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gram(np.ones((2, 3))), r"square \(in, in\) matrix; got shape \(2, 3\)"),
        (lambda: Gram(np.ones(3)), r"got shape \(3,\)"),
        (lambda: Gram(np.full((2, 2), np.nan)), "Gram holds NaN or infinity"),
        (lambda: Gram(np.triu(np.ones((3, 3)))), "exactly symmetric"),
        (lambda: LayerProblem.of(W.T, H), r"got \(3, 2\) and \(3, 3\).*transposed"),
        (lambda: LayerProblem.of(W[0], H), "a weight is"),
        (lambda: LayerProblem.of(W[:0], H), "at least one output"),
        (lambda: LayerProblem.of(W * np.inf, H), "dense weight holds NaN or infinity"),
        (lambda: LayerProblem.of(W * 1e200, H), "squares overflow"),
        (lambda: LayerProblem(W, Gram(H), R=np.ones((3, 2))), r"drift R has the shape of the weight, \(2, 3\)"),
        (lambda: LayerProblem.of(W, H).normalised(-0.1), r"a ridge, mu or refine_mu.*at least 0; got -0\.1"),
        (lambda: LayerProblem.of(W, H).normalised("0.1"), "got '0.1'"),
        (lambda: LayerProblem.of(W, H).normalised(np.inf), "got inf"),
    ],
)
def test_what_is_no_layer_is_refused_in_words(make, words):
    with pytest.raises(Refusal, match=words):
        make()
