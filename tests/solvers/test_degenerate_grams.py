"""Grams that are singular, dead in part, dominated by one input, or of condition 1e12: certified results or a refusal.

Whatever stands in the table of methods goes through every Gram. The objective is evaluated in rational arithmetic.
"""

import contextlib
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import solvers
from solvers import L0, Gram, LayerProblem, Refusal, linalg, parse
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
RIDGED = {"50%": {"swaps": "all"}, "50%/layer": {"refine": "gradient:30"}, "2:4": {"refine": "exact"}}
BARE = ({"mu": 0}, {"refine": "exact", "refine_mu": 0}, {"swaps": "all", "refine_mu": 0})
SAYS = (
    r"Gram on the support of row \d is not positive definite.*No substitute|refit of row \d.* did not reach a relative"
)
PLACES = {dtype: Place.of(np.zeros(1), dtype) for dtype in ("float64", "float32")}
PRUNERS = [name for name, method in solvers.METHODS.items() if method.prunes]
WORST = ("rank one in float32", "nothing lives", "few tokens, dead inputs and an outlier")
SOME_GRAMS = [name if name in WORST else pytest.param(name, marks=pytest.mark.slow) for name in GRAMS]
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


@pytest.mark.parametrize("gram", SOME_GRAMS)
@pytest.mark.parametrize("name", solvers.METHODS)
def test_every_pattern_is_met_with_a_ridge(name, gram):
    for sparsity, options in RIDGED.items():
        if accepts(name, sparsity):
            prune(name, layer(gram), sparsity, **options)


@pytest.mark.parametrize("gram", SOME_GRAMS)
@pytest.mark.parametrize("name", solvers.METHODS)
def test_without_a_ridge_the_result_is_certified_or_refused_where_the_gram_is_singular(name, gram):
    for options in BARE:
        bare(name, gram, **options)


def bare(name, gram, **options):
    try:
        prune(name, layer(gram), one_that(name), **options)
    except Refusal as refusal:
        expected(refusal, SAYS, SINGULAR[gram] and "refine_mu" in options)


def loud_refit(place):
    """Weights whose squares leave the range of float32 are refused, as all twins refuse them."""
    problem = layer("one token").around(1e30 * W0)
    with np.errstate(all="ignore"), contextlib.suppress(Refusal):
        fast_refine.refine(problem, W0 != 0, problem.W0, "gradient:30", place)
        raise AssertionError("weights of 1e30 were refined in float32")


def expected(refusal, words, where):
    """A refusal is right there, and says so."""
    assert where, refusal
    assert re.search(words, str(refusal)), refusal


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("gram", SOME_GRAMS)
@pytest.mark.parametrize("name", TWINS)
def test_fast_twins_too(name, gram, place):
    twin(name, gram, PLACES[place])


