"""The ladder of precisions: which runs it records, what it compares them with, and the layers of a real model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ladder
from benchmarks.records import append, read
from solvers.gpu import precision
from solvers.gpu.precision import RUNGS

SHAPE = (8, 32)


@pytest.fixture(scope="module")
def records() -> list[dict]:
    return list(ladder.ladder(shape=SHAPE, iters=20))


def test_every_rung_ends_in_float64_and_on_itself(records: list[dict]) -> None:
    expected = [(rung, finish) for rung in RUNGS for finish in dict.fromkeys(("fp64", rung))]
    assert [(r["rung"], r["finish"]) for r in records] == expected
    assert [r["bits"] for r in records if r["finish"] == "fp64"] == [53, 24, 17, 11, 8]


def test_a_record_holds_certificates_differences_and_seconds(records: list[dict], tmp_path: Path) -> None:
    for record in records:
        append(tmp_path / "records.jsonl", record)
    for r in read([tmp_path / "records.jsonl"]):
        assert r["certificates"]["holds"] > 5
        assert r["failing"] == []
        assert ("failing_in_float64" in r) == (r["finish"] == r["rung"])
        assert 0 <= r["support_share"] == r["support_difference"] / np.prod(SHAPE) < 1
        assert abs(r["relative_gap"]) < 1
        assert r["seconds"] > 0 < r["seconds_step"]
    assert ladder.table(records).row_count == len(records)
    first = records[0]
    assert (first["support_difference"], first["relative_gap"], first["failing_in_float64"]) == (0, 0, [])


def test_what_a_low_rung_sums_is_not_good_enough_for_float64(records: list[dict]) -> None:
    stayed = {r["rung"]: r["failing_in_float64"] for r in records if r["finish"] == r["rung"] != "fp64"}
    assert all("objective-recomputed" in failing for failing in stayed.values())


def test_certificates_that_fail_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose products are wrong by a tenth."""
    exact = precision.product
    monkeypatch.setattr(precision, "product", lambda *a: exact(*a) * 1.1)
    found = list(ladder.ladder(shape=SHAPE, iters=20))
    assert all("objective-recomputed" in r["failing"] for r in found if r["finish"] == "fp64")
    assert all(r["certificates"].get("fails", 0) == len(r["failing"]) for r in found)


def test_the_middle_block_of_a_model_is_measured(tiny_layers: Path) -> None:
    model, calibration = f"{tiny_layers}/tiny", f"{tiny_layers}/calibration.npy"
    found = list(ladder.ladder(model=model, calibration=calibration, shape=SHAPE, iters=6))
    layers = list(dict.fromkeys(r["layer"] for r in found))
    assert layers[0] == "synthetic"
    assert len(layers) == 5
    assert all(".1." in name for name in layers[1:])
    assert {tuple(r["shape"]) for r in found if "down" in r["layer"]} == {(32, 40)}
