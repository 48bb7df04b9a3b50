"""A third party's solver is put through the contract in a few lines, and a bad one does not pass."""

import numpy as np
import pytest

from solvers import Method, Solution
from solvers.sparsity import KeepNofM, KeepPerLayer, KeepPerRow
from theory_checks.contract import CONTRACT, budgets, patterns
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
    every = [KeepPerRow(4), KeepPerLayer(8), KeepNofM(2, 4), KeepNofM(4, 8), KeepNofM(1, 4)]
    assert list(patterns(Method(third_party, "norms", ""), problem)) == every
    for kinds in ((KeepPerLayer,), (KeepPerRow, KeepNofM)):
        able = Method(third_party, "norms", "", patterns=kinds)
        assert list(patterns(able, problem)) == [b for b in every if isinstance(b, kinds)]
    assert list(budgets(Method(third_party, "norms", ""), problem, 1.0))[2:] == [KeepNofM(4, 4), KeepNofM(8, 8)]
    assert list(budgets(Method(third_party, "norms", ""), Case(inputs=12).problem))[2:] == [KeepNofM(2, 4)]


def _only_half(problem, sparsity):
    """Whatever n:m it is asked for, half of every window stays."""
    half = KeepNofM(sparsity.of // 2, sparsity.of) if isinstance(sparsity, KeepNofM) else sparsity
    return Solution(half.prox(problem.W0))


def _only_totals(problem, sparsity):
    """Every row keeps what n:m asks of it, in whichever windows."""
    share = sparsity.keep * problem.shape[1] // sparsity.of if isinstance(sparsity, KeepNofM) else 0
    return Solution((KeepPerRow(share) if isinstance(sparsity, KeepNofM) else sparsity).prox(problem.W0))


def _pads(problem, sparsity):
    """Inputs that fill no window are left as they are."""
    whole = problem.shape[1] // sparsity.of * sparsity.of if isinstance(sparsity, KeepNofM) else problem.shape[1]
    return Solution(np.hstack([sparsity.prox(problem.W0[:, :whole]), problem.W0[:, whole:]]))


@pytest.mark.parametrize(("run", "clause"), [(_only_half, "pattern"), (_only_totals, "pattern"), (_pads, "refuses")])
def test_a_solver_that_knows_some_windows_does_not_pass(run, clause):
    with pytest.raises((AssertionError, ValueError)):
        CONTRACT[clause](Method(run, "gram", "nobody"))
    CONTRACT["deterministic"](Method(run, "gram", "nobody"))


def test_a_pattern_that_a_method_cannot_do_must_be_refused_in_words(monkeypatch):
    able = Method(third_party, "norms", "nobody", patterns=(KeepPerRow,))
    CONTRACT["refuses"](able)
    monkeypatch.setattr(Method, "require", lambda self, name, sparsity: None)
    with pytest.raises(AssertionError, match=r"is to be refused .* it was accepted"):
        CONTRACT["refuses"](able)
