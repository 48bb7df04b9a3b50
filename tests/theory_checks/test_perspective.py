"""The perspective bound in exact arithmetic, against brute force by another road, and where it must say nothing."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings

from solvers import KeepNofM, KeepPerLayer, KeepPerRow, LayerProblem
from solvers.problem import Gram
from theory_checks import perspective
from theory_checks.certificate import allowance
from theory_checks.enumeration import optimum
from theory_checks.optimality_gap import bound_of, counts, optimality_gap, row_objectives, windowed_optimum
from theory_checks.perspective import Bound, ascended, dual, equicorrelated, perspective_bound, proved, relax, shares
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

CASE = Case("autoregressive", rows=3, inputs=8, seed=3)
FAMILIES = ("autoregressive", "language_like", "duplicated", "orthogonal", "scaled")


def drifted(case):
    """The layer with a drift that has nothing to do with it."""
    R = case.some_weight(11) / 4
    return LayerProblem(case.judge.W0, case.judge.gram, R, 0.0, case.judge.scale)


def exactly(A):
    return [[Fraction(float(a)) for a in row] for row in A]


def is_semidefinite(A):
    """Elimination without rounding: no pivot is negative, and a zero pivot stands in an empty row."""
    A, n = exactly(A), len(A)
    for k in range(n):
        if A[k][k] < 0 or (A[k][k] == 0 and any(A[k][j] for j in range(k, n))):
            return False
        for i in range(k + 1, n):
            if A[k][k]:
                share = A[i][k] / A[k][k]
                A[i] = [a - share * b for a, b in zip(A[i], A[k], strict=True)]
    return True


def exact_dual(problem, d, keep, q):
    """b(q) of every row, equation (3) word for word on fractions."""
    H, n = exactly(problem.H), len(d)
    d = [Fraction(float(x)) for x in d]
    A = [[H[i][j] - (d[i] if i == j else 0) for j in range(n)] for i in range(n)]
    R = np.zeros_like(problem.W0) if problem.R is None else problem.R
    values = []
    for w0, r, v, kept in zip(*map(exactly, (problem.W0, R, q)), keep.tolist(), strict=True):
        Aq = [sum(a * x for a, x in zip(row, v, strict=True)) for row in A]
        a = [x + y for x, y in zip(Aq, r, strict=True)]
        cost = [(d[j] * w0[j] - a[j]) ** 2 / (2 * d[j]) for j in range(n)]
        width = n // len(kept)
        least = sum(
            sum(sorted(cost[i * width : (i + 1) * width])[: width - stay], Fraction(0)) for i, stay in enumerate(kept)
        )
        bent = sum(x * x / (2 * y) for x, y in zip(a, d, strict=True))
        values.append(least - bent - sum(x * y for x, y in zip(v, Aq, strict=True)) / 2)
    return values


def brute_force(problem, supports):
    """(rows,) the least f over supports, each by the normal equations of its kept inputs."""
    best = np.full(len(problem.W0), np.inf)
    for support in supports:
        S, R = np.flatnonzero(support), 0.0 if problem.R is None else problem.R
        W = np.zeros_like(problem.W0)
        W[:, S] = np.linalg.solve(problem.H[np.ix_(S, S)], (problem.W0 @ problem.H - R)[:, S].T).T
        best = np.minimum(best, row_objectives(problem, W)[0])
    return best


def masks(n, keep, width):
    """Every support that keeps as many inputs in each window."""
    windows = [[*combinations(range(start, start + width), keep)] for start in range(0, n, width)]
    return [np.isin(np.arange(n), sum(choice, ())) for choice in product(*windows)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mu", [0.0, 1e-9, 0.1])
def test_what_is_proved_positive_semidefinite_is_in_exact_arithmetic(family, mu):
    H = Case(family, inputs=6, seed=5).problem.normalised(mu).H
    d = equicorrelated(H)
    assert is_semidefinite(H - np.diag(proved(H, d)))
    assert is_semidefinite(H - np.diag(proved(H, 100 * d)))
    assert not is_semidefinite(H - np.diag(np.float64(1.001) * d))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", [[[3]], [[1, 2, 2]]])
def test_the_computed_bound_is_below_the_exact_dual_value(family, keep):
    case = Case(family, rows=2, inputs=6, seed=7)
    keep = np.tile(keep, (case.rows, 1))
    for problem in (case.judge, drifted(case), case.problem.normalised(1e-9)):
        d = proved(problem.H, equicorrelated(problem.H))
        for q in (0 * case.W0, relax(problem, d, keep, 30).w - problem.W0, case.some_weight(12)):
            found, exact = dual(problem, d, keep, q), exact_dual(problem, d, keep, q)
            assert (found.rounding > 0).all()
            assert all(Fraction(low) <= value for low, value in zip(found.proved, exact, strict=True))
            assert all(value <= Fraction(b + e) for b, e, value in zip(*found, exact, strict=True))


def test_a_bound_that_keeps_its_rounding_is_noticed_by_exact_arithmetic():
    """For equal diagonal entries the dual value is the optimum itself: what is added to it stands above."""
    problem = LayerProblem.of(CASE.W0, np.eye(8) / 3)
    keep = np.full((3, 1), 4)
    d = proved(problem.H, equicorrelated(problem.H))
    found, exact = dual(problem, d, keep, 0 * CASE.W0), exact_dual(problem, d, keep, 0 * CASE.W0)
    assert all(Fraction(low) <= value for low, value in zip(found.proved, exact, strict=True))
    assert not any(Fraction(b + e) <= value for b, e, value in zip(*found, exact, strict=True))


@settings(max_examples=20)
@given(case=cases().filter(lambda case: case.inputs in (4, 8)))
def test_no_support_is_below_the_bound_with_drift_and_in_windows(case):
    k = round(case.keep * case.inputs)
    for problem in (case.judge, drifted(case)):
        scale = np.square(problem.W0) @ np.abs(np.linalg.inv(problem.H)).sum(axis=1) + np.square(problem.W0).sum(axis=1)
        for width, stay in ((case.inputs, k), (4, 2)):
            keep = np.full((case.rows, case.inputs // width), stay)
            bound = perspective_bound(problem, keep, iters=10, ascents=1)
            best = brute_force(problem, masks(case.inputs, stay, width))
            rounding = allowance(float(np.linalg.cond(problem.H)), case.inputs) * (np.abs(best) + scale)
            assert (bound.proved <= best + rounding).all()


def test_windows_are_enumerated_as_by_brute_force():
    best = brute_force(CASE.judge, masks(8, 2, 4))
    rounding = allowance(float(np.linalg.cond(CASE.judge.H)), 8) * (best + 1)
    assert (np.abs(windowed_optimum(CASE.judge, 2, 4) - best) <= rounding).all()
    assert (best >= optimum(CASE.judge, 4).F).all()


def test_more_work_proves_more():
    keep = np.full((3, 1), 4)
    at_zero = dual(CASE.judge, proved(CASE.judge.H, equicorrelated(CASE.judge.H)), keep, 0 * CASE.W0)
    steps, ascent = (perspective_bound(CASE.judge, keep, iters=100, ascents=n) for n in (0, 2))
    assert (at_zero.proved > 0).all()
    assert (steps.proved > at_zero.value + at_zero.rounding).all()
    assert ascent.proved.sum() > (steps.value + steps.rounding).sum()


@pytest.mark.parametrize("keep", [[[0, 0]], [[2, 4]], [[1, 3]]])
def test_the_shares_of_a_window_add_up_to_what_it_keeps(keep):
    keep, u = np.tile(keep, (3, 1)), CASE.some_weight(5)
    d, t = CASE.rng(6).uniform(0.1, 1, 8), 2.0
    for start in (None, np.zeros(6), np.full(6, 100.0)):
        z, nu = shares(u, d, t, keep, start)
        assert ((z >= 0) & (z <= 1)).all()
        assert (np.abs(z.reshape(3, 2, 4).sum(axis=2) - keep) <= allowance(8 + d.sum() / t, 8)).all()
        inside = (z > 0) & (z < 1)
        same = np.abs(u) * np.sqrt(d) * np.repeat(nu, 4).reshape(3, 8) - d / t
        assert (np.abs(z - same)[inside] <= allowance(2 + d.sum() / t, 8)).all()


def test_an_input_without_weight_has_no_share():
    z, _ = shares(np.array([[0.0, 0.0, 1.0, 2.0]]), np.ones(4), 1.0, np.array([[3]]))
    assert z.tolist() == [[0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("family", ["rank_deficient", "dead", "duplicated"])
def test_the_ascent_stays_where_the_gram_is_singular(family):
    H, d = Case(family, inputs=8).problem.H, np.full(8, 2.0)
    assert ascended(H, d, np.ones(8), 1.0) is d
    assert ascended(np.eye(8), np.full(8, 0.5), np.full(8, np.inf), 1.0).tolist() == [0.5] * 8


def test_the_ascent_leaves_the_difference_positive_definite_and_raises_what_it_climbs():
    H, d = CASE.judge.H, proved(CASE.judge.H, equicorrelated(CASE.judge.H))
    slope = np.arange(1.0, 9.0)
    after = ascended(H, d / 2, slope, 0.01)
    assert is_semidefinite(H - np.diag(after))
    assert slope @ after > slope @ d / 2


def test_a_singular_gram_has_no_bound_and_says_so():
    singular = LayerProblem.of(np.ones((2, 4)), np.ones((4, 4)))
    gap = optimality_gap(singular, np.array([[1.0, 1, 0, 0]] * 2), bound_of(singular, np.array([[2], [2]])))
    assert gap.outcome == "not applicable"
    assert "not positive definite" in gap.applies


def test_a_diagonal_that_rounding_eats_proves_nothing(monkeypatch):
    smallest = np.nextafter(0.0, 1.0)
    assert not (proved(smallest * np.eye(3), np.ones(3)) > 0).any()
    monkeypatch.setattr(perspective, "proved", lambda H, d: 0 * d)
    gap = optimality_gap(CASE.judge, CASE.judge.W0, bound_of(CASE.judge, np.full((3, 1), 4)))
    assert gap.applies == "H - D is lost in rounding: no diagonal is proved"


def test_counts_are_those_of_the_pattern_or_of_the_weight():
    W = np.array([[1.0, 0, 2, 3], [0, 0, 0, 4]])
    assert counts(KeepNofM(1, 2), W).tolist() == [[1, 1], [1, 1]]
    assert counts(KeepPerRow(3), W).tolist() == [[3], [3]]
    assert counts(KeepPerLayer(4), W).tolist() == [[3], [1]]


def test_a_diagonal_chosen_on_some_rows_bounds_all_of_them():
    case = Case("autoregressive", rows=9, inputs=8, seed=1)
    keep = np.full((9, 1), 4)
    some = perspective_bound(case.judge, keep, iters=60, ascents=1, sample=3)
    best = optimum(case.judge, 4).F
    rounding = allowance(float(np.linalg.cond(case.judge.H)), 8) * (best + np.square(case.judge.W0).sum(axis=1))
    assert len(some.value) == 9
    assert (some.proved <= best + rounding).all()
    at_zero = dual(case.judge, proved(case.judge.H, equicorrelated(case.judge.H)), keep, 0 * case.W0)
    assert (some.proved > at_zero.value).all()


def test_an_objective_below_the_bound_fails():
    """The bound of the best support, against the same weight in a layer of half the cost."""
    best, keep = optimum(CASE.judge, 7), np.full((3, 1), 7)
    bound = perspective_bound(CASE.judge, keep)
    assert optimality_gap(CASE.judge, best.W, bound).outcome == "holds"
    cheaper = LayerProblem(CASE.judge.W0, Gram(CASE.judge.H / 4), None, 0.0, CASE.judge.scale)
    assert optimality_gap(cheaper, best.W, bound).outcome == "fails"
    boastful = Bound(best.F * 2, bound.rounding)
    assert optimality_gap(CASE.judge, best.W, boastful).outcome == "fails"
