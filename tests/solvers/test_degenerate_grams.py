"""Grams that are singular, dead in part, dominated by one input, or of condition 1e12: certified results or a refusal.

Whatever stands in the table of methods goes through every Gram. The objective is evaluated in rational arithmetic.
"""

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

import solvers
from solvers import Gram, L0, KeepPerRow, LayerProblem, Refusal, linalg, parse
from solvers.array import Place
from solvers.fista_pruner import STARTS
from solvers.gpu import refine as fast_refine
from solvers.gpu.swaps import swaps as fast_swaps
from solvers.linalg import RESIDUAL, least_squares_exact, require_positive_semidefinite
from theory_checks import certify, certify_saved
from theory_checks.certificate import allowance
from theory_checks.exchange import one_swap_sampled, swaps_descend
from theory_checks.stationarity import masked_least_squares, refinement_descends
from theory_checks.support import exact_count

ROWS, INPUTS, TOKENS = 3, 16, 64
DEAD, OUTLIER = [3, 9], 5
RNG = np.random.default_rng(11)
W0 = RNG.standard_normal((ROWS, INPUTS))
X = RNG.standard_normal((TOKENS, INPUTS))
LIVE = np.where(np.isin(np.arange(INPUTS), DEAD), 0.0, 1.0)
LOUD = np.where(np.arange(INPUTS) == OUTLIER, 1e4, 1.0)
TURN = np.linalg.qr(RNG.standard_normal((INPUTS, INPUTS)))[0] * np.geomspace(1.0, 1e-6, INPUTS)
SCALES = np.exp2(np.round(np.linspace(-10, 10, INPUTS)))  # squares from 1 to 1e12


def mean(X):
    H = X.T @ X / len(X)
    return (H + H.T) / 2


def float32_mean(X):
    """A Gram of float32 sums: indefinite where rounding made it so."""
    X = X.astype(np.float32)
    return (X.T @ X / np.float32(len(X))).astype(np.float64)


GRAMS = {
    "fewer tokens than inputs": mean(X[:6]),
    "one token": mean(X[:1]),
    "copies of one input": np.ones((INPUTS, INPUTS)),
    "rank one in float32": float32_mean(np.outer(X[:, 0], X[0])),
    "dead inputs": mean(X * LIVE),
    "nothing lives": np.zeros((INPUTS, INPUTS)),
    "an outlier of 1e4": mean(X * LOUD),
    "few tokens, dead inputs and an outlier": mean(X[:5] * LIVE * LOUD),
    "condition 1e12 by correlation": mean(TURN.T),
    "condition 1e12 by scale": mean(X * SCALES),
}
SINGULAR = {
    name: np.linalg.matrix_rank(H, hermitian=True) < INPUTS or name == "rank one in float32"
    for name, H in GRAMS.items()
}
RIDGED = ({}, {"refine": "exact"}, {"refine": "gradient:30"}, {"swaps": "all"})
BARE = ({"mu": 0}, {"refine": "exact", "refine_mu": 0}, {"swaps": "all", "refine_mu": 0})
SAYS = r"Gram on the support of row \d is not positive definite.*No substitute|refit of row \d.* did not reach a relative"
PLACES = {dtype: Place.of(np.zeros(1), dtype) for dtype in ("float64", "float32")}
PRUNERS = [name for name, method in solvers.METHODS.items() if method.prunes]
TWINS = [name for name, method in solvers.METHODS.items() if method.gpu]


def layer(gram):
    return LayerProblem.of(W0, GRAMS[gram])


def objective(problem, W):
    """f(W) as a fraction: nothing is rounded."""
    H = [[Fraction(h) for h in row] for row in problem.H.tolist()]
    total = Fraction(0)
    for w, w0 in zip(W.tolist(), problem.W0.tolist(), strict=True):
        d = [Fraction(a) - Fraction(b) for a, b in zip(w, w0, strict=True)]
        total += sum(d_i * sum(h * d_j for h, d_j in zip(row, d, strict=True)) for d_i, row in zip(d, H, strict=True))
    return total / 2


def judge(method, run, budget, problem, refine="none"):
    """Finite weights, exact counts, every certificate, and the objective that the solvers compute against the exact."""
    assert np.isfinite(run.weight).all()
    certificates = certify(method, run, refine)
    if method.prunes:
        certificates += [exact_count(budget, problem.W0, run.weight), *certify_saved(run.refit, budget, run.weight)]
    assert not [str(c) for c in certificates if c.outcome == "fails"]
    f = objective(problem, run.weight)
    assert abs(f - Fraction(problem.value(run.weight))) <= allowance(problem.magnitude(run.weight), INPUTS)
    return f


