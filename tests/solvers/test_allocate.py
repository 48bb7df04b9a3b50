"""Allotment by outliers: the total to the entry, the range, the order; water-filling at the ends of [0, 1]."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers import allocate
from solvers.allocate import LAMBDA, allot, keep_shares, layer_budgets, outliers, share_of, water_level
from solvers.refusal import Refusal
from solvers.sparsity import KeepPerLayer, KeepPerRow, parse


@st.composite
def models(draw):
    """Outliers and sizes of blocks, a share to remove, a lambda."""
    sizes = draw(st.lists(st.integers(1, 5000), min_size=1, max_size=9))
    counts = [draw(st.integers(0, size)) for size in sizes]
    share = draw(st.sampled_from(["0", "1", "0.3", "0.5", "0.7", "0.999"]).map(Fraction) | st.fractions(0, 1))
    return counts, sizes, share, draw(st.sampled_from([0.0, LAMBDA, 0.3, 0.5]))


def require(counts, sizes, share, lam):
    """Exact total, range at most 2 lambda, more outliers never a smaller share: all up to the one entry of rounding."""
    kept = allot(counts, sizes, share, lam)
    assert sum(kept) == sum(sizes) - int(share * sum(sizes))
    assert all(0 <= k <= n for k, n in zip(kept, sizes, strict=True))
    shares = [Fraction(k, n) for k, n in zip(kept, sizes, strict=True)]
    entry = [Fraction(1, n) for n in sizes]
    D = [Fraction(c, n) for c, n in zip(counts, sizes, strict=True)]
    for a in range(len(D)):
        for b in range(len(D)):
            assert shares[a] - shares[b] < 2 * Fraction(lam) + entry[a] + entry[b]
            assert D[a] < D[b] or shares[b] - shares[a] < entry[a] + entry[b]


@given(model=models())
def test_total_range_and_order(model):
    require(*model)


@given(model=models())
def test_exact_shares_meet_total_range_and_order_without_rounding(model):
    counts, sizes, share, lam = model
    D = [Fraction(c, n) for c, n in zip(counts, sizes, strict=True)]
    kept = sum(sizes) - int(share * sum(sizes))
    shares = keep_shares(D, sizes, kept, Fraction(lam))
    assert sum(n * k for n, k in zip(sizes, shares, strict=True)) == kept
    assert max(shares) - min(shares) <= 2 * Fraction(lam)
    assert [s for _, s in sorted(zip(D, shares, strict=True))] == sorted(shares)


@given(model=models())
def test_equal_outliers_are_uniform_and_so_is_a_lambda_of_zero(model):
    counts, sizes, share, lam = model
    kept = sum(sizes) - int(share * sum(sizes))
    uniform = [Fraction(kept, sum(sizes))] * len(sizes)
    assert keep_shares([Fraction(1, 9)] * len(sizes), sizes, kept, Fraction(lam)) == uniform
    D = [Fraction(c, n) for c, n in zip(counts, sizes, strict=True)]
    assert keep_shares(D, sizes, kept, Fraction(0)) == uniform


def test_by_hand():
    """Outlier shares 1, 2, 3 of 100: kept shares 0, lambda, 2 lambda around 30 %; unclipped, they span 2 lambda."""
    D = [Fraction(i, 100) for i in (1, 2, 3)]
    lam = Fraction(8, 100)
    assert keep_shares(D, [1000] * 3, 900, lam) == [Fraction(22, 100), Fraction(30, 100), Fraction(38, 100)]
    assert keep_shares(D, [1000, 1000, 3000], 1500, lam) == [Fraction(n, 1000) for n in (188, 268, 348)]
    assert allot([10, 20, 30], [1000] * 3, Fraction(7, 10)) == [220, 300, 380]


def test_water_fills_what_a_clipped_block_cannot_hold():
    """95 % removed, shares 0 and 0.6 apart: the first block would keep less than nothing, so the second keeps all."""
    assert keep_shares([Fraction(0), Fraction(1)], [100, 100], 10, Fraction(3, 10)) == [0, Fraction(1, 10)]
    assert keep_shares([Fraction(0), Fraction(1)], [100, 100], 190, Fraction(3, 10)) == [Fraction(9, 10), 1]
    assert keep_shares([Fraction(0), Fraction(1)], [100, 300], 50, Fraction(1, 2)) == [0, Fraction(1, 6)]


@pytest.mark.parametrize("share", ["0", "1/3", "1"])
def test_one_block_keeps_the_total(share):
    assert allot([3], [10], Fraction(share)) == [10 - int(Fraction(share) * 10)]


@pytest.mark.parametrize("lam", [-0.01, 0.51, float("inf"), float("nan")])
def test_a_lambda_that_cannot_be_followed_is_refused(lam):
    with pytest.raises(Refusal, match=r"lambda must lie between 0 and 0\.5"):
        allot([1, 2], [10, 10], Fraction(1, 2), lam)


@pytest.mark.parametrize(
    "defect",
    [
        ("water_level", lambda v, sizes, kept: Fraction(kept, sum(sizes))),  # not centred
        ("water_level", lambda v, sizes, kept: Fraction(kept, sum(sizes)) - sum(v) / len(v)),  # the plain mean of [1]
        ("_clipped", lambda share: share),
        ("floor", ceil),
        ("Fraction", lambda *a: Fraction(*a) / 2 if len(a) == 1 else -Fraction(*a)),  # outliers keep less
    ],
    ids=["not centred", "plain mean", "not clipped", "rounded up", "order reversed"],
)
def test_a_planted_defect_is_noticed(defect, monkeypatch):
    models = [([1, 5, 2, 9], [100, 300, 70, 11], Fraction(s), lam) for s in ("0.7", "0.97") for lam in (LAMBDA, 0.5)]
    for model in models:
        require(*model)
    monkeypatch.setattr(allocate, *defect)
    with pytest.raises((AssertionError, StopIteration)):
        [require(*model) for model in models]


def test_water_level_is_between_nothing_and_everything():
    v = [Fraction(0), Fraction(1, 2)]
    assert water_level(v, [4, 4], 0) == Fraction(-1, 2)
    assert water_level(v, [4, 4], 8) == 1


BLOCKS = [[(6, 10), (3, 10), (10, 6)], [(6, 10), (3, 10), (10, 6)], [(8, 10)]]


@given(model=models(), per=st.sampled_from(["row", "layer"]))
def test_layers_keep_their_blocks_total(model, per):
    counts, _, share, lam = model
    sizes = [sum(r * c for r, c in block) for block in BLOCKS]
    kept = allot([count % n for count, n in zip((counts * 3)[:3], sizes, strict=True)], sizes, share, lam)
    budgets = layer_budgets(kept, BLOCKS, per)
    totals = [
        sum(b.keep * (rows if per == "row" else 1) for b, (rows, _) in zip(block, shapes, strict=True))
        for block, shapes in zip(budgets, BLOCKS, strict=True)
    ]
    assert all(isinstance(b, KeepPerRow if per == "row" else KeepPerLayer) for block in budgets for b in block)
    if per == "layer":
        assert totals == kept
    else:
        most = max(rows for block in BLOCKS for rows, _ in block)
        partly = 0 < budgets[-1][-1].keep < BLOCKS[-1][-1][1]
        assert abs(sum(totals) - sum(kept)) <= (BLOCKS[-1][-1][0] if partly else most) / 2


def test_outliers_are_counted_over_all_layers_of_the_block():
    """Scores 1 (63 times) and 65: mean 2, so one entry exceeds 5 means, and none exceeds 32.5."""
    spike, norms = np.ones((4, 8)), np.ones(8)
    spike[:, 0], norms[0] = 0.5, 2.0
    spike[0, 0] = -32.5
    layers = [(np.ones((4, 8)), np.ones(8)), (spike, norms)]
    assert outliers(layers, 5.0) == (1, 1, 1, 64)
    assert outliers(layers, 32.5) == (0, 0, 0, 64)
    assert outliers(layers, 32.5, error=0.01) == (0, 0, 1, 64)
    assert outliers(layers, 32.0, error=0.001) == (1, 1, 1, 64)
    assert outliers(layers, 32.0, error=0.01) == (1, 0, 1, 64)
    assert outliers([(np.zeros((2, 2)), np.ones(2))], 5.0) == (0, 0, 0, 4)


def test_scores_scale_together():
    rng = np.random.default_rng(0)
    layers = [(rng.standard_normal((6, 5)), rng.uniform(1, 9, 5)) for _ in range(3)]
    assert outliers([(4 * W, n / 2) for W, n in layers], 2.0) == outliers(layers, 2.0)
    assert outliers(layers, 2.0).above > 0


def test_a_pattern_has_no_share_to_move():
    assert share_of(parse("62.5%/layer")) == Fraction(5, 8)
    with pytest.raises(Refusal, match=r"2:4 keeps the same share everywhere. Use a share such as 50%"):
        share_of(parse("2:4"))
