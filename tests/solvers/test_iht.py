"""IHT: an example worked out by hand, the limits, the schedule, and when the loop stops."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import solvers
from solvers.iht import State, iht, step
from solvers.iterate import iterate
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.schedule import constant, cubic
from solvers.solution import Stop
from solvers.sparsity import L0, L1, KeepNofM, KeepPerLayer, KeepPerRow, OnTheWay
from theory_checks import allowance
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

W0 = np.array([[2.0, 1.0]])
PAIR = LayerProblem.of(W0, np.array([[2.0, 1.0], [1.0, 2.0]]))


def test_two_steps_by_hand():
    """s = 1/4, lam = 2: the threshold is 1, so W0 = (2, 1) loses its second entry; then grad f(2, 0) = (-1, -2)."""
    first = step(PAIR, L0(2.0), 0.25, State(W0, W0))
    assert first.x.tolist() == [[2.0, 0.0]]
    assert first.Fx == 1.0 + 2.0  # f = 1/2 (0, -1) H (0, -1)' = 1, one nonzero
    second = step(PAIR, L0(2.0), 0.25, first)
    assert second.x.tolist() == [[2.25, 0.0]]  # 2 + 1/4, and 0 + 2/4 < 1 goes
    assert second.Fx == 0.8125 + 2.0


def test_many_steps_by_hand_end_at_the_least_squares_solution_of_the_support():
    found = iht(PAIR, KeepPerRow(1), iters=500, ramp=0.0)
    assert found.stop is Stop.CONVERGED
    assert abs(found.weight[0, 0] - 2.5) <= allowance(4.0, 2)  # 2 (x - 2) = 1
    assert found.weight[0, 1] == 0


@pytest.mark.parametrize("method", ["iht", "maiht"])
@pytest.mark.parametrize("sparsity", [KeepPerRow(8), KeepPerLayer(24), KeepNofM(4, 4), L0(0.0), L1(0.0)], ids=str)
def test_removing_nothing_rests_at_the_dense_weight_at_once(method, sparsity):
    problem = Case().problem
    found = solvers.find(method).run(problem, sparsity)
    assert np.array_equal(found.weight, problem.W0)
    assert (found.stop, found.trace.objective) == (Stop.CONVERGED, [0.0])


@pytest.mark.parametrize("method", ["iht", "maiht"])
@given(case=cases())
def test_for_uncorrelated_inputs_a_budget_is_magnitude_pruning(method, case):
    problem = LayerProblem.of(case.W0, np.eye(case.inputs))
    for budget in case.budgets:
        assert np.array_equal(solvers.find(method).run(problem, budget, ramp=0.0).weight, budget.prox(case.W0))


@given(case=cases(), iters=st.integers(1, 40), ramp=st.floats(0, 1))
def test_the_cubic_schedule_only_tightens_and_ends_exactly_at_the_budget(case, iters, ramp):
    for budget in case.budgets:
        schedule, steps = cubic(budget, case.W0.shape, iters, ramp), max(1, round(ramp * iters))
        stages = [schedule(t, case.W0, None) for t in range(iters)]
        levels, kept = [stage.level for stage in stages], [stage.mask(np.abs(case.W0)).sum() for stage in stages]
        assert levels == sorted(levels, reverse=True)
        assert kept == sorted(kept, reverse=True)
        assert set(stages[steps - 1 :]) == {budget}
        assert schedule(iters, case.W0, None) is None


def test_the_cubic_schedule_by_hand():
    schedule = cubic(KeepPerRow(20), (1, 100), 5, 0.8)  # 80 to remove in 4 steps: 1 - (3/4)^3, 1 - (2/4)^3, ...
    assert [schedule(t, None, None).keep for t in range(5)] == [54, 30, 21, 20, 20]
    assert cubic(L0(1.0), (1, 100), 5, 0.8)(0, None, None) == L0(1.0)
    windows = cubic(KeepNofM(1, 5), (2, 100), 5, 0.8)  # 80 of the 100 inputs of each row
    assert [windows(t, None, None) for t in range(5)] == [OnTheWay(1, 5, n) for n in (34, 10, 1)] + 2 * [KeepNofM(1, 5)]


@pytest.mark.parametrize(("iters", "ramp"), [(0, 0.8), (10, 1.5), (10, -0.1), (10, float("nan"))])
def test_a_schedule_that_would_miss_the_budget_is_refused(iters, ramp):
    with pytest.raises(Refusal, match=r"reached in iters >= 1 steps, over a share ramp"):
        iht(PAIR, KeepPerRow(1), iters=iters, ramp=ramp)


@pytest.mark.parametrize("method", ["iht", "maiht"])
def test_a_pause_of_the_schedule_is_not_a_rest(method):
    """A long schedule removes nothing in its first steps, where W0 rests; a run once stopped there, dense."""
    problem, slow = Case(seed=1).problem, {"iters": 1000, "ramp": 1.0}
    schedule = cubic(KeepNofM(2, 4), problem.shape, *slow.values())
    assert schedule(0, problem.W0, None).mask(np.abs(problem.W0)).all()
    found = solvers.find(method).run(problem, KeepNofM(2, 4), **slow)
    assert np.count_nonzero(found.weight) == found.weight.size // 2
    assert len(found.trace) > 30


def test_the_loop_stops_by_its_tolerance_or_by_its_schedule():
    loose, tight = (iht(PAIR, KeepPerRow(1), ramp=0.0, tol=tol) for tol in (0.01, 0.0))
    assert loose.stop is Stop.CONVERGED
    assert len(loose.trace) < len(tight.trace)
    x = np.array([[2.0, 0.0]])
    moves = [float(np.square(v - x).sum()) for v in _iterates(len(loose.trace))]
    assert loose.trace.move[-1] <= 0.01**2 * 6.25 < loose.trace.move[-2]
    assert len(moves) == len(loose.trace)
    short = iht(PAIR, KeepPerRow(1), iters=3, ramp=0.0)
    assert (short.stop, len(short.trace)) == (Stop.EXHAUSTED, 3)


def _iterates(count):
    x = W0
    for _ in range(count):
        x = KeepPerRow(1).prox(x - 0.95 / PAIR.lipschitz * PAIR.grad(x))
        yield x


def test_the_trace_holds_the_facts_of_every_step():
    found = iht(PAIR, L0(2.0), iters=4)
    x = W0
    for row in range(4):
        v = L0(2.0).prox(x - found.trace.step * PAIR.grad(x), found.trace.step)
        assert found.trace.move[row] == np.square(v - x).sum()
        assert found.trace.objective[row] == found.trace.plain[row] == PAIR.value(v) + 2.0 * np.count_nonzero(v)
        assert found.trace.nonzeros[row] == np.count_nonzero(v)
        x = v
    assert (found.trace.first, found.trace.level) == (4.0, [2.0] * 4)
    assert found.trace.step == 0.95 / PAIR.lipschitz
    assert np.array_equal(found.weight, x)


@pytest.mark.parametrize("method", ["iht", "maiht"])
@given(case=cases())
def test_a_converged_penalty_is_optimal_on_its_support_and_not_below_the_global_optimum(method, case):
    small = Case(case.family, 1, min(case.inputs, 6), case.seed, case.tied, strength=case.strength)
    problem, penalty = small.judge, small.penalty
    found = solvers.find(method).run(problem, penalty, iters=3000, tol=1e-10)
    F = problem.value(found.weight) + penalty.value(found.weight)
    reach = allowance(problem.magnitude(np.zeros_like(small.W0)) + F, small.inputs) + 1e-10 * F
    optimum = min(
        _least(problem, np.array([bits])) + penalty.lam * sum(bits) for bits in product((0, 1), repeat=small.inputs)
    )
    assert optimum <= F + reach
    assert penalty.value(found.weight) + _least(problem, found.weight != 0) + reach >= F or found.stop is Stop.EXHAUSTED


def _least(problem, mask):
    return problem.value(solvers.linalg.least_squares_exact(problem, mask.astype(bool)))


def test_a_run_that_diverges_or_stands_still_is_refused():
    with pytest.raises(Refusal, match=r"diverged in iteration \d+: step \* L = 1e\+09"):
        iht(PAIR, KeepPerRow(1), safety=1e9)
    with pytest.raises(Refusal, match="step size must be positive and finite; got 0"):
        iterate(step, State(W0, W0), PAIR, constant(KeepPerRow(1), 3), s=0.0, goal=KeepPerRow(1))
