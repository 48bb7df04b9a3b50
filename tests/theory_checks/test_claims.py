"""Every claim under an adversary that pushes its two sides together; past failures are examples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, target
from hypothesis import strategies as st

from solvers import find, run
from solvers.sparsity import KeepGroups, KeepNofM, KeepPerLayer, KeepPerRow
from theory_checks import certify, certify_saved
from theory_checks.certificate import Certificate
from theory_checks.claims import CLAIMS, worst
from theory_checks.optimality import separable_bound
from theory_checks.prox import prox_minimises
from theory_checks.stationarity import masked_least_squares, refinement_descends
from theory_checks.strategies import cases
from theory_checks.support import exact_count, violations, windows
from theory_checks.synthetic import FAMILIES, Case
from theory_checks.synthetic import cases as walk


def _closeness(certificate):
    sides = abs(certificate.measured) + abs(certificate.bound) + certificate.allowance
    return certificate.excess / sides if np.isfinite(sides) and sides > 0 else -1.0


@pytest.mark.parametrize("name", CLAIMS)
@given(case=cases())
@example(case=Case("dead", rows=4, inputs=5, seed=835202398, tied=True, keep=0.7))  # exact-count once failed
@example(case=Case("dead", rows=3, inputs=3, seed=190987833, keep=0.5, strength=0.01045))  # lower-bound once failed
@example(case=Case("dead", rows=1, inputs=1))  # the Gram is zero
@example(case=Case("rank_deficient", rows=2, inputs=12))
@example(case=Case("duplicated", rows=2, inputs=12, keep=0.7))
@example(case=Case("orthogonal", rows=3, inputs=8, tied=True))  # every choice ties
def test_a_claim_never_fails(name, case):
    certificates = list(CLAIMS[name](case))
    failed = [str(c) for c in certificates if c.outcome == "fails"]
    assert not failed
    target(_closeness(worst(certificates)), label=name)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_applies_to_most_layers_and_tells_its_source(name):
    worsts = [worst(CLAIMS[name](case)) for case in walk(12, 0)]
    assert sum(not c.applies for c in worsts) > 6
    assert {c.name for c in worsts} == {name}
    assert all(c.claim and c.where for c in worsts)


@pytest.mark.parametrize("stages", [{}, {"refine": "exact"}, {"swaps": "all"}, {"swaps": 1, "refine_mu": 0.0}], ids=str)
@given(case=cases())
def test_a_pruned_layer_is_certified_as_the_toys_are(stages, case):
    method = find("maiht")
    if stages.get("refine_mu") == 0.0 and case.family in ("rank_deficient", "dead"):
        case = replace(case, family="iid")  # no inverse without a ridge, refused in words
    done = run(method, case.problem, case.budgets[0], **stages)
    certificates = certify(method, done, stages.get("refine", "none"))
    assert not [str(c) for c in certificates if c.outcome == "fails"]
    names = [c.name for c in certificates]
    assert {"step-size", "safeguard"} <= set(names)
    assert names.count("masked-least-squares") == bool(stages)
    assert names.count("one-swap-optimal") == names.count("swaps-descend") == ("swaps" in stages)
    saved = done.weight.astype(np.float32).astype(np.float64)
    bounded = "not applicable" if done.refit.gram.ridge == 0 else "holds"
    assert [c.outcome for c in certify_saved(done.refit, done.sparsity, saved)] == ["holds", bounded]


def test_saved_weights_with_one_entry_too_many_fail():
    case = Case(seed=8)
    done = run(find("maiht"), case.problem, KeepPerRow(4))
    saved = done.weight.copy()
    saved[0, np.flatnonzero(saved[0] == 0)[0]] = 1.0
    assert certify_saved(done.problem, done.sparsity, saved)[0].outcome == "fails"


def test_a_negative_zero_is_no_exact_count():
    W0, W = np.array([[1.0, 2, 3, 4]]), np.array([[-0.0, 0, 3, 4]])
    assert exact_count(KeepPerRow(2), W0, W).outcome == "fails"
    assert exact_count(KeepPerRow(2), W0, np.abs(W)).outcome == "holds"


def test_a_window_may_be_short_only_by_weights_born_zero():
    W0, W = np.array([[1.0, 2, 0, 0]]), np.array([[0.0, 2, 0, 0]])
    assert exact_count(KeepPerRow(3), W0, W).outcome == "holds"
    assert exact_count(KeepPerRow(2), np.ones((1, 4)), W).outcome == "fails"


def test_windows_are_what_a_budget_counts_in():
    A = np.arange(8.0).reshape(2, 4)
    assert windows(KeepPerRow(1), A) is A
    assert windows(KeepPerLayer(1), A).tolist() == [list(range(8))]
    assert windows(KeepNofM(1, 2), A).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert windows(KeepGroups(1, (0, 1, 1, 0)), A).tolist() == [[14, 14]]
    assert [violations(b, A) for b in (KeepPerRow(3), KeepPerLayer(4), KeepNofM(1, 2))] == [1, 3, 3]


@given(case=cases(), share=st.integers(0, 3))
def test_groups_are_projected_to_the_nearest_point(case, share):
    groups = tuple(j % 3 for j in range(case.inputs))
    budget = KeepGroups(min(share, max(groups) + 1), groups)
    V = budget.prox(case.W0)
    energy = np.sort(np.bincount(groups, weights=np.square(case.W0).sum(axis=0)))
    certificate = prox_minimises(budget, case.W0, 1.0)
    lost = float(np.square(V - case.W0).sum())
    reach = certificate.allowance
    assert lost <= energy[: len(energy) - budget.keep].sum() + 2 * reach
    assert certificate.outcome == "holds"


def test_the_separable_bound_by_hand():
    judge = Case("orthogonal", rows=1, inputs=4).problem.normalised(1.0)
    judge.W0[:] = [[1.0, 2, 3, 4]]
    assert separable_bound(judge, KeepPerRow(2)) == (1 + 4) / 2
    assert separable_bound(judge, KeepPerLayer(4)) == 0


def test_weights_that_leave_the_support_fail_whatever_their_value():
    case = Case(seed=1)
    mask = KeepPerRow(4).mask(np.abs(case.W0))
    before = np.where(mask, case.W0, 0.0)
    assert refinement_descends(case.judge, before, case.judge.W0).outcome == "fails"
    assert masked_least_squares(case.judge, mask, case.judge.W0, tol=1.0).outcome == "fails"


def test_the_worst_is_nearest_to_failing_and_nan_is_worse_than_all():
    far, near, broken = (Certificate("c", "", "", m, 1.0) for m in (0.1, 0.9, float("nan")))
    idle = Certificate("c", "", "", 9.0, 1.0, applies="not here")
    assert worst([far, near, idle]) is near
    assert worst([near, broken, far]) is broken
    assert worst([idle]) is idle


def test_the_walk_begins_with_constructed_layers_is_seeded_and_shares_nothing():
    first, again, other = (list(walk(30, seed)) for seed in (5, 5, 6))
    assert first == again != other
    assert {case.family for case in walk(200, 0)} == set(FAMILIES)
    first[0].run("wanda", first[0].budgets[0])
    assert not again[0]._runs
