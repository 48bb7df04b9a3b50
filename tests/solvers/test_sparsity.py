"""Every prox against brute force over supports, exact counts, and the grammar of a sparsity."""

from fractions import Fraction
from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.refusal import Refusal
from solvers.sparsity import L0, L1, Budget, KeepGroups, KeepNofM, KeepPerLayer, KeepPerRow, OnTheWay, largest, parse

SHAPE = (2, 4)
SUPPORTS = [np.reshape(bits, SHAPE) for bits in product([False, True], repeat=8)]
ALLOWED = {
    KeepPerRow(2): lambda S: (S.sum(axis=1) <= 2).all(),
    KeepPerLayer(3): lambda S: S.sum() <= 3,
    KeepNofM(1, 2): lambda S: (S.reshape(-1, 2).sum(axis=1) <= 1).all(),
    OnTheWay(1, 2, 1): lambda S: ((S.reshape(2, 2, 2).sum(axis=2) - 1).clip(0).sum(axis=1) <= 1).all(),
    KeepGroups(1, (0, 1, 1, 0)): lambda S: not (S[:, [0, 3]].any() and S[:, [1, 2]].any()),
}
integers = st.lists(st.integers(-4, 4), min_size=8, max_size=8).map(lambda z: np.reshape(z, SHAPE).astype(float))


@pytest.mark.parametrize("budget", ALLOWED, ids=str)
@given(Z=integers)
def test_projection_is_the_nearest_point_over_all_supports(budget, Z):
    V = budget.prox(Z)
    assert ALLOWED[budget](V != 0)
    nearest = min(np.square(np.where(S, Z, 0) - Z).sum() for S in SUPPORTS if ALLOWED[budget](S))
    assert np.square(V - Z).sum() == nearest
    assert budget.allows(V)
    assert budget.value(V) == 0
    assert budget.value(Z) == (0 if ALLOWED[budget](Z != 0) else inf)


@given(Z=integers, lam=st.integers(0, 8))
def test_hard_threshold_is_the_minimum_over_all_supports(Z, lam):
    penalty = L0(lam / 2)
    V = penalty.prox(Z, 1.0)
    least = min(np.square(np.where(S, Z, 0) - Z).sum() / 2 + penalty.lam * (S & (Z != 0)).sum() for S in SUPPORTS)
    assert np.square(V - Z).sum() / 2 + penalty.value(V) == least


@given(Z=integers, lam=st.integers(0, 8))
def test_soft_threshold_is_the_minimum_over_all_signs(Z, lam):
    penalty = L1(lam / 2)
    V = penalty.prox(Z, 2.0)
    candidates = [np.where(np.sign(Z - lam * S) == S, Z - lam * S, 0.0) for S in (-1, 0, 1)]
    cost = [np.square(C - Z) / 4 + penalty.lam * np.abs(C) for C in candidates]
    assert np.square(V - Z).sum() / 4 + penalty.value(V) == np.min(cost, axis=0).sum()


def test_an_entry_at_the_threshold_goes():
    assert L0(2.0).prox(np.array([[2.0, -2.0, 2.5, -3.0]]), 1.0).tolist() == [[0, 0, 2.5, -3]]
    assert L1(2.0).prox(np.array([[2.0, -2.0, 2.5, -3.0]]), 1.0).tolist() == [[0, 0, 0.5, -1]]


@given(scores=st.lists(st.integers(0, 3), min_size=1, max_size=12), share=st.floats(0, 1))
def test_the_largest_are_counted_exactly_and_ties_go_to_the_lower_index(scores, share):
    keep = round(share * len(scores))
    expected = np.zeros(len(scores), dtype=bool)
    expected[np.argsort([-s for s in scores], kind="stable")[:keep]] = True
    assert (largest(np.array(scores, dtype=float), keep) == expected).all()


def test_removed_entries_are_positive_zero():
    Z = -np.arange(1.0, 9).reshape(SHAPE)
    for sparsity in (*ALLOWED, L0(8.0), L1(4.0)):
        V = sparsity.prox(Z, 1.0)
        assert (V == 0).any()
        assert not np.signbit(V[V == 0]).any(), sparsity


