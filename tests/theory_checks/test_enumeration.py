"""The exact optimum: brute force by another road, exchanges, and the words where nothing was claimed."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given

from solvers import L0, KeepPerRow, LayerProblem
from theory_checks.certificate import allowance
from theory_checks.enumeration import (
    CHECKS,
    exact_optimum,
    exchange_gain,
    one_swap,
    optimum,
    optimum_is_fixed,
    separable_below,
)
from theory_checks.restoration import design_of
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

CASE = Case("autoregressive", rows=2, inputs=6, seed=3)


def _supports(n, sizes):
    for size in sizes:
        for kept in combinations(range(n), size):
            support = np.zeros(n, dtype=bool)
            support[list(kept)] = True
            yield support


@given(case=cases().filter(lambda case: case.inputs <= 6))
def test_the_optimum_is_the_least_of_all_fits(case):
    design, k = design_of(case), round(case.keep * case.inputs)
    every = [np.tile(S, (case.rows, 1)) for S in _supports(case.inputs, range(case.inputs + 1))]
    fits = [design.fit(mask) for mask in every]
    residuals = [np.square((W - design.W0) @ design.A.T).sum(axis=1) / 2 for W in fits]
    sizes = np.array([mask[0].sum() for mask in every])
    stretch = float(design.spectrum()[-1] / design.spectrum()[0])
    rounding = allowance(stretch * design.terms(0 * design.W0), sum(design.A.shape))
    lam = case.penalty.lam
    found = [(optimum(case.judge, k), np.where(sizes == k, 0.0, np.inf))]
    if lam > 0:
        found.append((optimum(case.judge, 0, lam), lam * sizes))
    for best, cost in found:
        assert (np.abs(best.F - (np.array(residuals) + cost[:, None]).min(axis=0)) <= rounding).all()
    assert (np.count_nonzero(found[0][0].W, axis=1) <= k).all()


def test_keeping_everything_costs_nothing_and_keeping_nothing_costs_all():
    everything, nothing = optimum(CASE.judge, 6), optimum(CASE.judge, 0)
    assert np.array_equal(everything.W, CASE.judge.W0)
    assert not everything.F.any()
    assert not nothing.W.any()


def test_the_gap_of_a_method_is_the_slack():
    design, best = design_of(CASE), optimum(CASE.judge, 2)
    first = np.where(np.arange(6) < 2, CASE.judge.W0[0], 0.0)
    gap = exact_optimum(design, best, 0, first)
    assert gap.outcome == "holds"
    assert gap.slack > gap.allowance
    assert abs(exact_optimum(design, best, 0, best.W[0]).slack) <= gap.allowance


def test_magnitude_is_not_one_swap_optimal_and_does_not_claim_it():
    """Inputs 0 and 1 agree and cancel; keeping the two largest is worse than keeping one of them and the third."""
    H = np.array([[1.0, 0.96875, 0.0], [0.96875, 1.0, 0.0], [0.0, 0.0, 1.0]])
    problem = LayerProblem.of(np.array([[2.0, -2.0, 1.0]]), H)
    design = design_of(CASE)._replace(A=np.linalg.cholesky(H).T, W0=problem.W0)
    largest = np.array([2.0, -2.0, 0.0])
    silent, claimed = (one_swap(design, 0, largest, claimed=c) for c in (False, True))
    assert silent.outcome == "not applicable"
    assert silent.applies.startswith("the weight does not claim it; the best exchange lowers f by 0.3")
    assert claimed.outcome == "fails"
    assert exchange_gain(design, 0, largest != 0) == claimed.measured > 0
    assert one_swap(design, 0, optimum(problem, 2).W[0], claimed=True).outcome == "holds"


def test_the_optimum_of_a_penalty_is_no_fixed_point_of_another():
    design, L = design_of(CASE), CASE.judge.lipschitz
    best = optimum(CASE.judge, 0, CASE.penalty.lam)
    assert optimum_is_fixed(CASE.judge, design, CASE.penalty, best, 1 / L).outcome == "holds"
    other = L0(100 * CASE.penalty.lam)
    assert optimum_is_fixed(CASE.judge, design, other, best, 1 / L).outcome == "fails"


def test_too_many_kept_are_no_fixed_point_of_a_budget():
    best = optimum(CASE.judge, 3)
    assert optimum_is_fixed(CASE.judge, design_of(CASE), KeepPerRow(2), best, 0.01).outcome == "fails"


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: one_swap(design_of(CASE), 0, np.zeros(6), True), "kept = 0 of 6 inputs: nothing to exchange"),
        (lambda: one_swap(design_of(CASE), 0, np.ones(6), True), "kept = 6 of 6 inputs: nothing to exchange"),
        (
            lambda: separable_below(CASE.problem, design_of(CASE), optimum(CASE.judge, 2), 2),
            "ridge = 0, the bound is 0",
        ),
        (
            lambda: optimum_is_fixed(CASE.judge, design_of(CASE), KeepPerRow(2), optimum(CASE.judge, 2), 10.0),
            f"step * L = {10 * design_of(CASE).spectrum()[-1]:.6g} > 1",
        ),
        *((lambda check=check: next(check(Case(inputs=13))), "inputs = 13 > 12") for check in CHECKS.values()),
    ],
)
def test_a_claim_outside_its_assumptions_says_why(certificate, reason):
    assert certificate().applies == reason
