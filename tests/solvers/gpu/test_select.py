"""Exact selection: the reference's mask on every array library, bit for bit, ties, zeros and denormals included."""

import hashlib
from itertools import product

import array_api_compat
import numpy as np
import pytest

from solvers.gpu import select
from solvers.sparsity import L0, L1, KeepNofM, KeepPerLayer, KeepPerRow, OnTheWay, largest

TINY = {"float64": 5e-324, "float32": 1e-45}
SHAPE = (6, 24)


def _scores(dtype):
    """Magnitudes (6, 24) of every kind that a sort may get wrong."""
    normal = np.abs(np.random.default_rng(0).standard_normal(SHAPE))
    ladder = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    kinds = {
        "continuous": normal,
        "all equal": np.ones(SHAPE),
        "all zero": np.zeros(SHAPE),
        "small integers": np.round(2 * normal),
        "zeros of both signs": np.where(ladder % 3, 0.0, -0.0) + 0 * normal,
        "denormals": (ladder % 7) * np.float64(TINY[dtype]),
        "neighbours in the last bit": 1 + (ladder % 5) * float(np.finfo(dtype).eps),
        "huge and infinite": np.where(ladder % 11, (ladder % 4) / 4 * float(np.finfo(dtype).max), np.inf),
        "one entry stands out": np.where(ladder == 17, 1e9, 1.0),
    }
    return {kind: values.astype(dtype) for kind, values in kinds.items()}


def _budgets():
    size = SHAPE[0] * SHAPE[1]
    yield from (KeepPerRow(keep) for keep in (0, 1, 12, 23, 24))
    yield from (KeepPerLayer(keep) for keep in (0, 1, size // 2, size - 1, size))
    yield from (KeepNofM(keep, of) for keep, of in ((0, 4), (1, 4), (2, 4), (4, 4), (4, 8), (5, 12)))


def _digest(masks):
    return hashlib.sha256(b"".join(np.ascontiguousarray(mask).tobytes() for mask in masks)).hexdigest()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_library_finds_the_reference_mask_bit_for_bit(backend, dtype):
    pairs = [(budget, scores) for budget in _budgets() for scores in _scores(dtype).values()]
    expected = _digest(budget.mask(scores) for budget, scores in pairs)
    found = _digest(backend.numpy(select.mask(budget, backend.array(scores, dtype))) for budget, scores in pairs)
    assert found == expected
    signs = np.where(np.arange(SHAPE[1]) % 3, 1.0, -1.0).astype(dtype)
    pairs = [(keep, scores * sign) for keep in (1, 12, 23) for scores in _scores(dtype).values() for sign in (1, signs)]
    given = [(keep, backend.array(scores, dtype)) for keep, scores in pairs]
    radix = [select.radix(array_api_compat.array_namespace(scores), scores, keep) for keep, scores in given]
    assert _digest(map(backend.numpy, radix)) == _digest(largest(scores, keep) for keep, scores in pairs)


def test_a_digest_knows_the_other_tie_rule():
    pairs = [(budget, scores) for budget in _budgets() for scores in _scores("float64").values()]
    found = _digest(budget.mask(scores) for budget, scores in pairs)
    higher = _digest(budget.mask(scores[:, ::-1])[:, ::-1] for budget, scores in pairs)
    assert found != higher


@pytest.mark.parametrize("defect", ["a bit forgotten", "bits unordered", "ties upward"])
def test_a_defect_of_the_radix_passes_is_noticed(defect, monkeypatch):
    exact, tied = select.ordered_bits, select.first_of_tied
    if defect == "a bit forgotten":
        monkeypatch.setattr(select, "ordered_bits", lambda scores: (exact(scores)[0] & ~1, 64))
    elif defect == "bits unordered":
        monkeypatch.setattr(select, "ordered_bits", lambda scores: (scores.view(np.int64), 64))
    else:
        turned = lambda xp, bits, kth, keep: tied(xp, bits[:, ::-1], kth, keep)[:, ::-1]  # noqa: E731
        monkeypatch.setattr(select, "first_of_tied", turned)
    every = [*_scores("float64").values(), -_scores("float64")["continuous"]]
    xp = array_api_compat.array_namespace(every[0])
    assert any((select.radix(xp, scores, 12) != largest(scores, 12)).any() for scores in every)


@pytest.mark.parametrize("width", [4, select.NARROW + 1])
def test_every_window_of_three_values_by_enumeration(backend, width):
    values = np.array(list(product((0.0, 1.0, 2.0), repeat=4)))
    scores = np.hstack([values, np.ones((len(values), width - 4))])
    order = np.argsort(-scores, axis=1, kind="stable")
    for keep in range(width + 1):
        expected = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(expected, order[:, :keep], True, axis=1)
        assert np.array_equal(backend.numpy(select.largest(backend.array(scores), keep)), expected)
        assert np.array_equal(largest(scores, keep), expected)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("sparsity", [L0(0.1), L0(0.0), L1(0.3), L1(0.0), OnTheWay(2, 4, 9), *_budgets()], ids=str)
def test_the_prox_is_the_references_on_the_same_numbers(backend, sparsity, dtype):
    Z = np.round(4 * np.random.default_rng(1).standard_normal(SHAPE)).astype(dtype) / 4
    Z[0, :2] = 0.0, -0.0
    if backend.name == "numpy read-only":
        pytest.skip("the prox is written over its argument")
    mine, s = backend.array(Z.copy(), dtype), 0.5
    scratch = backend.array(np.zeros(SHAPE), dtype), backend.array(np.zeros(SHAPE), dtype)
    found = backend.numpy(select.prox(sparsity, mine, s, scratch))
    assert np.array_equal(found, sparsity.prox(Z, s))
    assert not np.signbit(found[found == 0]).any()


def test_scores_are_not_written_to(backend):
    scores = _scores("float64")["continuous"]
    given = backend.array(scores)
    select.mask(KeepPerRow(5), given)
    select.mask(OnTheWay(2, 4, 9), given)
    assert np.array_equal(backend.numpy(given), scores)


def test_the_penalty_is_the_references(backend):
    W = np.array([[1.0, 0.0, -2.0], [0.0, 0.5, 0.0]])
    given = backend.array(W)
    for sparsity in (L0(0.25), L1(0.25), KeepPerRow(2)):
        assert select.penalty(sparsity, given) == sparsity.value(W)


def test_arrays_on_a_device_are_selected_by_radix_passes(monkeypatch):
    """No device is needed to see which text is taken, and that its mask is the same."""
    scores, taken, right = np.abs(np.random.default_rng(2).standard_normal((3, 40))), [], select.radix
    monkeypatch.setattr(select, "radix", lambda xp, a, keep: taken.append(keep) or right(xp, a, keep))
    assert np.array_equal(select.largest(scores, 7), largest(scores, 7))
    assert taken == []
    monkeypatch.setattr(select, "on_device", lambda array: True)
    assert np.array_equal(select.largest(scores, 7), largest(scores, 7))
    assert taken == [7]
