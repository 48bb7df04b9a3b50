"""FISTAPruner: exact counts, never worse than its rounded start, the zero of the path, the bracket, drift."""

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers.fista_pruner import STARTS, fista_pruner, lam_max, output_error, relaxed
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Stop
from solvers.sparsity import L1, KeepPerRow
from theory_checks.certificate import allowance
from theory_checks.duality import duality_gap
from theory_checks.strategies import cases
from theory_checks.support import violations
from theory_checks.synthetic import Case


@given(case=cases())
def test_counts_are_exact_and_the_rounded_start_is_never_beaten(case):
    for budget in case.budgets:
        for start in ("dense", "wanda"):
            found = fista_pruner(case.problem, budget, start=start, rounds=6)
            assert violations(budget, found.weight) == 0
            rounded = budget.prox(STARTS[start](case.problem, budget).weight)
            assert case.problem.value(found.weight) <= case.problem.value(rounded)


@given(case=cases())
def test_above_lam_max_zero_is_optimal_and_below_it_is_not(case):
    problem, top = case.judge, lam_max(case.judge)
    zero = np.zeros_like(problem.W0)
    assert not relaxed(problem, L1(top), zero, 5, 0.0).any()
    assert top == 0 or relaxed(problem, L1(0.9 * top), zero, 5, 0.0).any()


def test_the_relaxation_that_is_kept_belongs_to_the_weights_that_are_returned():
    case = Case("language_like", rows=6, inputs=16)
    found = fista_pruner(case.problem, KeepPerRow(8))
    problem, penalty, V = found.relaxed
    assert problem is case.problem
    assert np.array_equal(KeepPerRow(8).prox(V), found.weight)
    assert duality_gap(problem, penalty, V) < problem.value(V) + penalty.value(V)


def _lams(monkeypatch, xi):
    lams = []
    monkeypatch.setattr("solvers.fista_pruner.L1", lambda lam: lams.append(lam) or L1(lam))
    fista_pruner(Case("language_like", rows=8, inputs=32, seed=3).problem, KeepPerRow(16), xi=xi, rounds=4, patience=99)
    return list(dict.fromkeys(lams))


def test_lam_rises_while_rounding_costs_more_than_its_share_and_falls_else(monkeypatch):
    rising, falling = _lams(monkeypatch, -1.0), _lams(monkeypatch, 1e9)
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert rising[0] == falling[0]
    assert len(rising) == len(falling) == 4
    assert rising[-1] < lam_max(Case("language_like", rows=8, inputs=32, seed=3).problem)


def test_a_relaxation_sparser_than_the_budget_is_no_candidate():
    """With lam just below its largest value nearly everything vanishes; the budget is kept all the same."""
    problem = Case("language_like", rows=6, inputs=16).problem
    found = fista_pruner(problem, KeepPerRow(8), first=0.9, rounds=40, patience=40, iters=200)
    assert (np.count_nonzero(found.weight, axis=1) == 8).all()


def test_patience_ends_the_rounds():
    problem = Case("orthogonal", rows=6, inputs=16).problem
    assert fista_pruner(problem, KeepPerRow(8)).stop is Stop.CONVERGED
    assert fista_pruner(problem, KeepPerRow(8), rounds=1, patience=2).stop is Stop.EXHAUSTED


def test_error_correction_aims_at_the_dense_output_of_the_dense_inputs():
    rng = np.random.default_rng(0)
    W0, X, drifted = rng.standard_normal((4, 12)), rng.standard_normal((96, 12)), rng.standard_normal((96, 12)) / 5
    drifted += X
    H = drifted.T @ drifted / 96
    R = W0 @ (drifted - X).T @ drifted / 96
    e0 = float(np.square((drifted - X) @ W0.T).sum()) / (2 * 96)
    aware = LayerProblem(W0, solvers.Gram((H + H.T) / 2), R, e0)
    blind = LayerProblem(W0, solvers.Gram((H + H.T) / 2))
    W = fista_pruner(aware, KeepPerRow(6)).weight
    by_tokens = float(np.square(drifted @ W.T - X @ W0.T).sum()) / 96
    assert abs(output_error(aware, W) ** 2 - by_tokens) <= allowance(by_tokens, 96 * 12)
    assert output_error(aware, W) < output_error(aware, fista_pruner(blind, KeepPerRow(6)).weight)


def test_a_layer_without_inputs_stays_as_its_start():
    problem = LayerProblem.of(np.ones((2, 4)), np.zeros((4, 4)))
    found = fista_pruner(problem, KeepPerRow(2))
    assert found.relaxed is None
    assert violations(KeepPerRow(2), found.weight) == 0


def test_an_unknown_start_is_refused():
    with pytest.raises(Refusal, match="start is one of dense, magnitude, wanda, sparsegpt; got 'alps'"):
        fista_pruner(Case().problem, KeepPerRow(2), start="alps")
