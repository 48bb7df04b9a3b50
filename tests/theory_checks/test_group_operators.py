"""Group thresholds by hand, against their neighbours, and where single inputs make them the ordinary ones."""

import numpy as np
from hypothesis import given, target
from hypothesis import strategies as st

from solvers.groups import GroupL0, GroupL1, group_norms
from solvers.sparsity import L0, L1, KeepGroups
from theory_checks.certificate import allowance
from theory_checks.group_operators import group_choice, group_decomposition, group_stationary
from theory_checks.strategies import cases

Z = np.array([[3.0, 1.0, 4.0], [0.0, 0.0, 0.0]])
GROUPS = (0, 1, 0)  # norms 5 and 1
STEPS = st.floats(0.05, 2)


def _groups(case):
    return tuple(j % 3 for j in range(case.inputs))


def test_by_hand():
    assert group_norms(Z, GROUPS).tolist() == [5, 1]
    assert GroupL1(2.5, GROUPS).prox(Z, 1.0).tolist() == [[1.5, 0, 2], [0, 0, 0]]
    assert GroupL1(1.0, GROUPS).value(Z) == 6
    assert GroupL0(0.5, GROUPS).prox(Z, 1.0).tolist() == [[3, 0, 4], [0, 0, 0]]  # 1 > 2 * 0.5 is false: a tie goes
    assert GroupL0(0.49, GROUPS).prox(Z, 1.0).tolist() == Z.tolist()
    assert GroupL0(2.0, GROUPS).value(Z) == 4


def test_removed_entries_are_plain_zeros_and_inputs_are_not_changed():
    given_, before = -Z, (-Z).copy()
    for penalty in (GroupL1(9.0, GROUPS), GroupL0(99.0, GROUPS)):
        found = penalty.prox(given_, 1.0)
        assert not found.any()
        assert not np.signbit(found).any()
    assert np.array_equal(given_, before)


@given(case=cases(), s=STEPS)
def test_groups_of_one_input_in_one_row_are_the_plain_thresholds(case, s):
    row, single = case.W0[:1], tuple(range(case.inputs))
    lam = case.absolute.lam
    soft = GroupL1(lam, single).prox(row, s)
    assert np.abs(soft - L1(lam).prox(row, s)).max() <= allowance(float(np.abs(row).max()), 1)
    threshold, scale = np.sqrt(2 * lam * s), np.abs(row)
    apart = np.abs(scale - threshold) > allowance(threshold + scale.max(), 1)
    assert np.array_equal(GroupL0(lam, single).prox(row, s)[apart], L0(lam).prox(row, s)[apart])


@given(case=cases(), s=STEPS, share=st.floats(0, 1.5), seed=st.integers(0, 99))
def test_no_weight_beats_a_group_threshold(case, s, share, seed):
    groups, W = _groups(case), case.some_weight()
    lam = share * float(np.median(group_norms(W, groups))) / s
    rng = np.random.default_rng(seed)
    for penalty in (GroupL1(lam, groups), GroupL0(lam**2 * s / 2, groups)):
        V = penalty.prox(W, s)
        for other in (W, 0 * W, V + rng.standard_normal(V.shape) * 0.1, V * rng.uniform(0.5, 1.5, case.inputs)):
            costs = [float(np.square(U - W).sum()) / (2 * s) + penalty.value(U) for U in (V, other)]
            assert costs[0] <= costs[1] + allowance(costs[0] + costs[1], W.size)


@given(case=cases(), s=STEPS, share=st.floats(0, 1.5))
def test_the_claims_hold_at_any_penalty(case, s, share):
    groups, W = _groups(case), case.W0
    t = share * float(np.median(group_norms(W, groups)))
    certificates = [
        group_stationary(GroupL1(t / s, groups), W, s),
        group_decomposition(GroupL1(t / s, groups), W, s),
        group_choice(GroupL0(t**2 / (2 * s), groups), W, s),
    ]
    for certificate in certificates:
        assert certificate.outcome == "holds", str(certificate)
        sides = certificate.measured + certificate.bound + certificate.allowance
        if sides > 0:
            target(certificate.excess / sides, label=certificate.name)


@given(case=cases(), keep=st.integers(0, 3))
def test_a_price_between_two_norms_keeps_as_many_groups_as_a_budget_does(case, keep):
    groups, W = _groups(case), case.some_weight(31)
    squares = np.sort(np.square(group_norms(W, groups)))[::-1]
    keep = min(keep, len(squares))
    around = np.concatenate([[2 * squares[0] + 1], squares, [0.0]])
    lam = (around[keep] + around[keep + 1]) / 4
    assert np.array_equal(GroupL0(lam, groups).prox(W, 1.0), KeepGroups(keep, groups).prox(W))


def test_too_many_groups_are_told():
    assert group_choice(GroupL0(1.0, tuple(range(13))), np.ones((1, 13)), 1.0).applies == "groups = 13 > 12"
