"""OBS by hand and out of order."""

from itertools import permutations

import numpy as np

from theory_checks.removal import obs_cost, obs_order, remove
from theory_checks.restoration import design_of
from theory_checks.synthetic import Case

CASE = Case("autoregressive", rows=2, inputs=4, seed=1)


def test_the_other_input_takes_over_what_the_removed_one_gave():
    """H = [[2, 1], [1, 2]], H^-1 = [[2, -1], [-1, 2]] / 3: removing w_0 = 1 adds 1/2 to w_1 and leaves 1 / H_11."""
    after, inverse = remove(np.array([1.0, 1.0]), np.array([[2.0, -1.0], [-1.0, 2.0]]), 0)
    assert after.tolist() == [0.0, 1.5]
    assert inverse.tolist() == [[0.0, 0.0], [0.0, 1.5]]


def test_every_order_ends_at_the_same_weight():
    design = design_of(CASE)
    for order in permutations(range(3)):
        assert obs_order(CASE.judge, design, np.array(order)).outcome == "holds"


def test_nothing_and_everything_can_be_removed():
    design = design_of(CASE)
    assert obs_order(CASE.judge, design, np.array([], dtype=np.int64)).outcome == "holds"
    assert obs_order(CASE.judge, design, np.arange(4)).measured == 0.0


def test_a_weight_that_is_kept_costs_its_square_over_the_inverse():
    design = design_of(CASE)
    inverse = np.linalg.inv(CASE.judge.H)
    certificate = obs_cost(CASE.judge, design, 2)
    zeroed = CASE.judge.W0.copy()
    zeroed[:, 2] = 0.0
    assert certificate.outcome == "holds"
    assert design.value(zeroed) > np.square(CASE.judge.W0[:, 2]).sum() / (2 * inverse[2, 2])
