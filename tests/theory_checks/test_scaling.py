"""Experiments hold at three seeds, are inconclusive when the sample is too small, and notice planted defects."""

import numpy as np
import pytest
from scipy import stats

from solvers import iht, maiht
from theory_checks import chance, probability, scaling, scaling_gaussian, spikes
from theory_checks.certificate import allowance
from theory_checks.scaling import EXPERIMENTS

SMALL = {
    "noise-event": lambda: probability.noise_event(0, trials=20),
    "penalised-rate": lambda: probability.penalised_rate(0, trials=20),
    "lasso-event": lambda: probability.lasso_event(0, trials=20),
    "oracle-chi-square": lambda: probability.oracle_chi_square(0, trials=50),
    "threshold-means": lambda: probability.threshold_means(0, trials=1000),
    "risk-slope-n": lambda: scaling_gaussian.slope_in_n(0, reps=4),
    "gaussian-slope-k": lambda: scaling_gaussian.slope_in_k(0, reps=40),
    "gaussian-linear-log-p": lambda: scaling_gaussian.linear_in_log_p(0, reps=160),
    "risk-slope-k": lambda: scaling.slope_in_k(0, reps=4),
    "risk-linear-log-p": lambda: scaling.linear_in_log_p(3, reps=100),
    "risk-constant": lambda: scaling.constant_of_log_p(0, reps=4),
    "calibration-error": lambda: scaling.calibration_error(0, reps=20),
    "fresh-error": lambda: scaling.fresh_error(0, reps=20),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_holds(name, seed):
    certificate = EXPERIMENTS[name](seed)
    assert certificate.outcome == "holds", f"{certificate} ({certificate.claim})"
    assert certificate.name == name
    assert certificate.where


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_too_small_a_sample_is_inconclusive(name):
    certificate = SMALL[name]()
    assert certificate.outcome == "inconclusive", str(certificate)
    assert ">" in certificate.inconclusive


def test_an_experiment_is_a_function_of_its_seed():
    for name in ("lasso-event", "risk-slope-n"):
        first, again, other = (EXPERIMENTS[name](seed) for seed in (4, 4, 5))
        assert first == again != other


def test_the_gaussian_root_has_the_law_of_a_gram():
    """E H = I and Var H_ij = (1 + [i = j]) / n, over 4000 draws."""
    n, p, draws = 7, 3, 4000
    rng = np.random.default_rng(0)
    roots = np.array([spikes.gaussian_root(rng, n, p) for _ in range(draws)])
    H = roots @ roots.transpose(0, 2, 1)
    assert not np.triu(roots[0], 1).any()
    z = (H.mean(axis=0) - np.eye(p)) / (H.std(axis=0) / np.sqrt(draws))
    assert np.abs(z).max() < chance.Z
    spread = np.square(H - np.eye(p))
    z = (spread.mean(axis=0) - (1 + np.eye(p)) / n) / (spread.std(axis=0) / np.sqrt(draws))
    assert np.abs(z).max() < chance.Z


def test_a_solver_on_many_observations_has_the_risk_of_a_threshold():
    """H = I up to 1/1000: both samplers draw from nearly the same law; the means agree to 5 standard errors."""
    plain = spikes.orthonormal_risks(np.random.default_rng(1), 20, 2, 4000)
    for solver in (iht.iht, maiht.maiht):
        found = 10**6 * spikes.gaussian_risks(np.random.default_rng(2), solver, 10**6, 20, 2, 4000)
        error = np.sqrt((plain.var() + found.var()) / 4000)
        assert abs(found.mean() - plain.mean()) < chance.Z * error


def test_tokens_have_the_covariance_of_their_root():
    root = np.array([[2.0, 1.0], [0.0, 1.0]])
    X = scaling.tokens(np.random.default_rng(3), 20_000, root)
    products = X[:, :, None] * X[:, None, :]
    z = (products.mean(axis=0) - root.T @ root) / (products.std(axis=0) / np.sqrt(len(X)))
    assert np.abs(z).max() < chance.Z


def test_clopper_pearson_contains_the_share_and_inverts_the_binomial_tail():
    low, high = chance.clopper_pearson(0, 100)
    assert low == 0
    assert abs((1 - high) ** 100 - chance.LEVEL / 2) < chance.LEVEL**2
    assert chance.clopper_pearson(100, 100)[1] == 1
    low, high = chance.clopper_pearson(7, 50)
    assert low < 7 / 50 < high


@pytest.mark.parametrize(
    ("misses", "outcome"), [(0, "holds"), (40, "holds"), (100, "inconclusive"), (200, "fails"), (1000, "fails")]
)
def test_a_probability_is_refuted_supported_or_neither(misses, outcome):
    assert chance.rare("c", "P <= 0.1", "here", misses, 1000, 0.1).outcome == outcome


def test_a_slope_is_refuted_supported_or_neither():
    x = np.linspace(0, 3, 10)
    noise = np.random.default_rng(0).standard_normal(10)
    for size, slope, outcome in ((0.001, -1, "holds"), (0.3, -1, "inconclusive"), (0.001, -0.9, "fails")):
        assert chance.slope_within("c", "", "", x, slope * x + size * noise, -1, -1, 0.03).outcome == outcome


def test_a_mean_is_refuted_supported_or_neither():
    samples = 1 + np.random.default_rng(0).standard_normal((2, 10_000))
    for columns, expected, outcome in ((10_000, 1.0, "holds"), (10_000, 1.2, "fails"), (20, 1.0, "inconclusive")):
        assert chance.means("c", "", "", samples[:, :columns], np.full(2, expected)).outcome == outcome


def test_intervals_and_distances_are_those_of_scipy():
    rng = np.random.default_rng(1)
    for hits, trials in ((3, 40), (0, 7), (7, 7)):
        found = stats.binomtest(hits, trials).proportion_ci(1 - chance.LEVEL, "exact")
        assert (
            np.abs(np.subtract(chance.clopper_pearson(hits, trials), (found.low, found.high))).max() < chance.LEVEL**3
        )
    x, y = np.arange(8.0), rng.standard_normal(8)
    line = stats.linregress(x, y)
    certificate = chance.slope_within("c", "", "", x, y, 2.0, 2.0, 1.0)
    half = line.stderr * stats.t.ppf(1 - chance.LEVEL / 2, 6)
    assert abs(certificate.measured - abs(line.slope - 2)) <= allowance(10.0, 8)
    assert abs(certificate.bound - half) <= allowance(100 * half, 8)
    sample = rng.chisquare(3, 400)
    found = chance.chi_square("c", "", "", sample, 3)
    assert abs(found.measured - stats.kstest(sample, stats.chi2(3).cdf).statistic) <= allowance(1.0, 400)
    assert stats.kstwo.sf(found.bound, 400) < 1.1 * chance.REJECT
    assert chance.chi_square("c", "", "", sample, 4).outcome == "fails"
