"""Bounds that must lie above, Choleskys that must refuse, and least squares by two texts."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given

from solvers import linalg
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from theory_checks import allowance
from theory_checks.certify import RESIDUAL
from theory_checks.strategies import cases
from theory_checks.synthetic import Case


def _spectrum(values, seed=0):
    n = len(values)
    Q = scipy.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    H = (Q * values) @ Q.T
    return (H + H.T) / 2


def _rank_one(n):
    v = np.random.default_rng(n).standard_normal(n)
    return np.outer(v, v)


NASTY = {
    **{f"hilbert {n}": scipy.linalg.hilbert(n) for n in (2, 12, 64, 150)},
    **{f"rank one {n}": _rank_one(n) for n in (1, 5, 100, 300)},
    **{f"condition 1e12, {n}": _spectrum(np.logspace(0, -12, n)) for n in (10, 100, 300)},
    "identity 200": np.eye(200),
    "two equal peaks 120": _spectrum(np.r_[[7.0, 7.0], np.ones(118)]),
    "tiny 80": 1e-200 * _spectrum(np.linspace(1, 2, 80)),
    "huge 80": 1e200 * _spectrum(np.linspace(1, 2, 80)),
    **{f"tokens {n}": Case("language_like", inputs=n).problem.H for n in (64, 65, 128)},
}


@pytest.mark.parametrize("name", NASTY)
def test_the_bound_lies_above_the_largest_eigenvalue_and_within_two_permille(name):
    H = NASTY[name]
    top = np.linalg.eigvalsh(H)[-1]
    assert top - allowance(top, len(H)) <= linalg.lambda_max_bound(H) <= 1.002 * top


@pytest.mark.parametrize("share", [0.5, 0.95, 0.995, 1.5])
@pytest.mark.parametrize("n", [10, 120])
def test_a_wrong_estimate_never_becomes_the_bound(monkeypatch, share, n):
    H = _spectrum(np.linspace(1, 3, n))
    monkeypatch.setattr(linalg, "_lambda_max_estimate", lambda H: share * np.linalg.eigvalsh(H)[-1])
    bound = linalg.lambda_max_bound(H)
    assert 3 - allowance(3, n) <= bound <= np.trace(H) + allowance(float(np.trace(H)), n)
    assert bound < 3.4 or share == 0.5 or share == 1.5


def test_the_bound_of_nothing_still_gives_a_step():
    assert linalg.lambda_max_bound(np.zeros((3, 3))) == np.finfo(np.float64).tiny


def _some_mask(case):
    return case.budgets[0].mask(np.abs(case.some_weight()))


@given(case=cases())
def test_conjugate_gradients_reach_the_exact_solution(case):
    problem, mask = case.judge, _some_mask(case)
    start = np.where(mask, case.W0, 0.0)
    exact, pcg = linalg.least_squares_exact(problem, mask), linalg.least_squares_pcg(problem, mask, start)
    assert not pcg[~mask].any()
    assert not exact[~mask].any()
    origin = np.linalg.norm(np.where(mask, problem.grad(np.zeros_like(pcg)), 0.0), axis=1)
    lowest = problem.gram.ridge  # |H_SS e| >= ridge |e|, and |H_SS e| is the residual
    rounding = allowance(float(np.abs(problem.W0).sum() * np.abs(problem.H).sum()), case.inputs)
    assert (np.linalg.norm(pcg - exact, axis=1) <= (RESIDUAL * origin + rounding) / lowest).all()


def test_the_exact_solution_accounts_for_drift():
    R = np.array([[1.0, 2.0, 3.0]])
    problem = LayerProblem(np.array([[1.0, 1, 1]]), LayerProblem.of(np.ones((1, 3)), np.eye(3)).gram, R)
    mask = np.array([[True, False, True]])
    assert linalg.least_squares_exact(problem, mask).tolist() == [[0, 0, -2]]
    assert np.abs(linalg.least_squares_pcg(problem, mask, np.zeros((1, 3))) - [[0, 0, -2]]).max() <= allowance(2, 3)


def test_a_singular_gram_is_refused_and_nothing_is_substituted():
    problem = LayerProblem.of(np.ones((2, 3)), np.ones((3, 3)))
    words = r"Gram on the support of row 0 is not positive definite.*larger ridge mu\. No substitute was used"
    with pytest.raises(Refusal, match=words):
        linalg.least_squares_exact(problem, np.ones((2, 3), dtype=bool))


@pytest.mark.parametrize("H", [-np.eye(3), np.diag([1.0, 1.0, -0.01]), np.array([[1.0, 2], [2, 1]])])
def test_an_indefinite_gram_is_refused_with_its_eigenvalue(H):
    lowest = np.linalg.eigvalsh(H)[0]
    with pytest.raises(Refusal, match=rf"smallest eigenvalue is {lowest:.3g}, .*No substitute was used"):
        linalg.require_positive_semidefinite(H)


def test_grams_of_float32_tokens_are_accepted_however_singular():
    X = Case("rank_deficient", inputs=60).X.astype(np.float32)
    for H in (X.T @ X, np.ones((4, 4)), np.zeros((2, 2)), np.diag([1.0, 0.0])):
        linalg.require_positive_semidefinite(np.asarray(H, dtype=np.float64))


def _one_after_another(tokens, n, seed):
    """The mean Gram of tokens that are multiples of one input, every product added to a float32 sum in turn."""
    rng = np.random.default_rng([tokens, n, seed])
    v = rng.integers(1, 2**11, n).astype(np.float32)
    sizes = rng.integers(1, 2**8, tokens).astype(np.float32)
    H = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            H[i, j] = np.add.accumulate((sizes * v[i]) * (sizes * v[j]))[-1] / np.float32(tokens)
    return H


@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_rank_one_gram_is_accepted_after_all_the_rounding_that_float32_sums_may_do(n, monkeypatch):
    grams = [_one_after_another(linalg.SUMMED, n, seed) for seed in range(6)]
    for H in grams:
        assert np.array_equal(H, H.T)
        linalg.require_positive_semidefinite(H)
    monkeypatch.setattr(linalg, "SUMMED", 1)  # a rounding or two, as if the sums were exact
    with pytest.raises(Refusal, match="positive semidefinite"):
        linalg.require_positive_semidefinite(min(grams, key=lambda H: np.linalg.eigvalsh(H)[0] / np.trace(H)))


def test_a_loud_input_hides_no_quiet_one_that_is_indefinite():
    H = np.diag([1.0, 1.0, 1e8])
    H[0, 1] = H[1, 0] = 1 + 3 * linalg.gamma(linalg.SUMMED, float(np.finfo(np.float32).eps))
    assert np.linalg.eigvalsh(H)[0] > -np.finfo(np.float32).eps * np.trace(H)
    with pytest.raises(Refusal, match=r"smallest eigenvalue is -.*more than 4096 tokens were added up in float32"):
        linalg.require_positive_semidefinite(H)
    with pytest.raises(Refusal, match="must be symmetric"):
        linalg.symmetric(np.triu(H))


@pytest.mark.parametrize("size", [2.0**-1000, 2.0**-100, 1.0, 2.0**1000])
def test_neither_check_depends_on_the_unit_of_the_inputs(size):
    linalg.require_positive_semidefinite(size * np.ones((3, 3)))
    with pytest.raises(Refusal, match="positive semidefinite"):
        linalg.require_positive_semidefinite(size * np.array([[1.0, 2], [2, 1]]))
    with pytest.raises(Refusal, match="must be symmetric"):
        linalg.symmetric(size * np.array([[1.0, 0.5], [0, 1]]))


def test_a_square_that_vanished_in_float32_leaves_its_products_behind():
    x = np.array([[1.0, 1e-24]], dtype=np.float32)
    H = (x.T @ x).astype(np.float64)
    assert H[0, 1] > H[1, 1] == 0
    linalg.require_positive_semidefinite(H)


def test_rounding_is_symmetrised_and_anything_more_is_refused():
    H = np.array([[1.0, 0.5], [0.5 + 2.0**-40, 1.0]])
    assert np.array_equal(linalg.symmetric(H), linalg.symmetric(H).T)
    with pytest.raises(Refusal, match="must be symmetric; it differs from its transpose by 1"):
        linalg.symmetric(np.array([[1.0, 1.0], [0.0, 1.0]]))
