"""Where the target is missed: a record whose list is known, layers that may not be dropped, bounds beside errors."""

from __future__ import annotations

import re

import pytest

from benchmarks import records
from benchmarks.records import make_record
from reports import figures, generated, layer_figures, layer_tables, layer_targets, layers
from reports.load import Row
from reports.page import page
from reports.render import markdown, written

OURS = "maiht:swaps=all"
SETTING = {
    "model": "tiny",
    "calibration": "a.txt:8x32, seed 0",
    "held_out": "b.txt:8x32, seed 1",
    "seed": 0,
    "swaps": 0,
    "calibration_sha256": "ab" * 32,
    "held_out_sha256": "cd" * 32,
    "tokenizer_sha256": None,
    "mu": 0.1,
    "refine_mu": 0.01,
}
# Error of ours over admm's and over alps's; admm's is 2, alps's what follows.
RATIOS = {
    "50%": {0: (0.85, 0.95), 1: (0.91, 1.0), 2: (0.90, 1.02), 3: (0.97, 0.99)},
    "2:4": {0: (0.5, 0.9), 1: (0.6, 0.9), 2: (0.7, 0.9), 3: (0.8, 0.9)},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provenance without asking git for every record, figures without their drawing."""
    monkeypatch.setattr(records, "_commit", lambda root: "abc1234")
    for module, name in ((figures, "_svg"), (layer_figures, "svg")):
        monkeypatch.setattr(module, name, lambda name, *_: f"<svg><title>{name}</title></svg>")


def where(block: int, sparsity: str) -> Row:
    name = f"model.layers.{block}.q_proj.weight"
    return {**SETTING, "layer": name, "block": block, "site": "attention input", "shape": [4, 8], "sparsity": sparsity}


def layer(method: str, block: int, sparsity: str, error: float | None, objective: float = 3.0) -> Row:
    stages = ("found", "refined", "swapped") if method == OURS else ("found", "refined")
    errors = {stage: {"calibration": error, "held_out": error} for stage in stages}
    told = {"gap": 3.0, "residual": None, "failures": [], "objective": objective, "errors": errors}
    counts = {"certificates": {"holds": 3}, "seconds": dict.fromkeys(stages, 1.0)}
    return make_record("layers", **where(block, sparsity), **told, **counts, method=method)


def bound(block: int, sparsity: str, value: float | None) -> Row:
    return make_record("layers-bound", **where(block, sparsity), bound=value, why="", seconds={"bound": 1.0})


@pytest.fixture
def rows() -> list[Row]:
    return [
        layer(method, block, sparsity, error)
        for sparsity, blocks in RATIOS.items()
        for block, (admm, alps) in blocks.items()
        for method, error in (("admm", 2.0), ("alps", 2.0 * admm / alps), (OURS, 2.0 * admm))
    ]


def listed(rows: list[Row]) -> list[list[str]]:
    [table] = layer_targets.missed(rows)
    return [[written(cells[n]) for n in (0, 1, 4, 6, 7)] for cells in table.rows]


def test_exactly_the_layers_above_a_target_are_listed_worst_first(rows: list[Row]) -> None:
    assert listed(rows) == [
        ["50%", "model.layers.3.q_proj", "admm", "0.970", "0.900"],
        ["50%", "model.layers.1.q_proj", "admm", "0.910", "0.900"],
        ["50%", "model.layers.2.q_proj", "alps", "1.020", "1.000"],
    ]
    [table] = layer_targets.missed(rows)
    assert "at most 0.90 times that of admm on 2 of 4 at 50%, 4 of 4 at 2:4 (missed)" in table.notes[0]
    assert "at most that of alps on 3 of 4 at 50%, 4 of 4 at 2:4 (missed)" in table.notes[0]


def test_a_pattern_that_reaches_both_targets_lists_nothing_and_says_so(rows: list[Row]) -> None:
    [table] = layer_targets.missed([row for row in rows if row["sparsity"] == "2:4"])
    assert table.rows == []
    assert "admm on 4 of 4 at 2:4 (reached); at most that of alps on 4 of 4 at 2:4 (reached)" in table.notes[0]


@pytest.mark.parametrize("dropped", range(4))
def test_no_layer_can_be_dropped_unnoticed(rows: list[Row], dropped: int) -> None:
    """The counts add up to the layers that both methods measured; a list that loses one loses a count as well."""
    found = layer_targets.scores(rows)
    assert [len(score.pairs) for score in found] == [4] * 4
    assert all(score.reached + len(score.above) == len(score.pairs) for score in found)
    fewer = [row for row in rows if row["block"] != dropped]
    assert layer_targets.missed(fewer)[0].notes != layer_targets.missed(rows)[0].notes
    lost = [cells for cells in listed(rows) if f".{dropped}." not in cells[1]]
    assert listed(fewer) == lost


def test_the_last_exchanges_are_judged_against_the_refitted_baseline(rows: list[Row]) -> None:
    assert layer_targets.judged(rows) == OURS
    assert layer_targets.judged([row for row in rows if row["method"] != OURS]) is None
    for row in rows:
        if row["method"] == OURS:
            row["errors"]["refined"]["calibration"] = 99.0
        else:
            row["errors"]["found"]["calibration"] = 0.01
    assert len(listed(rows)) == 3


def test_a_layer_without_output_reaches_its_target(rows: list[Row]) -> None:
    silent = [layer(method, 9, "50%", None) for method in ("admm", "alps", OURS)]
    assert listed([*rows, *silent]) == listed(rows)
    assert "3 of 5 at 50%" in layer_targets.missed([*rows, *silent])[0].notes[0]


def test_nothing_is_judged_without_exchanges_or_without_a_baseline(rows: list[Row]) -> None:
    assert layer_targets.missed([row for row in rows if row["method"] != OURS]) == []
    assert layer_targets.missed([row for row in rows if row["method"] == OURS]) == []


def test_page_and_readme_carry_the_list(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.findall(r"<h3>(Layers that miss the target)</h3>", page([], rows)) == ["Layers that miss the target"]
    monkeypatch.setattr(generated, "_reference", lambda root: rows)
    part = generated.layers_part(None)  # type: ignore[arg-type]
    assert "| 50% | model.layers.3.q_proj | attention input | 1.940 | admm | 2.000 | 0.970 | 0.900 |" in part
    assert "2 of 4 at 50%, 4 of 4 at 2:4 (missed)" in part


def test_bounds_stand_beside_the_methods_of_their_layer_and_pattern(rows: list[Row]) -> None:
    bounds = [bound(block, "50%", 3.0 / (1 + block)) for block in range(3)] + [bound(3, "50%", None)]
    [group] = layers.settings([*rows, *bounds])
    assert sorted(layers.above([row for row in group if row["method"] == "admm"])) == [1.0, 2.0, 3.0]
    shown = layer_tables.overview(group)
    assert shown.header[-2] == "objective / bound"
    assert {row[0].value: row[-2].value for row in shown.rows} == {"50%": 2.0, "2:4": None}
    assert "1.2 is within 20 %" in shown.notes[0]
    assert "objective / perspective bound, median" in layer_tables.verdicts(group).header
    [table] = layer_targets.missed(group)
    assert [written(cells[-1]) for cells in table.rows] == ["–", "0.500", "0.333"]
    [plain] = layers.settings(rows)
    assert "objective / bound" not in layer_tables.overview(plain).header
    assert "proved ratio" not in markdown(layer_targets.missed(plain)[0])


def test_a_bound_of_another_text_is_not_taken(rows: list[Row]) -> None:
    other = {**bound(0, "50%", 1.0), "calibration_sha256": "ef" * 32}
    assert layers.above(layers.settings([*rows, other])[0]) == []


def test_the_newest_bound_counts_and_the_page_lists_none(rows: list[Row]) -> None:
    old, new = bound(0, "50%", 1.0), {**bound(0, "50%", 1.5), "when": "2999-01-01T00:00:00+00:00"}
    [group] = layers.settings([*rows, new, old])
    assert set(layers.above(group)) == {2.0}
    assert "layers-bound" not in re.findall(r"<h2[^>]*>(.*?)</h2>", page([], [*rows, new, old]))
