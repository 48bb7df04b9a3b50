"""Restored weights: nothing on the mask is better, what is not equivariant, and where a bound is reached."""

import numpy as np
from hypothesis import given

from solvers import KeepPerRow, LayerProblem
from solvers.admm import fixed_mask_admm
from solvers.iht import iht
from solvers.linalg import least_squares_exact
from theory_checks.certificate import allowance
from theory_checks.restoration import (
    Design,
    admm_rate,
    change_inputs,
    design_of,
    masks_of,
    no_worse,
    orthogonal_residual,
    scaling_equivariant,
)
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

CASE = Case("scaled", rows=3, inputs=8)
UNEQUAL = 10 ** CASE.rng(42).uniform(-1, 1, 8)


@given(case=cases())
def test_the_tokens_have_the_gram_of_the_normalised_layer(case):
    design = design_of(case)
    gap = np.abs(design.A.T @ design.A - case.judge.H)
    size = np.abs(design.A).T @ np.abs(design.A)
    assert (gap <= size * allowance(1.0, sum(design.A.shape))).all()
    W = case.some_weight()
    rounding = allowance(design.terms(W) + case.judge.magnitude(W), sum(design.A.shape))
    assert abs(design.value(W) - case.judge.value(W)) <= rounding


@given(case=cases())
def test_no_weight_on_the_mask_is_better(case):
    design = design_of(case)
    for mask in masks_of(case):
        best = least_squares_exact(case.judge, mask)
        for other in (np.where(mask, case.judge.W0, 0.0), np.where(mask, best + case.some_weight(), 0.0)):
            assert no_worse(design, other, best, "restored) <= f(other").outcome == "holds"


def test_a_ridge_centred_at_zero_restores_another_weight():
    judge, mask = CASE.judge, next(masks_of(CASE))
    best = least_squares_exact(judge, mask)
    shrunk = LayerProblem(judge.W0, judge.gram, R=0.1 * judge.W0)  # the derivative of 0.1/2 |W|^2 at W0
    assert np.linalg.norm(best - least_squares_exact(shrunk, mask)) > design_of(CASE).rounding(best)


def test_a_weight_off_the_mask_is_not_orthogonal(monkeypatch):
    monkeypatch.setattr("solvers.linalg.least_squares_exact", lambda problem, mask: problem.W0)
    assert orthogonal_residual(CASE.judge, design_of(CASE), next(masks_of(CASE))).outcome == "fails"


def test_the_supports_of_iht_are_not_equivariant_but_the_restoration_is():
    """Theory E6: the same layer in other units, and iterative hard thresholding keeps other inputs."""
    budget, other = KeepPerRow(4), change_inputs(CASE.judge, UNEQUAL)
    W = CASE.some_weight()
    rounding = allowance(2 * design_of(CASE).terms(W), 8)
    assert abs(other.value(W * UNEQUAL) - CASE.judge.value(W)) <= rounding
    here, there = iht(CASE.judge, budget, iters=200).weight, iht(other, budget, iters=200).weight
    assert np.array_equal((here != 0).sum(axis=1), (there != 0).sum(axis=1))
    assert ((here != 0) != (there != 0)).any()
    for mask in (here != 0, there != 0):
        assert scaling_equivariant(CASE.judge, design_of(CASE), mask, UNEQUAL).outcome == "holds"


def test_a_ridge_added_after_the_scaling_is_another_problem():
    scaled_first = change_inputs(CASE.problem, UNEQUAL).H + np.eye(8)
    ridge_first = change_inputs(LayerProblem.of(CASE.W0, CASE.problem.H + np.eye(8)), UNEQUAL).H
    assert np.linalg.norm(scaled_first - ridge_first) > 1


def test_a_mask_that_keeps_all_or_nothing_leaves_admm_where_it_starts():
    design = Design(np.array([[np.sqrt(2.0)]]), np.array([[3.0]]))
    problem = LayerProblem.of(design.W0, np.array([[2.0]]))
    for keep in (True, False):
        certificate = admm_rate(problem, design, np.array([[keep]]), 1.0, 3)
        assert certificate.measured <= certificate.allowance


def test_admm_does_not_contract_as_fast_as_its_reflection():
    """d^k in place of ((1 + d)/2)^k would be no bound: H has the eigenvalues 1/2 and 3/2, rho = 1, d = 1/3."""
    H = np.array([[1.0, 0.5], [0.5, 1.0]])
    design = Design(np.linalg.cholesky(H).T, np.array([[1.0, 1.0]]))
    for k in (1, 4, 8):
        certificate = admm_rate(LayerProblem.of(design.W0, H), design, np.array([[True, False]]), 1.0, k)
        assert certificate.outcome == "holds"
        assert certificate.measured > certificate.allowance + certificate.bound * (1 / 3) ** k / (2 / 3) ** k


def test_admm_reaches_the_restored_weight_to_rounding():
    design, mask = design_of(CASE), next(masks_of(CASE))
    spectrum = design.spectrum()
    rho = float(np.sqrt(spectrum[0] * spectrum[-1]))
    certificate = admm_rate(CASE.judge, design, mask, rho, 600)
    assert certificate.outcome == "holds"
    assert certificate.bound < certificate.allowance
    far = np.linalg.norm(fixed_mask_admm(CASE.judge, mask, rho=rho, iters=1).weight - design.fit(mask))
    assert certificate.measured < certificate.allowance < far
