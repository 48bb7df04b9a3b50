"""Every planted defect is noticed by the checks that are named for it, and every check notices one."""

import pytest

import solvers
from theory_checks.claims import CLAIMS
from theory_checks.contract import CONTRACT
from theory_checks.mutant import Mutant, Patch
from theory_checks.mutants import MUTANTS, kills
from theory_checks.scaling import EXPERIMENTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_planted_defect_is_killed_by_each_check_that_is_named_for_it(mutant):
    assert [check for check, n in kills(mutant, mutant.killed_by, 60).items() if not n] == []


def test_every_defect_has_a_killer_and_every_check_has_a_victim():
    assert all(mutant.killed_by for mutant in MUTANTS)
    assert {check for mutant in MUTANTS for check in mutant.killed_by} == {*CLAIMS, *CONTRACT, *EXPERIMENTS}
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_nothing_is_noticed_where_nothing_is_planted_even_after_a_defect():
    kills(MUTANTS[0], CLAIMS, 3)
    kills(MUTANTS[0], CONTRACT, 0)
    assert not any(kills(Mutant("healthy", (), ()), [*CLAIMS, *CONTRACT], 8).values())


def test_an_exception_in_a_mutated_computation_counts_as_noticed():
    broken = Mutant("broken", (Patch(solvers.LayerProblem, "value", lambda self, W: 1 / 0),), ())
    assert kills(broken, ["token-form", "first-step-is-wanda", "refuses"], 1) == {
        "token-form": 1,
        "first-step-is-wanda": 1,
        "refuses": None,
    }


def test_a_refusal_in_a_mutated_experiment_counts_as_noticed(monkeypatch):
    def refused(seed):
        raise solvers.refusal.Refusal("planted.")

    monkeypatch.setitem(EXPERIMENTS, "noise-event", refused)
    assert kills(Mutant("healthy", (), ()), ["noise-event"], 1) == {"noise-event": 1}


def test_a_defect_is_removed_again():
    before = solvers.METHODS, solvers.maiht.step, solvers.LayerProblem.value
    for mutant in MUTANTS:
        with mutant.planted():
            pass
    assert before == (solvers.METHODS, solvers.maiht.step, solvers.LayerProblem.value)
