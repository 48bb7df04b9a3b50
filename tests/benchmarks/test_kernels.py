"""The kernel benchmark: which pairs it times, that they are interleaved, and what its records say."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kernels
from benchmarks.__main__ import _ratios
from benchmarks.records import append, read
from solvers.gpu.layer import Layer

SHAPE = (8, 16)


@pytest.fixture(scope="module")
def records() -> list[dict]:
    return list(kernels.kernels(shapes=(SHAPE,), rounds=3, exchanged=(SHAPE,)))


def test_twins_are_timed_against_their_products_and_their_reference(records: list[dict]) -> None:
    pairs = [(r["what"], r["against"]) for r in records if r["benchmark"] == "kernel"]
    assert pairs[:4] == [
        ("maiht twin", "2 products with the Gram"),
        ("maiht reference, float64", "maiht twin"),
        ("iht twin", "1 products with the Gram"),
        ("iht reference, float64", "iht twin"),
    ]
    assert pairs[4:10] == [
        ("admm twin, a run", "6 products with the Gram"),
        ("admm reference, float64, a run", "admm twin, a run"),
        ("alps twin, a run", "12 products with the Gram"),
        ("alps reference, float64, a run", "alps twin, a run"),
        ("sparsegpt twin, a run", "1 products with the Gram"),
        ("sparsegpt reference, float64, a run", "sparsegpt twin, a run"),
    ]
    assert pairs[10:15] == [pair for pair in pairs[:10] if "reference" not in pair[0]]  # NumPy, then torch
    found = {against for _, against in pairs[15:29]}
    assert found == {"a copy of the scores", "torch.sort", "torch.kthvalue", "torch.topk", "radix passes"}
    assert pairs[29] == ("triangle of a Gram", "its whole")
    assert {against for _, against in pairs[30:]} == {"swaps twin"}
    assert len(pairs) == 10 + 5 + 14 + 1 + 3
    libraries = [r["library"] for r in records if r["benchmark"] == "kernel"]
    assert libraries == 10 * ["numpy"] + 20 * ["torch"] + 3 * ["numpy"]


def test_a_record_holds_both_sides_and_their_ratio(records: list[dict], tmp_path: Path) -> None:
    for record in records:
        append(tmp_path / "records.jsonl", record)
    for r in (r for r in read([tmp_path / "records.jsonl"]) if r["benchmark"] == "kernel"):
        assert r["ratio"] == r["seconds"][0] / r["seconds"][1] > 0
        assert r["ratio_min"] == r["seconds_min"][0] / r["seconds_min"][1] > 0
        assert all(least <= middle for least, middle in zip(r["seconds_min"], r["seconds"], strict=True))
        assert (r["shape"], r["rounds"], r["device"]) == (list(SHAPE), 3, "cpu")
    assert _ratios(records).row_count == 33


def test_the_agreement_of_the_precisions_is_recorded(records: list[dict]) -> None:
    (found,) = (record for record in records if record["benchmark"] == "kernel-agreement")
    assert 0 <= found["support_difference"] <= SHAPE[0] * SHAPE[1]
    assert abs(found["relative_gap"]) < 1


def test_the_two_sides_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    problem = kernels.layer(*SHAPE, seed=0)
    sides = (("a", lambda: order.append("a")), ("b", lambda: order.append("b")))
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    record = kernels._record(problem, 3, 0, "cpu", *sides, "numpy")
    assert "".join(order) == "abababab"
    assert record["seconds"] == record["seconds_min"] == [1, 1]


def test_a_walk_takes_the_steps_of_the_method() -> None:
    problem = kernels.layer(*SHAPE, seed=0)
    for place in kernels.places("cpu"):
        for (_, twin), _ in list(kernels.steps(problem, place))[::2]:
            assert isinstance(twin.__self__.layer, Layer)
            twin()
            twin()
            assert int(place.xp.count_nonzero(twin.__self__.state.x)) == SHAPE[0] * SHAPE[1] // 2
    assert np.allclose(np.diag(problem.H), 1.1)
