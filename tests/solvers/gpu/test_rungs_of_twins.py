"""Which products of the updating twins follow the rung of the place, and which stay in its dtype, by value."""

import numpy as np
import pytest

import solvers
from solvers import admm
from solvers.array import Place, full_precision
from solvers.gpu import admm as fast_admm
from solvers.gpu import alps as fast_alps
from solvers.gpu import precision, refine
from solvers.gpu.layer import Layer
from solvers.rungs import RUNGS
from solvers.sparsity import KeepNofM, KeepPerRow
from theory_checks.rungs import LOW
from theory_checks.synthetic import Case
from theory_checks.twins_refining import twin_fista
from theory_checks.twins_updating import twin_admm, twin_alps

WIDE = Case("language_like", rows=6, inputs=48, seed=3)
HALF = KeepPerRow(20)
BITS = {"fp64": 53, "fp32": 24, "bf16x3": 17, "tf32": 11, "bf16": 8}


def _place(backend, rung):
    return Place.of(backend.array(np.zeros(1)), rung)


def _times(place):
    """What ADMM, ALPS and FISTA multiply a factor of the Gram with."""
    layer = object.__new__(Layer)
    layer.xp, layer.rung = place.xp, RUNGS[place.rung]

    def multiply(left, right):
        with full_precision(place.xp):
            return layer.times(left, precision.split(right, layer.rung), place.xp.empty_like(left))

    return multiply


def _image(place):
    """What refinement multiplies its corrections with."""

    def multiply(left, right):
        everywhere = place.xp.ones_like(left, dtype=place.xp.bool)
        support = refine.Support(place.xp, left.dtype, None, None, None, right, None, everywhere)
        with full_precision(place.xp):
            return support.image(left, place.xp.empty_like(left))

    return multiply


@pytest.mark.parametrize("rung", RUNGS)
def test_factors_follow_the_rung_and_refinement_its_dtype(backend, rung):
    place = _place(backend, rung)
    assert precision.kept_bits(_times(place), place) == BITS[rung]
    assert precision.kept_bits(_image(place), place) == (53 if rung == "fp64" else 24)


def test_factors_that_ignore_the_rung_are_seen(backend, monkeypatch):
    place = _place(backend, "bf16")
    monkeypatch.setattr(precision, "split", lambda array, rung: (array,))
    monkeypatch.setattr(precision, "product", lambda A, M, rung, out: place.xp.matmul(A, M[0]))
    assert precision.kept_bits(_times(place), place) == 24


@pytest.mark.parametrize("rung", LOW)
def test_every_step_is_the_references_to_the_loss_of_the_rung(backend, rung):
    place = _place(backend, rung)
    for budget in (HALF, KeepNofM(2, 4)):
        begin = admm.State(WIDE.judge.W0, np.zeros_like(WIDE.judge.W0))
        for found in (twin_admm(WIDE.judge, budget, begin, 0, place=place), twin_alps(WIDE.judge, budget, 7, place)):
            assert found.outcome == "holds", str(found)
    found = twin_fista(WIDE.judge, WIDE.absolute, WIDE.some_weight(), place=place)
    assert found.outcome == "holds", str(found)


def test_the_loss_of_a_rung_shows_in_the_steps():
    """The same steps on bfloat16 are further from the reference's than on float32, by several of its bits."""
    begin = admm.State(WIDE.judge.W0, np.zeros_like(WIDE.judge.W0))
    off = {}
    for rung in ("bf16", "fp32"):
        place = Place.of(np.zeros(1), rung)
        found = (twin_admm(WIDE.judge, HALF, begin, 0, place=place), twin_alps(WIDE.judge, HALF, 7, place))
        off[rung] = np.array([certificate.measured for certificate in found])
    assert (off["bf16"] > 16 * off["fp32"]).all()


@pytest.mark.parametrize("rung", LOW)
def test_what_must_not_lose_digits_is_float32s_bit_for_bit(backend, rung):
    low, single = _place(backend, rung), _place(backend, "fp32")
    W = HALF.prox(WIDE.judge.W0)
    for how in ("gradient:3", "exact"):
        one, two = (refine.refine(WIDE.judge, W != 0, W, how, place) for place in (low, single))
        assert np.array_equal(one, two)
    one, two = (solvers.find("sparsegpt").gpu(WIDE.judge, HALF, place).weight for place in (low, single))
    assert np.array_equal(one, two)


def test_a_factor_is_split_once(backend, monkeypatch):
    seen, split = [], precision.split
    monkeypatch.setattr(precision, "split", lambda array, rung: seen.append(array.shape) or split(array, rung))
    square = WIDE.judge.H.shape
    fast_admm.admm(WIDE.judge, HALF, _place(backend, "bf16x3"))
    assert seen.count(square) == 2  # H, and the factor
    fast_alps.alps(WIDE.judge, HALF, _place(backend, "bf16x3"), iters=6, polish=0)
    assert seen.count(square) == 4
