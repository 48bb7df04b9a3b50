"""The mutation matrix: what it skips could not have been noticed, and many processes say what one says."""

import pytest

from theory_checks import matrix
from theory_checks.claims import CLAIMS
from theory_checks.contract import CONTRACT
from theory_checks.mutants import MUTANTS, kills

NAMES = [mutant.name for mutant in MUTANTS]
SOME = ("L0: threshold lam s, without the root",)


def _whole(name, most):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    return kills(mutant, [*CLAIMS, *CONTRACT], most)


@pytest.mark.parametrize("name", [*SOME, *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n not in SOME)])
def test_a_pair_that_is_skipped_would_have_survived(name):
    found = matrix.matrix([name], [*CLAIMS, *CONTRACT], most=2, workers=1)
    assert found[name] == _whole(name, 2)


def test_processes_agree_with_one_process_and_keep_the_order():
    checks = ("token-form", "prox-minimises", "refuses", "noise-event")
    names = [SOME[0], "problem: NaN is let in", "T1: no price for the choice of the support"]
    steps = []
    many = matrix.matrix(names, checks, most=3, workers=2, progress=lambda done, of: steps.append((done, of)))
    assert many == matrix.matrix(names, checks, most=3, workers=1)
    assert list(many) == names
    assert steps == [(n, 5) for n in (1, 2, 3, 4, 5)]


def test_a_check_meets_only_the_defects_whose_text_it_runs():
    reach = matrix.reached(("token-form", "refuses"), 2, 0, range(2))
    met = {check: {m.name for m in MUTANTS if reach[check].meets(m)} for check in reach}
    assert "problem: the expanded quadratic" in met["token-form"]
    assert "maiht: no safeguard" not in met["token-form"]
    assert "problem: NaN is let in" in met["refuses"]


def test_the_checks_that_stand_alone_are_those_with_a_victim_of_their_own():
    found = {"one": {"a": 1, "b": None}, "two": {"a": 2, "b": 3}, "three": {"a": None, "b": None}}
    assert matrix.needed(found) == {"a": ["one"], "b": []}
