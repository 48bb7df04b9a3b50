"""mAIHT: three steps by hand, the safeguard, the acceleration, and the length of its page."""

import ast
import inspect
from math import sqrt

import numpy as np
import pytest
from hypothesis import given

from solvers import iht, maiht
from solvers.problem import LayerProblem
from solvers.solution import Stop
from solvers.sparsity import L0, KeepPerRow
from theory_checks import allowance
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

W0 = np.array([[2.0, 1.0]])
PAIR = LayerProblem.of(W0, np.array([[2.0, 1.0], [1.0, 2.0]]))


def test_three_steps_by_hand():
    """s = 1/4, lam = 2. The first two steps have no momentum: (2, 0), then (2.25, 0), as in IHT.

    In the third y = 2.25 + 0.25 b with b = (t_1 - 1)/t_2, t_1 = (1 + sqrt 5)/2. With d = 0.25 + 0.25 b the gradient
    at y is (2d - 1, d - 2), so z = 2 + d - (2d - 1)/4 = 2.375 + 0.125 b: nearer to the optimum 2.5 than v = 2.375.
    """
    state = maiht.start(PAIR)
    for expected in ([[2.0, 0.0]], [[2.25, 0.0]]):
        state = maiht.step(PAIR, L0(2.0), 0.25, state)
        assert state.x.tolist() == state.v.tolist() == expected
    t1 = (1 + sqrt(5)) / 2
    t2 = (1 + sqrt(1 + 4 * t1**2)) / 2
    assert (state.t_prev, state.t) == (t1, t2)
    third = maiht.step(PAIR, L0(2.0), 0.25, state)
    assert abs(third.z[0, 0] - (2.375 + 0.125 * (t1 - 1) / t2)) <= allowance(4.0, 2)
    assert third.x is third.z
    assert third.v.tolist() == [[2.375, 0.0]]
    assert third.Fx < third.Fv


def test_the_plain_step_replaces_an_accelerated_one_that_is_worse():
    far = maiht.State(W0, W0, np.array([[50.0, 0.0]]), W0, t=2.0, t_prev=1.5)
    after = maiht.step(PAIR, L0(2.0), 0.25, far)
    assert after.x is after.v
    assert after.v.tolist() == [[2.0, 0.0]]
    assert after.Fx == after.Fv == 3.0


@given(case=cases())
def test_no_step_is_above_the_plain_one(case):
    for sparsity in case.sparsities:
        trace = maiht.maiht(case.judge, sparsity).trace
        assert (np.array(trace.objective) <= np.array(trace.plain)).all()


@given(case=cases())
def test_a_converged_penalty_is_a_fixed_point_of_the_plain_step(case):
    found = maiht.maiht(case.judge, case.penalty, iters=3000)
    s = found.trace.step
    v = case.penalty.prox(found.weight - s * case.judge.grad(found.weight), s)
    if found.stop is Stop.CONVERGED:
        assert np.array_equal(v, found.weight)
    assert np.abs(found.weight[found.weight != 0]).min(initial=np.inf) > sqrt(2 * case.penalty.lam * s)


def test_acceleration_reaches_the_optimum_of_a_fixed_support_sooner():
    n = 30
    path = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    problem = LayerProblem(np.zeros((1, n)), LayerProblem.of(np.zeros((1, n)), path).gram, R=np.ones((1, n)))
    slow, fast = (method(problem, L0(0.0), iters=300) for method in (iht.iht, maiht.maiht))
    least = problem.value(np.linalg.solve(path, -np.ones(n))[None])
    assert fast.trace.objective[-1] - least < (slow.trace.objective[-1] - least) / 100


def test_the_step_is_the_papers_share_of_the_proved_bound():
    assert maiht.maiht(PAIR, L0(1.0)).trace.step == 0.95 / PAIR.lipschitz
    assert maiht.maiht(PAIR, L0(1.0), safety=0.5).trace.step == 0.5 / PAIR.lipschitz


@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_the_tolerance_is_reached_by_both_the_iterate_and_the_plain_step(tol):
    case = Case("duplicated", seed=5)
    found = maiht.maiht(case.judge, KeepPerRow(4), iters=5000, tol=tol)
    assert found.stop is Stop.CONVERGED
    assert found.trace.move[-1] <= tol**2 * np.square(found.weight).sum() * (1 + tol) ** 2


def test_the_method_fits_on_one_screen():
    source = inspect.getsource(maiht)
    tree = ast.parse(source)
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    code = [line for n, line in enumerate(source.splitlines(), start=1) if n not in prose and line.strip()]
    assert 20 < len(code) <= 45
