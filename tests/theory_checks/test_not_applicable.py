"""Outside its assumptions a claim says so, with the number."""

import numpy as np
import pytest

import solvers
from solvers import L0, L1, Gram, KeepGroups, KeepNofM, KeepPerLayer, KeepPerRow, LayerProblem, Solution, Stop, Trace
from theory_checks import certify
from theory_checks.descent import (
    objective_recomputed,
    one_step,
    residual_rate,
    safeguard,
    step_size,
    sufficient_decrease,
)
from theory_checks.equivalences import first_step_is_wanda
from theory_checks.optimality import lipschitz_bound, lower_bound
from theory_checks.stationarity import fixed_point
from theory_checks.support import exact_count
from theory_checks.synthetic import Case, ascent_problem

CASE = Case("language_like", rows=2, inputs=8, seed=4)


def _ran(method, sparsity, **options):
    run = solvers.run(solvers.find(method), CASE.problem, sparsity, **options)
    return run.problem, run.sparsity, run.found


TIED = LayerProblem.of(np.ones((1, 4)), np.eye(4))
ENDED_EARLY = Solution(
    CASE.judge.W0, Stop.EXHAUSTED, Trace(0.5 / CASE.judge.lipschitz, 0.0, 0.0, *[[0.0] * 3] * 3, [16, 16, 8], [5, 5, 4])
)
DRIFTED = LayerProblem(np.ones((1, 2)), Gram(np.eye(2), ridge=0.1), R=np.ones((1, 2)))


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: sufficient_decrease(*_ran("iht", CASE.penalty, safety=1.9)), "step * L = 1.9 > 1"),
        (lambda: sufficient_decrease(*_ran("maiht", CASE.penalty, safety=1.9)), "step * L = 1.9 > 1"),
        (lambda: residual_rate(*_ran("maiht", CASE.penalty, safety=1.9)), "step * L = 1.9 >= 1"),
        (lambda: one_step(CASE.judge, CASE.penalty, CASE.W0, 2 / CASE.judge.lipschitz), "step * L = 2 > 1"),
        (lambda: first_step_is_wanda(TIED, KeepPerRow(2), 0.1), "two scores tie at the cut"),
        (lambda: sufficient_decrease(*_ran("wanda", KeepPerRow(4))), "the method takes no proximal steps"),
        (lambda: safeguard(*_ran("wanda", KeepPerRow(4))), "the method takes no proximal steps"),
        (lambda: objective_recomputed(*_ran("wanda", KeepPerRow(4))), "the method takes no proximal steps"),
        (lambda: step_size(*_ran("wanda", KeepPerRow(4))[::2]), "the method takes no proximal steps"),
        (lambda: sufficient_decrease(*_ran("iht", KeepPerLayer(0), iters=3, ramp=1.0)), "changed in every iteration"),
        (lambda: residual_rate(CASE.judge, KeepPerRow(4), ENDED_EARLY), "the last stage has a single iteration"),
        (lambda: fixed_point(*_ran("maiht", CASE.penalty, iters=1)), "iterations exhausted; residual "),
        (lambda: fixed_point(*_ran("maiht", L1(0.1))), "L1(lam=0.1) has no such clauses, or no steps"),
        (lambda: fixed_point(*_ran("wanda", KeepPerRow(4))), "no steps"),
        (lambda: exact_count(L0(0.5), CASE.W0, CASE.W0), "L0(lam=0.5) is a penalty, it fixes no count"),
        (lambda: lower_bound(CASE.problem, KeepPerRow(4), CASE.W0), "ridge = 0 gives the bound 0"),
        (lambda: lower_bound(DRIFTED, KeepPerRow(1), DRIFTED.W0), "the problem has drift"),
        (lambda: lower_bound(CASE.judge, L1(1.0), CASE.W0), "no separable bound for L1"),
        (lambda: lower_bound(CASE.judge, KeepGroups(1, (0,) * 8), CASE.W0), "no separable bound for KeepGroups"),
        (lambda: lipschitz_bound(LayerProblem.of(np.ones((1, 513)), np.eye(513))), "inputs = 513 > 512"),
    ],
)
def test_a_claim_outside_its_assumptions_says_why(certificate, reason):
    found = certificate()
    assert found.outcome == "not applicable"
    assert reason in found.applies


def test_a_run_that_ended_at_another_penalty_is_not_graded_by_the_budget():
    problem, sparsity, found = _ran("maiht-released", KeepPerLayer(8))
    certificate = objective_recomputed(problem, sparsity, found)
    assert certificate.applies == f"the run ended at level {found.trace.level[-1]:.6g}"


def test_the_number_in_the_reason_is_the_product_of_step_and_bound():
    for safety in (1.25, 1.5):
        method = solvers.find("iht")
        run = solvers.run(method, CASE.problem, KeepNofM(2, 4), safety=safety)
        by_name = {c.name: c for c in certify(method, run, "none")}
        assert by_name["sufficient-decrease"].applies == f"step * L = {safety} > 1"
        assert by_name["step-size"].outcome == "fails"
        assert by_name["safeguard"].outcome == "holds"


@pytest.mark.parametrize("product", [1.05, 1.2, 1.5, 1.9])
def test_above_the_limit_one_step_does_ascend(product):
    """Theory D3: the assumption s L <= 1 cannot be dropped for a penalty, and the claim withdraws exactly there."""
    problem, penalty, x = ascent_problem(product)
    s = product / problem.lipschitz
    v = penalty.prox(x - s * problem.grad(x), s)
    assert problem.change(x, v) + penalty.value(v) > penalty.value(x)
    assert one_step(problem, penalty, x, s).outcome == "not applicable"
    assert one_step(problem, penalty, x, 1 / problem.lipschitz).outcome == "holds"


def test_wanda_is_compared_where_nothing_ties():
    assert first_step_is_wanda(CASE.problem, KeepPerRow(3), 0.1).outcome == "holds"
