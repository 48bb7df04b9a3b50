"""The concave mask penalty: thresholds by hand, fractional minimisers below them, none above."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, target
from hypothesis import strategies as st

from theory_checks import binary_penalty
from theory_checks.binary_penalty import (
    Relaxed,
    binary_penalty_box,
    binary_penalty_edge,
    box_threshold,
    descend_box,
    descend_edges,
    edge_threshold,
    mask_problem,
    masks,
    on_slice,
)
from theory_checks.certificate import allowance
from theory_checks.strategies import cases
from theory_checks.synthetic import Case

Q = np.array([[4.0, 1.0], [1.0, 2.0]])
HALF = np.array([[0.5, 0.5]])


def test_thresholds_and_objective_by_hand():
    assert box_threshold(Q) == 2
    assert edge_threshold(Q) == (4 + 2 - 2) / 4
    problem = Relaxed(Q, lam=1.0, rho=3.0)
    assert problem.value(np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]])).tolist() == [4, 2, 1 + 1 + 1.5]
    assert problem.grad(HALF).tolist() == [[-2.5 + 1, -1.5 + 1]]


def test_masks_are_all_of_their_size():
    assert masks(3, range(1, 2)).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert len(masks(5, range(6))) == 32


@given(case=cases(), rho=st.floats(0, 3))
def test_descent_descends_and_stays_inside(case, rho):
    problem = replace(mask_problem(case), rho=rho)
    p = len(problem.Q)
    starts = case.rng(70).random((5, p))
    found = descend_box(problem, starts)
    assert ((found >= 0) & (found <= 1)).all()
    assert (problem.value(found) <= problem.value(starts) + allowance(problem.scale, p**2)).all()
    k = max(1, p // 2)
    starts = on_slice(case.rng(71), p, k, 5)
    found = descend_edges(problem, starts)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.abs(found.sum(axis=1) - k).max() <= allowance(p, 66 * binary_penalty.SWEEPS)
    assert (problem.value(found) <= problem.value(starts) + allowance(problem.scale, p**2)).all()


@given(case=cases(), factor=st.floats(1, 3), price=st.floats(0, 2))
def test_from_the_threshold_on_no_relaxed_mask_is_better(case, factor, price):
    problem = mask_problem(case)
    p = len(problem.Q)
    problem = replace(problem, lam=2 * price * problem.lam)
    box = replace(problem, rho=factor * box_threshold(problem.Q))
    certificates = [binary_penalty_box(box, case.rng(72).random((6, p)))]
    if p > 1:
        edge = replace(problem, rho=factor * edge_threshold(problem.Q))
        certificates.append(binary_penalty_edge(edge, p // 2, on_slice(case.rng(73), p, p // 2, 6)))
    for certificate in certificates:
        assert certificate.outcome == "holds", str(certificate)
        target(certificate.excess / (1 + abs(certificate.bound)), label=certificate.name)


@given(case=cases(), factor=st.floats(1.01, 3))
def test_above_the_threshold_local_minima_of_the_box_are_binary(case, factor):
    problem = mask_problem(case)
    assume((np.diag(problem.Q) > 0).all())
    problem = replace(problem, rho=factor * box_threshold(problem.Q))
    assert np.isin(descend_box(problem, case.rng(74).random((6, len(problem.Q)))), (0.0, 1.0)).all()


def test_at_two_percent_of_the_threshold_most_minimisers_are_fractional():
    fractional = 0
    for seed in range(30):
        problem = mask_problem(Case("autoregressive", inputs=6, seed=seed))
        for share, count in ((0.02, 1), (1.001, 0)):
            there = replace(problem, rho=share * box_threshold(problem.Q))
            found = descend_box(there, np.random.default_rng(seed).random((8, 6)))
            best = found[there.value(found).argmin()]
            fractional += count * bool((best * (1 - best)).any())
            assert count or not (best * (1 - best)).any()
    assert fractional >= 24


def test_thresholds_are_sharp_where_the_objective_is_constant(monkeypatch):
    one, pair = Relaxed(np.eye(1), lam=0.5, rho=0.5), Relaxed(np.eye(2), rho=0.5)
    assert binary_penalty_box(one, HALF[:, :1]).slack == 0
    assert binary_penalty_edge(pair, 1, HALF).slack == 0
    monkeypatch.setattr(binary_penalty, "box_threshold", lambda Q: 0.99 * box_threshold(Q))
    monkeypatch.setattr(binary_penalty, "edge_threshold", lambda Q: 0.99 * edge_threshold(Q))
    assert binary_penalty_box(replace(one, rho=0.99 * 0.5), HALF[:, :1]).outcome == "fails"
    assert binary_penalty_edge(replace(pair, rho=0.99 * 0.5), 1, HALF).outcome == "fails"


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: binary_penalty_box(Relaxed(Q, rho=1.5), HALF), "rho = 1.5 < 2"),
        (lambda: binary_penalty_edge(Relaxed(Q, rho=0.5), 1, HALF), "rho = 0.5 < 1"),
        (lambda: binary_penalty_edge(Relaxed(np.eye(1), rho=1.0), 1, np.ones((1, 1))), "inputs = 1 < 2"),
        (lambda: binary_penalty_box(Relaxed(np.eye(11), rho=1.0), np.ones((1, 11))), "inputs = 11 > 10"),
    ],
)
def test_outside_its_assumptions_it_says_why(certificate, reason):
    assert certificate().applies == reason
