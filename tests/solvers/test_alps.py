"""ALPS: a round by hand, the growth of the penalty, when it stops, what the polish does, and what it cannot promise."""

import numpy as np
import pytest

import solvers
from solvers import KeepPerLayer, KeepPerRow, LayerProblem, Refusal, Stop
from solvers.alps import Eigen, State, alps, growth, rounds, start, step
from solvers.linalg import least_squares_exact
from theory_checks import certify
from theory_checks.certificate import allowance
from theory_checks.restoration import design_of, no_worse
from theory_checks.synthetic import Case

CASE = Case("language_like", rows=4, inputs=12, seed=3)


def test_a_round_is_the_three_lines_of_the_page():
    """H = 2, rho = 1, W0 = 3, D = 1, V = 4: W = 3 + (1 (1 - 3) - 4)/3 = 1, D = 1 + 4, V = 4 + 1 (1 - 5)."""
    problem = LayerProblem.of(np.array([[3.0]]), np.array([[2.0]]))
    eigen, state = Eigen(np.array([2.0]), np.array([[1.0]])), State(np.array([[1.0]]), np.array([[4.0]]))
    W, after = step(problem, KeepPerRow(1), 1.0, eigen, state)
    assert (W.item(), after.D.item(), after.V.item()) == (1.0, 5.0, 0.0)
    _, removed = step(problem, KeepPerRow(0), 1.0, eigen, state)
    assert (removed.D.item(), removed.V.item()) == (0.0, 5.0)


def test_the_penalty_grows_by_the_share_of_the_support_that_moved():
    assert [growth(c, 1000) for c in (100, 99, 5, 4, 1)] == [1.3, 1.2, 1.2, 1.1, 1.1]
    assert growth(2, 10) == 1.3


def test_it_starts_at_the_projection_and_looks_every_third_round():
    budget = KeepPerRow(5)
    run = list(rounds(CASE.judge, budget, 0.1, 300))
    assert np.array_equal(run[0].before.D, budget.prox(CASE.judge.W0))
    assert not start(CASE.judge, budget).V.any()
    assert len(run) % 3 == 0
    assert run[-1].settled
    assert not any(r.settled for r in run[:-1])
    support, rho = run[0].before.D != 0, 0.1
    for first in range(0, len(run), 3):
        assert {r.rho for r in run[first : first + 3]} == {rho}
        moved = run[first + 2].after.D != 0
        changed, support = int((moved ^ support).sum()), moved
        rho = rho * growth(changed, 20) if changed else rho
    assert changed == 0


def test_it_says_whether_the_support_settled():
    assert alps(CASE.judge, KeepPerRow(5)).stop is Stop.SETTLED
    assert alps(CASE.judge, KeepPerRow(5), iters=2).stop is Stop.EXHAUSTED


def test_the_polish_descends_to_least_squares_on_the_support_that_was_found():
    budget, design = KeepPerLayer(20), design_of(CASE)
    D, ten, many = (alps(CASE.judge, budget, polish=steps).weight for steps in (0, 10, 100))
    assert np.array_equal(D, list(rounds(CASE.judge, budget, 0.1, 300))[-1].after.D)
    assert np.array_equal(D != 0, many != 0)
    assert no_worse(design, D, ten, "ten steps) <= f(none").outcome == "holds"
    assert no_worse(design, ten, many, "a hundred steps) <= f(ten").outcome == "holds"
    assert CASE.judge.change(D, ten) < 0
    best = least_squares_exact(CASE.judge, D != 0)
    assert np.linalg.norm(many - best) <= design.rounding(best)


def test_on_a_diagonal_gram_a_penalty_above_the_diagonal_keeps_the_best_support():
    """With rho >= h the dual pulls a removed weight up to at most |w|, below a kept one: no support ever changes."""
    W0 = CASE.rng(10).standard_normal((4, 12))
    problem = LayerProblem.of(W0, np.eye(12))
    found = alps(problem, KeepPerRow(5), rho=2.0)
    assert found.stop is Stop.SETTLED
    assert np.array_equal(found.weight != 0, KeepPerRow(5).mask(np.abs(W0)))
    reach = allowance(float(np.abs(W0).max()), 12)
    assert np.abs(found.weight - KeepPerRow(5).prox(W0)).max() <= reach


def test_with_the_released_penalty_a_diagonal_gram_may_end_on_another_support_and_nothing_else_is_promised():
    best = KeepPerRow(6).prox
    layers = [Case(rows=4, inputs=12, seed=seed).W0 for seed in range(12)]
    ended = [alps(LayerProblem.of(W, np.eye(12)), KeepPerRow(6)).weight != 0 for W in layers]
    assert any(not np.array_equal(mask, best(W) != 0) for mask, W in zip(ended, layers, strict=True))
    assert "identity" not in solvers.find("alps").promises


def test_a_drift_is_the_same_problem_with_another_dense_weight():
    judge, R = CASE.judge, CASE.some_weight(60)
    moved = judge.W0 - np.linalg.solve(judge.H, R.T).T
    drifted = LayerProblem(judge.W0, judge.gram, R=R)
    shifted = LayerProblem(moved, judge.gram)
    state = start(shifted, KeepPerRow(5))
    eigen = Eigen(*np.linalg.eigh(judge.H))
    (here, _), (there, _) = (step(p, KeepPerRow(5), 0.1, eigen, state) for p in (drifted, shifted))
    reach = float(np.linalg.norm(moved) + np.linalg.norm(R)) * float(np.linalg.cond(judge.H))
    assert np.linalg.norm(here - there) <= allowance(reach, 12)


def test_a_claim_that_needs_proximal_steps_says_that_it_does_not_apply():
    for name in ("sparsegpt", "admm", "alps"):
        run = solvers.run(solvers.find(name), CASE.problem, KeepPerRow(5), refine="exact")
        by_outcome = {c.name: c.outcome for c in certify(solvers.find(name), run, "exact")}
        assert by_outcome["sufficient-decrease"] == by_outcome["fixed-point"] == "not applicable"
        assert by_outcome["masked-least-squares"] == by_outcome["refinement-descends"] == "holds"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rho": 0.0}, "rho must be positive and finite; got 0.0. The release starts at 0.1."),
        ({"rho": float("nan")}, "rho must be positive and finite; got nan."),
        ({"iters": 0}, "iters is at least 1; got 0."),
    ],
)
def test_it_refuses_in_words(options, words):
    with pytest.raises(Refusal) as refusal:
        alps(CASE.judge, KeepPerRow(5), **options)
    assert words in str(refusal.value)