@pytest.mark.slow
@pytest.mark.parametrize("gram", [name for name in GRAMS if "rank one" in name or "few" in name or "nothing" in name])
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
            expected(refusal, "leave the range of float32. Use the reference solver", empty)


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
                expected(refusal, SAYS, SINGULAR[gram] and refine_mu == 0)
                continue
            certificates = [
                exact_count(budget, problem.W0, after),
                swaps_descend(problem, budget, least_squares_exact(problem, before != 0), after, gains),
                one_swap_sampled(problem, budget, after, np.ones(ROWS, dtype=bool)),
                masked_least_squares(problem, after != 0, after, tol=RESIDUAL),
            ]
            assert not [str(c) for c in certificates if c.outcome == "fails"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("gram", GRAMS)
def test_refits_of_the_twin_without_a_ridge_too(gram, place):
    for how in ("exact", "gradient:30"):
        bare_refit(gram, how, PLACES[place])


def bare_refit(gram, how, place):
    problem = layer(gram).normalised(0.0)
    before = parse("50%").on(problem.shape).prox(problem.W0)
    try:
        after = fast_refine.refine(problem, before != 0, before, how, place)
    except Refusal as refusal:
        expected(refusal, "did not reach a relative residual", SINGULAR[gram])
        return
    certificates = [refinement_descends(problem, before, after)]
    if how == "exact":
        certificates.append(masked_least_squares(problem, before != 0, after, tol=RESIDUAL))
    assert not [str(c) for c in certificates if c.outcome != "holds"]


def knows_inputs(name):
    return solvers.find(name).evidence != "none"


@pytest.mark.parametrize("name", [*filter(knows_inputs, PRUNERS)])
def test_what_the_weights_of_dead_inputs_were_changes_no_weight_of_a_live_one(name):
    dead_weights_never_matter(name)


def dead_weights_never_matter(name):
    live = LIVE > 0
    for sparsity in filter(lambda text: accepts(name, text), ("50%", "50%/layer", "2:4")):
        for gram in ("dead inputs", "few tokens, dead inputs and an outlier"):
            here = layer(gram)
            there = LayerProblem(np.where(live, W0, 7 - 3 * W0), here.gram)
            run, other = (prune(name, problem, sparsity, refine="exact")[0] for problem in (here, there))
            assert np.array_equal(run.weight != 0, other.weight != 0)
            assert not run.weight[:, ~live].any()
            stretch = run.refit.lipschitz / run.refit.gram.ridge  # eigenvectors of one value mix by rounding
            size = run.refit.scaled(np.abs(run.weight) + np.abs(other.weight) + np.abs(W0)).max()
            far = np.abs(run.swapped - other.swapped)[:, live].max()
            assert far <= allowance(float(size) * stretch, INPUTS)


def scales_inputs(name):
    method = solvers.find(name)
    return method.normalised or method.evidence == "norms"


@pytest.mark.parametrize("name", [*filter(scales_inputs, PRUNERS)])
def test_an_outlier_or_a_condition_of_scale_changes_not_a_bit_of_what_the_others_get(name):
    scale_never_matters(name)


def scale_never_matters(name):
    """Inputs times powers of two, weights by them: the same layer, bit for bit, on the unit diagonal."""
    for H in (mean(X), mean(X[:6])):
        for by in (np.where(LOUD > 1, 2.0**14, 1.0), SCALES):
            loud = LayerProblem.of(W0 / by, H * by * by[:, None])
            plain = LayerProblem.of(W0, H)
            one, two = (prune(name, problem, one_that(name), refine="exact")[0].weight for problem in (plain, loud))
            assert np.array_equal(one, two * by)


@pytest.mark.parametrize("gram", SOME_GRAMS)
@pytest.mark.parametrize("name", solvers.METHODS)
def test_nothing_ends_above_what_it_descends_from(name, gram):
    descends(name, gram)


def descends(name, gram):
    """With its budget fixed from the first step a descent begins at Wanda's weights; FISTA keeps the best rounded."""
    method, problem = solvers.find(name), layer(gram)
    budget = parse(one_that(name)).on(problem.shape)
    if "descends" in method.promises:
        run = solvers.run(method, problem, budget, ramp=0.0)
        start = budget.prox(run.problem.W0)
        above(run.problem, run.found.weight, start)
        penalty = L0(0.1 * float(np.square(run.problem.W0).mean()))
        run = solvers.run(method, problem, penalty)
        above(run.problem, run.found.weight, run.problem.W0, Fraction(penalty.lam))
    if "start" in method.options():
        for start in STARTS:
            W = method.run(problem, budget, start=start, rounds=4).weight
            above(problem, W, budget.prox(STARTS[start](problem, budget).weight))


def above(problem, W, start, lam=Fraction(0)):
    """F(W) <= F(start), both exact, to the rounding of the comparisons that the method made."""
    F, F0 = (objective(problem, V) + lam * int(np.count_nonzero(V)) for V in (W, start))
    assert F0 + Fraction(allowance(problem.magnitude(start) + float(F0), ROWS * INPUTS)) >= F


@pytest.mark.parametrize("name", PRUNERS)
def test_one_token_is_reproduced_by_whatever_support(name):
    """H = vv': grad f(W) = <W - W0, v> v, so a relative residual of 1e-6 is a relative error of 1e-12."""
    problem = layer("one token")
    run, f, _ = prune(name, problem, one_that(name), refine="exact", refine_mu=0)
    dense = float(objective(problem, np.zeros_like(W0)))
    assert f <= RESIDUAL**2 * dense + allowance(problem.magnitude(run.weight), INPUTS)


def exact_refit(problem, S, row):
    """The least f of a row on a support in rational arithmetic: Gauss, without a pivot, on a definite H_SS."""
    at = np.flatnonzero(S)
    H, w0 = [[Fraction(h) for h in row] for row in problem.H.tolist()], [Fraction(w) for w in problem.W0[row].tolist()]
    A = [[H[i][j] for j in at] + [sum(h * w for h, w in zip(H[i], w0, strict=True))] for i in at]
    for k in range(len(A)):
        A[k] = [a / A[k][k] for a in A[k]]
        for i in set(range(len(A))) - {k}:
            A[i] = [a - A[i][k] * b for a, b in zip(A[i], A[k], strict=True)]
    d = [-w for w in w0]
    for i, line in zip(at, A, strict=True):
        d[i] += line[-1]
    return sum(d_i * sum(h * d_j for h, d_j in zip(line, d, strict=True)) for d_i, line in zip(d, H, strict=True)) / 2


@pytest.mark.parametrize("gram", ["condition 1e12 by correlation", "condition 1e12 by scale", "an outlier of 1e4"])
@pytest.mark.parametrize("refine_mu", [1e-2, 0.0])
def test_the_exact_refit_is_as_near_to_the_rational_one_as_its_residual_says(gram, refine_mu):
    """f(W) - f(W*) = r'H_SS^-1 r / 2 with r = grad_S f(W), |r| <= tol |grad_S f(0)| and |grad_S f(0)|^2 <= 2 L f(0)."""
    run, _, _ = prune("maiht", layer(gram), refine="exact", refine_mu=refine_mu)
    problem, spectrum = run.refit, np.linalg.eigvalsh(run.refit.H)
    for row, W in enumerate(run.refined):
        part = LayerProblem(problem.W0[row : row + 1], problem.gram)
        gap = objective(part, W[None]) - exact_refit(problem, run.found.weight[row] != 0, row)
        dense = float(objective(part, np.zeros_like(W)[None]))
        assert gap >= 0
        stretch = problem.lipschitz / float(spectrum[0])
        assert gap <= stretch * (RESIDUAL * np.sqrt(dense) + allowance(float(np.sqrt(dense)), INPUTS)) ** 2


def _with_a_ridge_where_it_fails(A, what):
    """What released code does: a failed factorisation is tried again with something on the diagonal."""
    try:
        return linalg.cholesky(A, what)
    except Refusal:
        return linalg.cholesky(A + 0.01 * np.eye(len(A)), what)


def _trusting(problem, mask, W, goal):
    return np.zeros(len(W), dtype=bool)


def _dead_compete(self, mu, normalised=Gram.normalised):
    gram, scale = normalised(self, mu)
    return gram, np.where(self.norms > 0, scale, 1.0)


def _not_a_number(problem, sparsity):
    W = sparsity.prox(problem.W0)
    W[W != 0] /= np.where(np.diag(problem.H).min() > 0, 1.0, np.nan)
    return solvers.Solution(W)


def _uphill(problem, sparsity, s, k, step=solvers.iht.step):
    return step(LayerProblem(problem.W0, problem.gram, -2 * problem.grad(k.x)), sparsity, s, k)


def _what_it_tried_last(problem, budget, *, start="wanda", rounds=4):
    return solvers.Solution(budget.prox(2 * STARTS[start](problem, budget).weight))


BROKEN = {
    **solvers.METHODS,
    "wanda": replace(solvers.METHODS["wanda"], run=_not_a_number),
    "fista": replace(solvers.METHODS["fista"], run=_what_it_tried_last),
}
EXACT, TWO = {"refine": "exact", "refine_mu": 0}, {"swaps": 2, "refine_mu": 0}
FLOAT32, FEW = "rank one in float32", "fewer tokens than inputs"


@pytest.mark.parametrize(
    ("target", "defect", "check"),
    [
        ("solvers.swaps.cholesky", _with_a_ridge_where_it_fails, lambda: bare("magnitude", FEW, **TWO)),
        ("solvers.linalg.unreached", _trusting, lambda: bare("maiht", FLOAT32, **EXACT)),
        ("solvers.gpu.refine.unreached", _trusting, lambda: bare_refit(FLOAT32, "exact", PLACES["float64"])),
        (
            "solvers.gpu.refine.require_representable",
            lambda problem, place: None,
            lambda: loud_refit(PLACES["float32"]),
        ),
        ("solvers.problem.Gram.normalised", _dead_compete, lambda: dead_weights_never_matter("maiht")),
        (
            "solvers.problem.Gram.norms",
            property(lambda self: np.minimum(np.sqrt(np.diag(self.H)), 10.0)),
            lambda: scale_never_matters("wanda"),
        ),
        ("solvers.METHODS", BROKEN, lambda: prune("wanda", layer("dead inputs"))),
        ("solvers.iht.step", _uphill, lambda: descends("iht", "one token")),
        ("solvers.METHODS", BROKEN, lambda: descends("fista", FEW)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_planted_defect_is_noticed(target, defect, check, monkeypatch):
    check()
    monkeypatch.setattr(target, defect)
    with pytest.raises(AssertionError):
        check()
