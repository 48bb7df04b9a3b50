"""Identities between methods, and of each of them, that no claim carries: both sides by different texts.

A deletion costs Wanda's score squared; a drift is another dense weight; rounding is a triangle; rows are problems of
their own; on one mask least squares is below any update. Each is also shown to fail with a defect.
"""

from functools import partial

import numpy as np
import pytest
from hypothesis import given

import solvers
from solvers import Gram, KeepPerRow, LayerProblem, fista, fista_pruner, linalg, parse
from solvers.sparsity import L1
from theory_checks.certificate import allowance
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

LAYER = Case("language_like", rows=4, inputs=16, seed=9)
UPDATING = [name for name, method in solvers.METHODS.items() if method.evidence == "gram"]
TOKENS = 96


def drifted(seed=0, rows=4, inputs=12):
    """X, X~ (tokens, in) and the layer that reads X~ and is to give W0 X."""
    rng = np.random.default_rng(seed)
    W0, X = rng.standard_normal((rows, inputs)), rng.standard_normal((TOKENS, inputs))
    moved = X + rng.standard_normal((TOKENS, inputs)) / 5
    H, R = moved.T @ moved / TOKENS, W0 @ (moved - X).T @ moved / TOKENS
    e0 = float(np.square((moved - X) @ W0.T).sum()) / (2 * TOKENS)
    return X, moved, LayerProblem(W0, Gram((H + H.T) / 2), R, e0)


def by_tokens(X, moved, W0, W):
    """|W X~ - W0 X|^2 / 2T."""
    return float(np.square(moved @ W.T - X @ W0.T).sum()) / (2 * TOKENS)


def deletion_costs(case):
    """(out, in) what f becomes when one entry alone is removed, by tokens."""
    return np.square(case.W0) * np.square(case.X).sum(axis=0) / (2 * len(case.X))


@given(case=cases())
def test_wandas_score_squared_is_twice_the_cost_of_a_deletion_and_the_dearest_stay(case):
    wanda_is_cheapest(case)


def wanda_is_cheapest(case):
    cost = deletion_costs(case)
    slack = allowance(float(cost.max()), len(case.X))
    assert np.abs(np.square(case.W0 * case.problem.norms) / 2 - cost).max() <= slack
    for budget in case.budgets:
        kept = solvers.METHODS["wanda"].run(case.problem, budget).weight != 0
        for costs, stays in zip(budget.windows(cost), budget.windows(kept), strict=True):
            assert costs[~stays].max(initial=0.0) <= costs[stays].min(initial=np.inf) + slack


@pytest.mark.parametrize("seed", range(3))
def test_a_drift_is_another_dense_weight_and_a_constant(seed):
    drift_is_another_weight(seed)


def drift_is_another_weight(seed):
    """|W X~ - W0 X|^2 / 2T = <(W - W~) H, W - W~> / 2 + constant, W~ from lstsq on tokens, the constant its error."""
    X, moved, problem = drifted(seed)
    moved_target = np.linalg.lstsq(moved, X @ problem.W0.T, rcond=None)[0].T
    here = problem.recentred()
    assert here.R is None
    condition = float(np.linalg.cond(problem.H))
    size = float(np.abs(moved_target).max())
    assert np.abs(here.W0 - moved_target).max() <= allowance(size * condition, TOKENS)
    for W in (problem.W0, moved_target, np.zeros_like(problem.W0), LAYER.some_weight()[:, :12]):
        D = moved @ (W - moved_target).T
        split = float(np.square(D).sum()) / (2 * TOKENS) + by_tokens(X, moved, problem.W0, moved_target)
        whole = by_tokens(X, moved, problem.W0, W)
        terms = float(np.square(np.abs(moved) @ (np.abs(W) + np.abs(moved_target)).T).sum()) / TOKENS
        slack = allowance(terms * condition, TOKENS)
        assert abs(split - whole) <= slack
        assert abs(here.value(W) - whole) <= slack
        assert abs(problem.value(W) - whole) <= slack


@pytest.mark.parametrize("sparsity", ["50%/layer", "2:4"])
@pytest.mark.parametrize("name", UPDATING)
def test_error_correction_serves_every_method_that_knows_a_gram(name, sparsity):
    """With the drift known a pruned layer is nearer to the dense output of the dense inputs than without, by tokens."""
    method = solvers.find(name)
    gains = []
    for seed in range(4):
        X, moved, problem = drifted(seed)
        budget, blind = parse(sparsity).on(problem.shape), LayerProblem(problem.W0, problem.gram)
        aware, other = (solvers.run(method, p, budget, refine="exact").weight for p in (problem, blind))
        gains.append(by_tokens(X, moved, problem.W0, other) - by_tokens(X, moved, problem.W0, aware))
    assert np.mean(gains) > 0


def rounds_of(problem, budget, monkeypatch, **options):
    """V of every round of FISTAPruner, with the errors that it found: (V, E_total, E_round)."""
    seen, relax, error = [], fista_pruner.relaxed, fista_pruner.output_error

    def watched(*arguments):
        seen.append([relax(*arguments)])
        return seen[-1][0]

    def noted(problem, W):
        total = error(problem, W)
        if seen:
            seen[-1].append(total)
        return total

    monkeypatch.setattr(fista_pruner, "relaxed", watched)
    monkeypatch.setattr(fista_pruner, "output_error", noted)
    fista_pruner.fista_pruner(problem, budget, rounds=6, patience=6, **options)
    return seen


