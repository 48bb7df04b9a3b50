"""ADMM and ALPS: the dual by hand, Lemma 1 from both starts, and a penalty that does not grow."""

from itertools import pairwise

import numpy as np

from solvers import KeepPerRow, alps
from theory_checks.restoration import Design, design_of
from theory_checks.splitting import Move, admm_moves, alps_moves, convergence, dual, lemma
from theory_checks.synthetic import Case

CASE = Case("language_like", rows=3, inputs=8, seed=2)
ONE = Design(np.array([[np.sqrt(2.0)]]), np.array([[3.0]]))


def _scalars(rho, D, W, D_next):
    return Move(rho, *(np.array([[x]]) for x in (D, W, D_next)))


def test_two_rounds_by_hand():
    """H = 2, W0 = 3, D = 0 throughout. rho = 1: W = 3 - 3/3 = 2, V = 2. rho = 4: W = 3 - (12 + 2)/6 = 2/3, V = 14/3."""
    right = [_scalars(1.0, 0.0, 2.0, 0.0), _scalars(4.0, 0.0, 2 / 3, 0.0)]
    assert dual(ONE, right).outcome == "holds"
    forgotten = [right[0], _scalars(4.0, 0.0, 3 - 12 / 6, 0.0)]
    assert dual(ONE, forgotten).outcome == "fails"
    scaled_along = [right[0], _scalars(4.0, 0.0, 3 - (12 + 8) / 6, 0.0)]
    assert dual(ONE, scaled_along).outcome == "fails"


def test_both_pages_make_moves_that_hang_together():
    for moves in (admm_moves, alps_moves):
        made = list(moves(CASE.judge, KeepPerRow(4)))
        assert dual(design_of(CASE), made).outcome == "holds"
        assert all(np.array_equal(a.D_next, b.D) for a, b in pairwise(made))
        assert dual(design_of(CASE), made[1:]).outcome == "fails"


def test_lemma_1_is_violated_at_the_first_round_of_the_printed_dense_start(monkeypatch):
    budget = KeepPerRow(4)
    assert lemma(CASE.judge, budget).outcome == "holds"
    monkeypatch.setattr(alps, "start", lambda p, g: alps.State(p.W0, np.zeros_like(p.W0)))
    broken = lemma(CASE.judge, budget)
    assert broken.outcome == "fails"
    first = next(alps.rounds(CASE.judge, budget, 0.1, 1))
    assert not (CASE.judge.W0 - first.before.D).any()
    assert broken.measured >= np.linalg.norm(first.after.D - first.before.D) > 0


def test_with_a_constant_penalty_some_supports_never_settle(monkeypatch):
    cases, budget = [Case("language_like", rows=3, inputs=8, seed=seed) for seed in range(6)], KeepPerRow(4)
    settled = [list(alps.rounds(case.judge, budget, 0.1, 300))[-1].settled for case in cases]
    assert all(settled)
    monkeypatch.setattr(alps, "growth", lambda changed, kept: 1.0)
    settled = [list(alps.rounds(case.judge, budget, 0.1, 300))[-1].settled for case in cases]
    verdicts = [convergence(case.judge, budget).outcome for case in cases]
    assert not all(settled)
    assert all(rests or verdict == "fails" for rests, verdict in zip(settled, verdicts, strict=True))
