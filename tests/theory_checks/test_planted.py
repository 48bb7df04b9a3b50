"""The planted regressions: what they promise about X, the truth, the noise and the layer made of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory_checks.certificate import allowance
from theory_checks.planted import DESIGNS, Planted, against, along_the_cone, level, opposed, planted, twins

SEEDS = st.integers(0, 2**31 - 1)
REGRESSIONS = st.builds(
    Planted,
    design=st.sampled_from(list(DESIGNS)),
    n=st.integers(12, 30),
    p=st.integers(1, 6),
    k=st.integers(0, 1),
    sigma=st.floats(0, 3),
    seed=SEEDS,
)


@given(problem=REGRESSIONS)
def test_columns_have_the_norm_of_the_tokens_and_the_truth_is_sparse(problem):
    norms = np.square(problem.X).sum(axis=0)
    assert np.abs(norms - problem.n).max() <= allowance(problem.n, problem.n)
    assert np.flatnonzero(problem.w).tolist() == problem.support.tolist()
    assert len(problem.support) == problem.k
    sizes = np.abs(problem.w[problem.support])
    assert ((sizes >= problem.height / 2) & (sizes <= 1.5 * problem.height)).all()


@given(problem=REGRESSIONS)
def test_the_layer_is_half_the_mean_squared_residual(problem):
    """f(w) - f(w') = (|y - X w|^2 - |y - X w'|^2) / 2n: the convention of 1/T and 1/2."""
    a, b = problem.rng(8).standard_normal((2, problem.p))
    f = problem.problem.value(a[None, :]) - problem.problem.value(b[None, :])
    squares = [float(np.square(problem.y - problem.X @ w).sum()) for w in (a, b)]
    scale = sum(squares) + float(np.square(problem.y).sum())
    condition = np.linalg.cond(problem.X)
    assert abs(f - (squares[0] - squares[1]) / (2 * problem.n)) <= allowance(condition * scale, problem.size)


@given(problem=REGRESSIONS)
def test_draws_are_made_once_and_come_from_the_seed(problem):
    again = Planted(**{field: getattr(problem, field) for field in problem.__dataclass_fields__})
    assert again == problem
    assert problem.X is problem.X
    assert problem.problem is problem.problem
    assert np.array_equal(again.y, problem.y)


def test_with_fewer_observations_than_inputs_the_layer_still_reads_the_residual():
    problem = Planted("gaussian", n=5, p=9, k=2, seed=3)
    w = problem.rng(8).standard_normal((1, 9))
    gradient = problem.X.T @ (problem.X @ w[0] - problem.y) / problem.n
    scale = float(np.abs(problem.X).sum() * np.abs(w).sum() + np.abs(problem.y).sum())
    assert np.abs(problem.problem.grad(w)[0] - gradient).max() <= allowance(scale, problem.size)


@given(seed=SEEDS)
def test_the_constructed_noises_are_what_they_say(seed):
    exchanged = twins(seed)
    near = [
        float(np.square(exchanged.y - x * (x @ exchanged.y) / (x @ x)).sum())
        for x in (exchanged.X[:, 0], exchanged.X[:, exchanged.p - exchanged.p // 2])
    ]
    assert near[1] < near[0]
    loud = level(seed)
    products = loud.X.T @ loud.eps
    assert np.ptp(products) <= allowance(np.abs(products).sum() * loud.p, loud.size)
    assert (products > 0).all()
    assert np.array_equal(against(seed).eps, -against(seed).signal / 3)
    facing = opposed(seed)
    products = facing.X.T @ facing.eps / facing.n + facing.w[0] / 6
    assert np.abs(products).max() <= allowance(abs(facing.w[0]) * facing.p, facing.size)
    nu = along_the_cone(facing) - facing.w
    assert 2.99 * abs(nu[0]) < np.abs(nu[1:]).sum() < 3 * abs(nu[0])
    assert np.sign(nu[0]) == -np.sign(facing.w[0])


@given(seed=SEEDS)
def test_the_mixture_is_small_and_identifiable(seed):
    problem = planted(seed)
    assert 2 * problem.p <= problem.n <= 40
    assert 1 <= problem.k <= problem.p <= 8
    assert planted(seed) == problem
    assert planted(seed, designs=("orthonormal",)).design == "orthonormal"


@pytest.mark.parametrize("design", DESIGNS)
def test_risk_is_the_squared_error_of_prediction(design):
    problem = Planted(design, seed=1)
    assert problem.risk(problem.w) == 0
    d = np.eye(problem.p)[0]
    assert abs(problem.risk(problem.w + d) - problem.n) <= allowance(problem.n, problem.size)
