"""Constant momentum and restarts: by hand, against the reference, and what each refuses."""

from math import ceil, sqrt

import numpy as np
import pytest
from hypothesis import given

from solvers import fista, restart
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Stop
from solvers.sparsity import L1
from theory_checks import allowance
from theory_checks.paths import lasso
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

SLOPE = LayerProblem.of(np.zeros((1, 1)), np.zeros((1, 1)))


def test_three_steps_by_hand():
    """f = 0, lam = s = 1, m = 1/9: b = 1/2, and every move is 1 plus half of the last."""
    assert abs(restart.momentum(1.0, 1 / 9) - 0.5) <= allowance(1.0, 1)
    x = np.full((1, 1), 20.0)
    state, seen = restart.State(x, x, x), []
    for _ in range(3):
        state = restart.strong_step(SLOPE, L1(1.0), 1.0, state, m=1 / 9)
        seen.append(state.x.item())
    assert np.abs(np.array(seen) - [19.0, 17.5, 15.75]).max() <= allowance(20.0, 1)


def test_a_cycle_is_fista_from_rest():
    problem, s, m = Case(seed=3).judge, 0.02, 0.1
    K = ceil(sqrt(8 / (s * m)))
    assert restart.period(s, m) == K == 64
    x, penalty = Case(seed=3).some_weight(), L1(0.1)
    moving = fista.State(x, x + 1, x, t=7.0)  # the momentum that a cycle must forget
    plain = state = fista.step(problem, penalty, s, fista.start(x))
    for _ in range(K - 1):
        state = fista.step(problem, penalty, s, state)
    after = restart.cycle(problem, penalty, s, moving, m)
    assert np.array_equal(after.x, state.x)
    assert np.array_equal(after.v, plain.x)
    assert (after.Fx, after.Fv) == (state.Fx, plain.Fx)


@pytest.mark.parametrize("method", [restart.vfista, restart.restarted])
@given(case=cases())
def test_both_reach_the_reference(method, case):
    budget = {"iters": 400} if method is restart.vfista else {"cycles": 12}
    found, penalty = method(case.judge, case.absolute, **budget), case.absolute
    best = lasso(case.judge, penalty.lam)
    least = case.judge.value(best) + penalty.value(best)
    start = case.judge.value(case.judge.W0) + penalty.value(case.judge.W0)
    slack = allowance(case.judge.magnitude(best) + start, best.size)
    assert least - slack <= found.trace.objective[-1] <= least + (start - least) / 2**11 + slack


def test_a_ridge_is_needed_and_named():
    for method in (restart.vfista, restart.restarted):
        with pytest.raises(Refusal, match=r"m > 0; this Gram has ridge 0.*normalised\(0.1\)"):
            method(Case(seed=3).problem, L1(0.1))


@pytest.mark.parametrize("method", [restart.vfista, restart.restarted])
def test_the_minimiser_is_a_rest(method):
    problem = Case(seed=3).judge
    found = method(problem, L1(0.0))
    assert found.stop is Stop.CONVERGED
    assert np.array_equal(found.weight, problem.W0)