@pytest.mark.parametrize("start", ["dense", "wanda"])
def test_rounding_adds_no_more_to_the_error_than_its_own_length(start, monkeypatch):
    triangle(start, monkeypatch)


def triangle(start, monkeypatch):
    """|E_total - |V X~ - W0 X|| <= E_round = |(W - V) X~|: three norms of tokens."""
    for seed in range(3):
        X, moved, problem = drifted(seed)
        for V, total in rounds_of(problem, KeepPerRow(6), monkeypatch, start=start):
            W = KeepPerRow(6).prox(V)
            relaxed = np.sqrt(2 * by_tokens(X, moved, problem.W0, V))
            rounding = float(np.linalg.norm(moved @ (W - V).T)) / np.sqrt(TOKENS)
            size = float(np.linalg.norm(np.abs(moved) @ (np.abs(W) + np.abs(V) + np.abs(problem.W0)).T))
            assert abs(total - relaxed) <= rounding + allowance(size, TOKENS)
            assert abs(total - np.sqrt(2 * by_tokens(X, moved, problem.W0, W))) <= allowance(size, TOKENS)


def test_rows_solved_apart_are_rows_solved_together_with_the_same_step():
    rows_apart(fista.step)


def rows_apart(step, iters=40):
    """The step 1/L and t are of all rows; a rounding grows at most with the momentum's t^2."""
    problem = LAYER.judge
    penalty, s = L1(0.1 * fista_pruner.lam_max(problem)), 1 / problem.lipschitz
    together = run_of(step, problem, penalty, s, iters)
    size = float((np.abs(problem.W0) @ np.abs(problem.H)).max() * s + np.abs(problem.W0).max())
    for row in range(len(problem.W0)):
        one = LayerProblem(problem.W0[row : row + 1], problem.gram)
        apart = run_of(step, one, penalty, s, iters)
        assert np.abs(apart[0] - together[row]).max() <= iters**2 * allowance(size, 16)
    order = np.array([2, 0, 3, 1])
    moved = run_of(step, LayerProblem(problem.W0[order], problem.gram), penalty, s, iters)
    assert np.abs(moved - together[order]).max() <= iters**2 * allowance(size, 16)


def run_of(step, problem, penalty, s, iters):
    k = fista.start(problem.W0)
    for _ in range(iters):
        k = step(problem, penalty, s, k)
    return k.x


@pytest.mark.parametrize("name", UPDATING)
def test_on_one_mask_least_squares_is_below_any_update_and_an_update_below_none_in_the_mean(name):
    mask_order(name)


def mask_order(name):
    """f(least squares) <= f(W) on the support of W, always; f(W) <= f(W0 on it) in the mean of eight layers."""
    none, updated = [], []
    for seed in range(8):
        case = Case("language_like", rows=4, inputs=16, seed=seed)
        problem = case.judge
        budget = next(b for b in case.budgets if isinstance(b, solvers.find(name).patterns))
        found = case.run(name, budget).found.weight
        kept = np.where(found != 0, problem.W0, 0.0)
        values = [problem.value(W) for W in (linalg.least_squares_exact(problem, found != 0), found, kept)]
        assert values[0] <= min(values[1:]) + allowance(problem.magnitude(kept) + problem.magnitude(found), 16)
        updated.append(values[1] / values[2])
        none.append(1.0)
    assert np.mean(updated) < np.mean(none)


def _halved_norms(problem):
    return np.sqrt(np.diag(problem.H)) * np.linspace(0.5, 2, len(problem.H))


def _untouched(problem, mask):
    return np.where(mask, problem.W0, 0.0)


def _coupled(problem, sparsity, s, k):
    """t grows with the share of zeros, which is one number for all rows."""
    after = fista.step(problem, sparsity, s, k)
    return after._replace(y=after.x + float(np.mean(after.x == 0)) * (after.x - k.x))


def _in_squares(problem, W):
    return 2 * problem.value(W)


@pytest.mark.parametrize(
    ("target", "defect", "check"),
    [
        ("solvers.problem.LayerProblem.norms", property(_halved_norms), lambda _: wanda_is_cheapest(LAYER)),
        ("solvers.problem.LayerProblem.recentred", lambda self: LayerProblem(self.W0, self.gram, None, self.e0), None),
        ("solvers.fista_pruner.output_error", _in_squares, partial(triangle, "wanda")),
        ("solvers.linalg.least_squares_exact", _untouched, lambda _: mask_order("maiht")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_planted_defect_is_noticed(target, defect, check, monkeypatch):
    check = check or (lambda _: drift_is_another_weight(0))
    check(monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(target, defect)
    with pytest.raises(AssertionError):
        check(monkeypatch)


def test_a_step_that_couples_the_rows_is_noticed():
    with pytest.raises(AssertionError):
        rows_apart(_coupled)
