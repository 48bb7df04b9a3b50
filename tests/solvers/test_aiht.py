"""Accelerated IHT raises F; Yang and Yu's form does not, and never lets a removed weight back."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given

from solvers import aiht, fista
from solvers.problem import LayerProblem
from solvers.sparsity import L0
from theory_checks import allowance
from theory_checks.identification import reborn
from theory_checks.strategies import cases
from theory_checks.synthetic import Case


def test_without_a_safeguard_acceleration_raises_the_objective():
    problem = LayerProblem.of(np.zeros((1, 2)), np.diag([1.0, 0.001]))
    state, F = aiht.start(np.ones((1, 2))), []
    for _ in range(300):
        state = aiht.unguarded_step(problem, L0(1e-12), 0.95 / problem.lipschitz, state)
        F.append(state.Fx)
    assert max(np.diff(F)) > 0


def test_it_raises_the_objective_of_layers_too():
    layers = [Case("autoregressive", 3, 12, seed=seed).judge for seed in range(10)]
    runs = [aiht.aiht(layer, L0(0.01), iters=100).trace.objective for layer in layers]
    assert any((np.diff(F) > 0).any() for F in runs)


@given(case=cases())
def test_the_unguarded_form_is_fista_under_another_penalty(case):
    s, one, two = 0.95 / case.judge.lipschitz, aiht.start(case.judge.W0), fista.start(case.judge.W0)
    scale = np.abs(case.judge.W0).max()
    for _ in range(8):
        one = aiht.unguarded_step(case.judge, case.absolute, s, one)
        two = fista.step(case.judge, case.absolute, s, two)
        assert np.abs(one.x - two.x).max() <= 1000 * allowance(scale, case.judge.W0.size)


@given(case=cases())
def test_yang_yu_descends_and_only_removes(case):
    found = aiht.yang_yu(case.judge, case.penalty, iters=60)
    assert (np.diff(found.trace.objective) <= 0).all()
    assert (np.diff(found.trace.nonzeros) <= 0).all()
    assert found.trace.step <= 1 / case.judge.lipschitz
    assert not found.weight[case.judge.W0 == 0].any()


def test_one_step_by_hand():
    """z = (3, 0), so that w drops the second entry of u; s = 1/2, H = I, W0 = (4, 4): z_k+1 = (w + W0)/2."""
    problem = LayerProblem.of(np.full((1, 2), 4.0), np.eye(2))
    x, x_prev, z = np.array([[2.0, 1.0]]), np.array([[1.0, 1.0]]), np.array([[3.0, 0.0]])
    state = aiht.State(x, x_prev, z, z, t=2.0, t_prev=1.5, Fx=100.0)
    u = x + 0.75 * (z - x) + 0.25 * (x - x_prev)
    assert aiht.momentum(state).tolist() == u.tolist() == [[3.0, 0.25]]
    after = aiht.step(problem, L0(0.5), 0.5, state)
    assert after.x.tolist() == after.z.tolist() == [[3.5, 2.0]]
    assert (after.t, after.t_prev) == ((1 + sqrt(17)) / 2, 2.0)
    assert after.Fx == 0.5 * (0.25 + 4.0) + 2 * 0.5
    assert aiht.step(problem, L0(0.5), 0.5, state._replace(Fx=3.0)).x is x


def test_the_nonmonotone_form_keeps_what_the_other_rejects():
    problem = LayerProblem.of(np.full((1, 2), 4.0), np.eye(2))
    x, x_prev = np.array([[3.0, 0.0]]), np.array([[1.0, 1.0]])
    state = aiht.State(x, x_prev, x, x, t=2.0, t_prev=1.5, Fx=0.0)
    after = aiht.nonmonotone_step(problem, L0(0.5), 0.5, state)
    w = 3.0 + 0.25 * (3.0 - 1.0)
    assert after.x.tolist() == after.z.tolist() == [[(w + 4) / 2, 2.0]]
    assert after.Fx == after.Fv > 0
    assert aiht.step(problem, L0(0.5), 0.5, state).x is x


@given(case=cases())
def test_the_nonmonotone_form_only_removes(case):
    state = aiht.start(case.judge.W0)
    s = aiht.yang_yu(case.judge, case.penalty, iters=1).trace.step
    for _ in range(30):
        support, state = state.x != 0, aiht.nonmonotone_step(case.judge, case.penalty, s, state)
        assert not state.x[~support].any()


def test_without_the_projection_a_removed_weight_would_return():
    problem, penalty, x, s = reborn()
    state, seen = aiht.start(x), []
    for _ in range(30):
        state = aiht.step(problem, penalty, s, state)
        seen.append((state.z.item(), aiht.momentum(state).item()))
    gone = [k for k, (z, _) in enumerate(seen) if z == 0]
    assert gone
    assert seen[gone[0]][1] < 0
    assert all(z == 0 for z, _ in seen[gone[0] :])


@pytest.mark.parametrize("safety", [0.5, 1.0])
def test_the_theorems_step_is_taken(safety):
    case = Case(seed=9)
    s = aiht.yang_yu(case.judge, case.penalty, safety=safety).trace.step
    nonzeros = np.count_nonzero(case.judge.W0)
    limit = min(1 / (nonzeros * np.diag(case.judge.H).max()), 1 / case.judge.lipschitz)
    assert abs(s - safety * limit) <= allowance(limit, case.judge.W0.size)
