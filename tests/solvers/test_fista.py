"""FISTA and MFISTA: by hand, against coordinate descent, and the fact that FISTA is no descent method."""

import ast
import inspect
from math import sqrt

import numpy as np
import pytest
from hypothesis import given

from solvers import aiht, fista, iht
from solvers.problem import LayerProblem
from solvers.solution import Stop
from solvers.sparsity import L1
from theory_checks import allowance
from theory_checks.paths import lasso, not_minimal
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

NAUGHT = np.zeros((1, 1))
BOWL = LayerProblem.of(NAUGHT, np.ones((1, 1)))
SLOPE = LayerProblem.of(NAUGHT, NAUGHT)


def test_four_steps_by_hand():
    """f = 0, lam = s = 1: every step is y - 1, and y runs ahead by (t_k - 1)/t_k+1 of the last move."""
    t = [1.0]
    for _ in range(3):
        t.append((1 + sqrt(1 + 4 * t[-1] ** 2)) / 2)
    state = fista.start(np.full((1, 1), 20.0))
    x, y, seen = 20.0, 20.0, []
    for k in range(3):
        state = fista.step(SLOPE, L1(1.0), 1.0, state)
        x, previous = y - 1, x
        y = x + (t[k] - 1) / t[k + 1] * (x - previous)
        seen.append((state.x.item(), state.y.item()))
        assert seen[-1] == (x, y)
    assert [s[0] for s in seen[:2]] == [19.0, 18.0]
    assert seen[2][0] < 17.0


def test_the_momentum_of_halves_by_hand():
    """t_k = 1, 3/2, 2, 5/2: y runs ahead by 0, 1/4, 2/5 of the last move, i/(i + 3)."""
    state, x, y = fista.start(np.full((1, 1), 20.0)), 20.0, 20.0
    for i in range(3):
        state = fista.halves_step(SLOPE, L1(1.0), 1.0, state)
        x, previous = y - 1, x
        y = x + i / (i + 3) * (x - previous)
        assert state.t == 1.5 + i / 2
        assert abs(state.y.item() - y) <= allowance(20.0, 1)


def test_monotone_keeps_the_better_point_and_the_momentum_of_the_other():
    state = fista.State(np.array([[0.5]]), np.array([[-2.0]]), np.array([[0.5]]), t=2.0, Fx=0.125)
    after = fista.monotone_step(BOWL, L1(0.0), 0.5, state)
    assert after.x is state.x
    assert (after.Fx, after.Fv, after.v.item()) == (0.125, 0.5, -1.0)
    t = (1 + sqrt(17)) / 2
    assert after.y.item() == 0.5 + 2 / t * (-1.0 - 0.5)
    assert fista.step(BOWL, L1(0.0), 0.5, state).x.item() == -1.0


def _steep():
    """A valley of condition 1000: momentum overshoots along its floor."""
    problem = LayerProblem.of(np.zeros((1, 2)), np.diag([1.0, 0.001]))
    x = np.ones((1, 2))
    return problem, x, 1 / problem.lipschitz


def test_fista_is_not_monotone_and_its_monotone_form_is():
    problem, x, s = _steep()
    rises = {}
    for step in (fista.step, fista.monotone_step):
        state, F = fista.start(x), []
        for _ in range(300):
            state = step(problem, L1(0.0), s, state)
            F.append(problem.value(state.x))
        rises[step] = int((np.diff(F) > 0).sum())
    assert rises[fista.step] > 0
    assert rises[fista.monotone_step] == 0


@pytest.mark.parametrize("method", [fista.fista, fista.mfista])
def test_both_reach_the_lasso_of_scikit_learn(method):
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    X, W0 = rng.standard_normal((40, 6)), rng.standard_normal((3, 6))
    H = X.T @ X / 40
    problem, lam = LayerProblem.of(W0, (H + H.T) / 2), 0.3
    found, Y, duality_gap = method(problem, L1(lam), iters=1000).weight, X @ W0.T, 1e-12
    oracle = linear_model.Lasso(alpha=lam, fit_intercept=False, tol=duality_gap, max_iter=10**5).fit(X, Y).coef_
    one, two = (problem.value(W) + L1(lam).value(W) for W in (found, oracle))
    assert abs(one - two) <= duality_gap * np.square(Y).sum() + allowance(one, found.size)
    assert np.array_equal(found != 0, oracle != 0)
    assert 0 < np.count_nonzero(found) < found.size


@given(case=cases())
def test_both_and_ista_reach_the_reference(case):
    best = lasso(case.judge, case.absolute.lam)
    assert not not_minimal(case.judge, case.absolute.lam, best)
    least = case.judge.value(best) + case.absolute.value(best)
    for method, options in ((fista.fista, {}), (fista.mfista, {}), (iht.iht, {"safety": 1.0})):
        trace = method(case.judge, case.absolute, iters=200, **options).trace
        assert min(trace.objective) >= least - allowance(case.judge.magnitude(best) + least, case.judge.W0.size)
        assert trace.objective[-1] - least <= 2 * case.judge.lipschitz * np.square(case.judge.W0).sum() / 200


def test_acceleration_pays_on_a_valley():
    problem, x, s = _steep()
    slow, fast, least = iht.State(x, x), fista.start(x), np.inf
    for _ in range(150):
        slow, fast = iht.step(problem, L1(0.0), s, slow), fista.step(problem, L1(0.0), s, fast)
        least = min(least, fast.Fx)
    assert least < slow.Fx / 10


def test_a_pause_of_the_momentum_is_no_rest():
    """x_k+1 = x_k = 0 while the plain step from 0 leaves it: the loop must not call that convergence."""
    problem = LayerProblem.of(np.array([[1.0]]), np.ones((1, 1)))
    state = fista.State(NAUGHT, np.array([[-0.11]]), NAUGHT, t=3.0)
    after = fista.step(problem, L1(0.2), 0.1, state)
    assert after.x.item() == 0
    assert after.v.item() > 0


@pytest.mark.parametrize("method", [fista.fista, fista.mfista])
def test_the_minimiser_is_a_rest(method):
    problem = Case(seed=3).judge
    found = method(problem, L1(0.0))
    assert found.stop is Stop.CONVERGED
    assert np.array_equal(found.weight, problem.W0)


@pytest.mark.parametrize("page", [fista, aiht])
def test_each_page_fits_on_one_screen(page):
    source = inspect.getsource(page)
    prose = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    code = [line for n, line in enumerate(source.splitlines(), start=1) if n not in prose and line.strip()]
    assert 20 < len(code) <= 45
