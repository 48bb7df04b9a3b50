"""The pruners that update weights, side by side: their order on language-like layers, and layers made to hurt them."""

import numpy as np
import pytest

import solvers
from solvers import LayerProblem, parse
from theory_checks import certify, certify_saved
from theory_checks.support import exact_count
from theory_checks.synthetic import Case, language_like

ORDER = ("magnitude", "wanda", "sparsegpt", "admm", "alps")
UPDATING = ("sparsegpt", "admm", "admm-released", "alps", "fista")
RNG = np.random.default_rng(11)


def _error(name, seed, sparsity):
    rng = np.random.default_rng(seed)
    X = language_like(rng, 400, 48)
    H = X.T @ X / len(X)
    problem = LayerProblem.of(rng.standard_normal((24, 48)), (H + H.T) / 2)
    return problem.relative_error(solvers.run(solvers.find(name), problem, parse(sparsity).on((24, 48))).weight)


@pytest.mark.parametrize("sparsity", ["50%", "70%"])
def test_the_more_a_method_solves_the_smaller_its_error(sparsity):
    means = [np.mean([_error(name, seed, sparsity) for seed in range(5)]) for name in ORDER]
    assert means == sorted(means, reverse=True), dict(zip(ORDER, means, strict=True))
    assert len(set(means)) == len(means)


def _of_condition(kappa, n=12):
    Q = np.linalg.qr(RNG.standard_normal((n, n)))[0]
    H = Q * np.geomspace(1, 1 / kappa, n) @ Q.T
    return (H + H.T) / 2


def _with_outlier(n=12):
    X = RNG.standard_normal((60, n))
    X[:, 5] *= 1e4
    X[:, 6] = 0.0
    return X.T @ X / 60


HARD = {
    "condition 1e12": _of_condition(1e12),
    "outlier 1e4 beside a dead input": _with_outlier(),
    "rank one": np.ones((12, 12)),
    "rank deficient": Case("rank_deficient", rows=2, inputs=12).problem.H,
    "nothing lives": np.zeros((12, 12)),
    "nearly copies": Case("duplicated", rows=2, inputs=12).problem.H,
}


@pytest.mark.parametrize("sparsity", ["50%", "50%/layer", "2:4", "1:4"])
@pytest.mark.parametrize("name", UPDATING)
@pytest.mark.parametrize("gram", HARD)
def test_a_hard_layer_is_solved_with_the_exact_count_and_by_admm_no_worse_than_by_wanda(gram, name, sparsity):
    W, H = Case(rows=4, inputs=12, seed=9).W0, HARD[gram]
    problem, budget = LayerProblem.of(W, H), parse(sparsity).on(W.shape)
    run = solvers.run(solvers.find(name), problem, budget)
    assert np.isfinite(run.weight).all()
    assert exact_count(budget, W, run.weight).outcome == "holds"
    outcomes = [c.outcome for c in certify(solvers.find(name), run, "none")]
    outcomes += [c.outcome for c in certify_saved(run.problem, budget, run.weight)]
    assert "fails" not in outcomes
    wanda = solvers.run(solvers.find("wanda"), problem, budget).weight
    assert name == "sparsegpt" or problem.value(run.weight) <= problem.value(wanda)


def test_columns_decided_together_before_any_is_made_good_can_be_worse_than_wanda():
    """Of two inputs that nearly copy each other the left one costs nothing while the right one stays: all of them go.

    What is left to remove on the right then has no copy any more.
    """
    problem = LayerProblem.of(Case(rows=4, inputs=12, seed=9).W0, HARD["nearly copies"])
    for sparsity in ("50%", "50%/layer"):
        budget = parse(sparsity).on(problem.shape)
        worse, wanda = (solvers.run(solvers.find(m), problem, budget).weight for m in ("sparsegpt", "wanda"))
        assert problem.value(worse) > problem.value(wanda)
        assert np.count_nonzero(worse[:, :6]) < np.count_nonzero(worse[:, 6:])


@pytest.mark.parametrize("name", UPDATING)
def test_a_layer_of_one_weight(name):
    W, H = np.array([[2.0]]), np.array([[3.0]])
    kept, gone = (solvers.solve(W, H, method=name, sparsity=s).weight.tolist() for s in ("0%", "100%"))
    assert (kept, gone) == ([[2.0]], [[0.0]])


@pytest.mark.parametrize("name", UPDATING)
def test_a_penalty_is_refused_in_words(name):
    with pytest.raises(solvers.Refusal, match=rf"{name} cannot meet L0\(lam=1.0\); it can do 50%, 50%/layer, 2:4"):
        solvers.solve(np.ones((2, 4)), np.eye(4), method=name, sparsity=solvers.L0(1.0))
