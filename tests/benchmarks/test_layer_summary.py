"""Means, shares and excess of layer records, by hand."""

from __future__ import annotations

import pytest

from benchmarks.layer_summary import below, excess, mean_error, table
from benchmarks.records import Record


def row(method: str, layer: str, seen: float, held: float | None) -> Record:
    errors = {"found": {"calibration": 2 * seen, "held_out": held}, "refined": {"calibration": seen, "held_out": held}}
    facts = {"model": "m", "calibration": "c", "held_out": "h", "sparsity": "50%", "seconds": {"found": 1.0}}
    return {"method": method, "layer": layer, "errors": errors, **facts}


def test_means_shares_and_excess_by_hand() -> None:
    ours, theirs = (
        [row("b", "x", 1.0, 4.0), row("b", "y", 3.0, 3.0)],
        [row("a", "x", 2.0, None), row("a", "y", 3.0, 9.0)],
    )
    assert mean_error(ours, "refined", "calibration") == 2.0
    assert mean_error(theirs, "refined", "held_out") == 9.0
    assert mean_error(ours, "swapped", "calibration") is None
    assert excess(ours, "refined") == pytest.approx(2.0, rel=1e-12)
    assert below(ours, theirs, "refined", "calibration") == (1, 2)  # equal is not below
    assert below(ours, theirs, "refined", "held_out") == (1, 1)
    cells = [list(column.cells) for column in table([*theirs, *ours]).columns]
    assert cells[1:4] == [["a", "b"], ["5 / 9", "4 / 3.5"], ["2.5 / 9", "2 / 3.5"]]
    assert cells[4:] == [["50% / 100%", ""], ["2.0", "2.0"]]