def prune(name, problem, sparsity="50%", place=None, **options):
    """A run that is judged; (run, the exact objective, the budget)."""
    method, budget = solvers.find(name), parse(sparsity).on(problem.shape)
    run = solvers.run(method, problem, budget, place=place, **options)
    return run, judge(method, run, budget, problem, options.get("refine", "none")), budget


def accepts(name, sparsity):
    return isinstance(parse(sparsity).on(W0.shape), solvers.find(name).patterns)


def one_that(name):
    """A pattern that the method can do."""
    return next(text for text in ("50%", "50%/layer") if accepts(name, text))


@pytest.mark.parametrize("gram", GRAMS)
def test_they_are_grams(gram):
    assert np.array_equal(linalg.symmetric(GRAMS[gram]), GRAMS[gram])
    require_positive_semidefinite(GRAMS[gram])


def test_one_of_them_is_indefinite_by_rounding_and_two_have_condition_1e12():
    assert np.linalg.eigvalsh(GRAMS["rank one in float32"])[0] < -allowance(1.0, INPUTS)
    for name in ("condition 1e12 by correlation", "condition 1e12 by scale"):
        assert 1e11 < np.linalg.cond(GRAMS[name]) < 1e14


@pytest.mark.parametrize("gram", GRAMS)
@pytest.mark.parametrize("name", solvers.METHODS)
def test_every_pattern_is_met_with_a_ridge(name, gram):
    for sparsity in filter(lambda text: accepts(name, text), ("50%", "50%/layer", "2:4")):
        prune(name, layer(gram), sparsity)
    for options in RIDGED[1:]:
        prune(name, layer(gram), one_that(name), **options)


@pytest.mark.parametrize("gram", GRAMS)
@pytest.mark.parametrize("name", solvers.METHODS)
def test_without_a_ridge_the_result_is_certified_or_refused_where_the_gram_is_singular(name, gram):
    for options in BARE:
        bare(name, gram, **options)


def bare(name, gram, **options):
    try:
        prune(name, layer(gram), one_that(name), **options)
    except Refusal as refusal:
        assert SINGULAR[gram]
        assert "refine_mu" in options
        with pytest.raises(Refusal, match=SAYS):
            raise refusal from None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("gram", GRAMS)
@pytest.mark.parametrize("name", TWINS)
def test_fast_twins_too(name, gram, place):
    twin(name, gram, PLACES[place])


@pytest.mark.parametrize("gram", GRAMS)
def test_fast_twins_on_torch(gram):
    torch = pytest.importorskip("torch")
    for name in TWINS:
        twin(name, gram, Place.of(torch.zeros(1), "float32"))


def twin(name, gram, place):
    empty = gram == "nothing lives" and place.dtype == "float32" and not solvers.find(name).normalised
    for sparsity, options in (("50%", {"refine": "exact"}), ("2:4", {})):
        try:
            prune(name, layer(gram), sparsity, place=place, **options)
        except Refusal as refusal:
            assert empty, refusal
            assert "leave the range of float32. Use the reference solver" in str(refusal)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("gram", GRAMS)
def test_swaps_of_the_twin_too(gram, place):
    for refine_mu in (1e-2, 0.0):
        problem = layer(gram).normalised(refine_mu)
        for sparsity in ("50%", "2:4"):
            budget = parse(sparsity).on(problem.shape)
            before = budget.prox(problem.W0)
            try:
                after, gains = fast_swaps(problem, budget, before, None, PLACES[place])
            except Refusal as refusal:
                assert SINGULAR[gram]
                assert refine_mu == 0
                with pytest.raises(Refusal, match=SAYS):
                    raise refusal from None
                continue
            certificates = [
                exact_count(budget, problem.W0, after),
                swaps_descend(problem, budget, least_squares_exact(problem, before != 0), after, gains),
                one_swap_sampled(problem, budget, after, np.ones(ROWS, dtype=bool)),
                masked_least_squares(problem, after != 0, after, tol=RESIDUAL),
            ]
            assert not [str(c) for c in certificates if c.outcome == "fails"]