@pytest.mark.parametrize(
    ("extra", "same", "defect"),
    [
        (0, KeepNofM(1, 2), lambda self, scores: largest(scores, scores.shape[-1] // self.of * self.keep + self.extra)),
        (1, OnTheWay(1, 2, 1), lambda self, scores: self.goal.mask(scores) | largest(scores, self.extra)),
    ],
    ids=["no window is safe", "what is safe uses up the extra"],
)
def test_a_wrong_mask_on_the_way_to_n_of_m_is_not_the_nearest(extra, same, defect, monkeypatch):
    budget, allowed, Z = OnTheWay(1, 2, extra), ALLOWED[same], np.array([[4.0, 3, 2, 1], [1, 1, 1, 1]])
    nearest = min(np.square(np.where(S, Z, 0) - Z).sum() for S in SUPPORTS if allowed(S))
    assert np.square(budget.prox(Z) - Z).sum() == nearest
    monkeypatch.setattr(OnTheWay, "mask", defect)
    assert not allowed(budget.prox(Z) != 0) or np.square(budget.prox(Z) - Z).sum() > nearest


def test_counts_and_levels():
    W = np.array([[1.0, 0, -2, 0], [0, 0, 3, 4]])
    assert [s.count(W) for s in (L0(1.0), L1(1.0), KeepPerRow(2))] == [4, 4, 4]
    assert (L0(0.5).value(W), L1(0.5).value(W)) == (2.0, 5.0)
    assert [s.level for s in (L0(0.5), L1(0.25), KeepPerRow(2), OnTheWay(1, 2, 3))] == [0.5, 0.25, 2, 4]
    assert [b.most(SHAPE) for b in ALLOWED if not isinstance(b, OnTheWay)] == [4, 8, 2, 2]


def test_a_budget_without_a_pattern_is_no_budget():
    for ask in (lambda: Budget(1).mask(np.ones(SHAPE)), lambda: Budget(1).most(SHAPE)):
        with pytest.raises(TypeError, match="Budget does not say"):
            ask()


shares = st.decimals(0, 100, places=2).map(lambda d: format(d.normalize(), "f"))
texts = st.one_of(
    st.builds("{}%{}".format, shares, st.sampled_from(["", "/layer"])),
    st.integers(1, 16).flatmap(lambda m: st.integers(0, m).map(lambda n: f"{n}:{m}")),
)


@given(text=texts)
def test_a_parsed_sparsity_prints_as_it_was_typed(text):
    assert str(parse(text)) == text
    assert parse(f" {text}\n") == parse(text)


@given(share=shares, shape=st.tuples(st.integers(1, 60), st.integers(1, 3000)))
def test_the_count_removed_is_the_floor_of_the_exact_share(share, shape):
    exact = Fraction(share) / 100
    row, layer = parse(f"{share}%").on(shape), parse(f"{share}%/layer").on(shape)
    assert row == KeepPerRow(shape[1] - exact.numerator * shape[1] // exact.denominator)
    assert layer == KeepPerLayer(shape[0] * shape[1] - exact.numerator * shape[0] * shape[1] // exact.denominator)


@pytest.mark.parametrize(
    ("text", "inputs", "keep"),
    [("29%", 100, 71), ("33.3%", 3000, 2001), ("0%", 7, 7), ("100%", 7, 0), ("62.5%", 16, 6)],
)
def test_shares_that_floats_would_miscount(text, inputs, keep):
    assert parse(text).on((3, inputs)) == KeepPerRow(keep)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.5", "needs its percent sign: 50%, not 0.5"),
        ("", "sparsity must be one of 50%"),
        ("101%", "between 0% and 100%"),
        ("-5%", "sparsity must be one of"),
        ("4:2", r"n at most m.*got '4:2'. Did you mean 2:4\?"),
        ("0:0", r"m at least 1; got '0:0'\.$"),
        ("heads:25%,channels:25%", "removes whole heads, channels or blocks"),
    ],
)
def test_a_sparsity_that_cannot_be_read_is_refused_in_words(text, words):
    with pytest.raises(Refusal, match=words):
        parse(text)


def test_windows_that_do_not_fit_are_refused_before_anything_runs():
    with pytest.raises(Refusal, match=r"2:4 needs an input dimension divisible by 4; this layer has 6.*use 50%"):
        parse("2:4").on((3, 6))
