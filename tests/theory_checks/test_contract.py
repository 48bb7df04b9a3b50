"""A third party's solver is put through the contract in a few lines, and a bad one does not pass."""

import numpy as np
import pytest

from solvers import Method, Solution
from theory_checks.contract import CONTRACT, budgets
from theory_checks.synthetic import Case


def third_party(problem, sparsity):
    return Solution(np.where(sparsity.mask(np.abs(problem.W0) ** 3 * problem.norms), problem.W0, 0.0))


@pytest.mark.parametrize("clause", CONTRACT)
def test_a_third_partys_solver_is_put_through_the_contract(clause):
    CONTRACT[clause](Method(third_party, "norms", "someone, 2026", promises=frozenset({"exact", "rows", "inputs"})))


def _keeps_more(problem, sparsity):
    return Solution(problem.W0.copy())


def _writes(problem, sparsity):
    problem.W0[0, 0] = 0.0
    return Solution(problem.W0)


def _transposes(problem, sparsity):
    return Solution(problem.W0.T)


def _draws(problem, sparsity):
    mask = sparsity.mask(np.random.default_rng().random(problem.shape))
    return Solution(np.where(mask, problem.W0, 0.0))


def _moves(problem, sparsity):
    return Solution(sparsity.prox(problem.W0) * (1 + 2.0**-30))


def _adds(problem, sparsity):
    return Solution(np.where(sparsity.mask(np.abs(problem.W0)), problem.W0 + 1, 0.0))


@pytest.mark.parametrize(
    ("run", "clause"),
    [
        (_keeps_more, "pattern"),
        (_keeps_more, "keep_nothing"),
        (_writes, "pattern"),
        (_transposes, "pattern"),
        (_draws, "deterministic"),
        (_draws, "rows"),
        (_draws, "diagonal_gram"),
        (_moves, "keep_everything"),
        (_adds, "scale"),
    ],
)
def test_a_bad_solver_does_not_pass(run, clause):
    method = Method(run, "gram", "nobody", promises=frozenset({"exact", "rows", "inputs", "scale", "identity"}))
    with pytest.raises((AssertionError, ValueError)):
        CONTRACT[clause](method)


def test_what_is_not_promised_is_not_asked():
    silent = Method(_draws, "none", "nobody")
    for clause in ("descends", "rows", "inputs", "scale", "diagonal_gram"):
        CONTRACT[clause](silent)


def test_the_budgets_offered_are_those_that_the_method_can_meet():
    problem = Case(rows=2, inputs=8).problem
    every = list(budgets(Method(third_party, "norms", ""), problem))
    assert [b.keep for b in every] == [4, 8, 2]
    assert list(budgets(Method(third_party, "norms", "", patterns=(type(every[1]),)), problem)) == [every[1]]
