"""The page's layers: means by stage, ratios to the baseline, the layers that go the other way, beside perplexities."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from benchmarks import records
from benchmarks.records import make_record
from reports import figures, layer_figures, layer_tables, layers
from reports.load import Row
from reports.page import page
from reports.render import html, written

SITES = {"q_proj": "attention input", "k_proj": "attention input", "down_proj": "mlp middle"}
SCALE = {"wanda": 4.0, "admm": 2.0, "maiht": 1.0}
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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provenance without asking git for every record."""
    monkeypatch.setattr(records, "_commit", lambda root: "abc1234")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without their drawing, which takes most of the time."""
    for module, name in ((figures, "_svg"), (layer_figures, "svg")):
        monkeypatch.setattr(module, name, lambda name, *_: f"<svg><title>{name}</title></svg>")


def layer(method: str, block: int, name: str, sparsity: str = "50%", *, held: float = 1.5, **changes: object) -> Row:
    """A record by a formula: the refit halves the error, held-out text adds a half, maiht beats admm beats wanda."""
    size = changes.pop("size", SCALE.get(method, 1.0) * (1 + block))
    errors = {
        stage: {"calibration": size * factor, "held_out": size * factor * held}
        for stage, factor in (("found", 2.0), ("refined", 1.0))
    }
    told = {"shape": [4, 8], "gap": 3.0, "residual": 0.25 if method == "maiht" else None, "failures": []}
    counts = {"certificates": {"holds": 3, "not applicable": 2}, "seconds": {"found": 2.0, "refined": 0.5}}
    where = {"layer": f"model.layers.{block}.{name}.weight", "block": block, "site": SITES[name]}
    facts = {**SETTING, **where, **told, **counts, "errors": errors, "method": method, "sparsity": sparsity}
    return make_record("layers", **{**facts, **changes})


@pytest.fixture
def rows() -> list[Row]:
    return [layer(m, block, name, s) for block in (0, 1) for name in SITES for s in ("50%", "2:4") for m in SCALE]


def body(table) -> list[list[str]]:
    return [[written(cell) for cell in row] for row in table.rows]


def test_means_are_by_pattern_method_and_stage_with_what_held_out_text_adds(rows: list[Row]) -> None:
    table = layer_tables.errors(rows)
    told = body(table)
    assert len(told) == 2 * 3 * 2
    assert told[2][:7] == ["50%", "admm", "found", "6", "6.000", "9.000", "1.500"]
    assert told[5] == [
        "50%",
        "maiht",
        "refined",
        "6",
        "1.500",
        "2.250",
        "1.500",
        "–",
        "–",
        "0.50 s".replace("0.5", "3.0"),
    ]
    assert told[3][7:9] == ["100.00%", "100.00%"]
    assert "every method got the same Grams" in table.notes[0]
    assert "a.txt:8x32, seed 0; held out: b.txt:8x32, seed 1" in table.notes[0]


def test_two_texts_that_agree_everywhere_show_as_a_ratio_of_one(rows: list[Row]) -> None:
    planted = [layer(m, block, "q_proj", held=1.0) for block in (0, 1) for m in SCALE]
    assert {cells[6] for cells in body(layer_tables.errors(planted))} == {"1.000"}
    assert {cells[6] for cells in body(layer_tables.errors(rows))} == {"1.500"}


def test_ratios_are_sorted_and_held_against_the_refitted_baseline(rows: list[Row]) -> None:
    chosen = [*rows, layer("maiht", 2, "q_proj", size=9.0), layer("admm", 2, "q_proj", size=3.0)]
    chosen = [row for row in chosen if row["sparsity"] == "50%"]
    assert layers.roles(chosen) == ("maiht", "admm")
    assert layers.sorted_ratios(chosen, "maiht", "admm", "refined", "held_out") == [*[0.5] * 6, 3.0]
    assert layers.sorted_ratios(chosen, "maiht", "admm", "found", "calibration") == [*[1.0] * 6, 6.0]
    assert layers.sorted_ratios(chosen, "wanda", "admm", "refined", "calibration") == [2.0] * 6


@pytest.mark.parametrize(
    ("known", "roles"),
    [
        (("admm", "maiht", "wanda"), ("maiht", "admm")),
        (("wanda", "maiht"), ("maiht", "wanda")),
        (("wanda", "admm"), ("admm", "wanda")),
        (("maiht",), ("maiht", None)),
    ],
)
def test_maiht_is_judged_against_admm_where_both_were_measured(
    known: tuple[str, ...], roles: tuple[object, ...]
) -> None:
    assert layers.roles([layer(method, 0, "q_proj") for method in known]) == roles


def test_exceptions_are_listed_worst_first_and_marked(rows: list[Row]) -> None:
    [none] = layer_tables.exceptions(rows)
    assert none.rows == []
    assert none.notes == ("0 of 12 on calibration text, 0 of 12 on held-out text.",)
    equal = [layer("maiht", 2, "q_proj", size=5.0), layer("admm", 2, "q_proj", size=5.0)]
    overfit = [layer("maiht", 3, "k_proj", size=4.0, held=3.0), layer("admm", 3, "k_proj", size=5.0)]
    [table] = layer_tables.exceptions([*rows, *equal, *overfit])
    assert [cells[1] for cells in body(table)] == ["model.layers.3.k_proj", "model.layers.2.q_proj"]
    assert body(table)[0][3:] == ["4.000", "5.000", "0.800", "1.600"]
    assert [[cell.mark for cell in cells[5:]] for cells in table.rows] == [["", "fails"], ["fails", "fails"]]
    assert table.notes == ("1 of 14 on calibration text, 2 of 14 on held-out text.",)


def test_a_layer_without_output_is_no_exception_and_leaves_the_means_alone(rows: list[Row]) -> None:
    nothing = {stage: {"calibration": None, "held_out": None} for stage in ("found", "refined")}
    silent = [layer(method, 5, "q_proj", errors=nothing) for method in SCALE]
    assert layer_tables.exceptions([*rows, *silent])[0].rows == []
    assert body(layer_tables.errors([*rows, *silent]))[5][4] == "1.500"


def test_depth_averages_the_readers_of_a_site(rows: list[Row]) -> None:
    rows.append(layer("maiht", 1, "k_proj", "4:8", size=4.0))
    chosen = [row for row in rows if row["sparsity"] != "2:4"]
    found = layers.by_depth(chosen, "attention input", "maiht", "refined", "calibration")
    assert found == [(0, 1.0), (1, (2.0 + 2.0 + 4.0) / 3)]
    assert layers.by_depth(chosen, "mlp middle", "maiht", "found", "held_out") == [(0, 3.0), (1, 6.0)]


def test_figures_say_who_is_below_and_share_no_id(rows: list[Row]) -> None:
    drawn = []
    for sparsity in layers.sparsities(rows):
        chosen = [row for row in rows if row["sparsity"] == sparsity]
        drawn += [layer_figures.depth(chosen), layer_figures.ratios(chosen)]
    every = [name for svg in drawn for name in re.findall(r'\sid="([^"]*)"', svg)]
    assert len(every) == len(set(every))
    for svg in drawn:
        ElementTree.fromstring(svg)
    depth, ratios = drawn[:2]
    assert "wanda is below on 0 of 6 layers; maiht is below on 6 of 6 layers" in ratios
    assert all(f">{site}<" in depth for site in set(SITES.values()))
    assert ">held-out<" in ratios.split("</desc>")[1]
    assert ">admm<" not in ratios.split("</desc>")[1]  # the baseline is the line at 1


def test_the_newest_record_of_a_layer_counts_and_settings_stay_apart(rows: list[Row]) -> None:
    again = {**layer("maiht", 0, "q_proj", size=7.0), "when": "2999-01-01T00:00:00+00:00"}
    elsewhere = layer("maiht", 0, "q_proj", held_out="c.txt:8x32, seed 1")
    first, second = layers.settings([*rows, again, elsewhere])
    assert len(first) == len(rows)
    assert again in first
    assert second == [elsewhere]


def test_certificates_that_fail_are_red_at_the_top(undrawn: None, rows: list[Row]) -> None:
    assert 'role="alert"' not in page([], rows)
    counts = {"holds": 2, "fails": 1}
    bad = layer("maiht", 4, "q_proj", certificates=counts, failures=["fixed-point: 3 <= 2 + 0: fails"])
    text = page([], [*rows, bad])
    assert "1 certificates fail on 1 of 37 solved layers: fixed-point." in text
    assert '<td class="number fails">1</td>' in re.sub(r' title="[^"]*"', "", html(layer_tables.verdicts([*rows, bad])))


def test_bounds_and_residuals_are_summed_up_where_there_are_any(rows: list[Row]) -> None:
    told = {tuple(cells[:2]): cells[2:] for cells in body(layer_tables.verdicts(rows))}
    assert told["50%", "maiht"] == ["18", "0", "12", "3.000", "0.2500"]
    assert told["2:4", "wanda"][-1] == "–"


def test_perplexity_and_layer_errors_stand_on_one_page(undrawn: None, rows: list[Row], perplexity_fact) -> None:
    scores = [make_record("perplexity", **perplexity_fact(m, v)) for m, v in (("dense", 12.5), ("maiht", 14.25))]
    run = make_record("layers-run", **SETTING, layers=6, tried=36, peak_memory_bytes=2**30, seconds={"total": 9.0})
    refused = make_record("layers-refused", **SETTING, method="iht", sparsity="2:4", options={}, layer=None, why="no")
    text = page([], [*rows, run, refused, *scores])
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == [
        *("Perplexity, protocol windows-256", "Layer errors, tiny", "Layers at 50%, tiny", "Layers at 2:4, tiny"),
        *("layers-refused", "layers-run", "Provenance"),
    ]
    assert "14.25" in text
    assert "0 of 6 on calibration text, 0 of 6 on held-out text." in text
    assert text.count("<figure>") == 1 + 4


def test_one_method_alone_has_no_baseline_and_no_ratios(undrawn: None) -> None:
    text = page([], [layer("wanda", 0, "q_proj")])
    assert "is not below" not in text
    assert text.count("<figure>") == 1


def test_the_overview_holds_means_and_counts_how_often_the_last_stage_beats_the_refitted_baseline() -> None:
    found = [layer(m, b, "q_proj") for m in SCALE for b in (0, 1)]
    swapped = layer("maiht:swaps=all", 0, "q_proj", size=3.0), layer("maiht:swaps=all", 1, "q_proj", size=3.0)
    for row in swapped:  # 2 and 4 are the refitted errors of admm on the two blocks
        row["errors"]["swapped"] = {"calibration": 2.5, "held_out": 5.0}
    table = layer_tables.overview([*found, *swapped])
    assert table.header == (
        "pattern",
        "method",
        "found",
        "refined",
        "swapped",
        "held-out, last",
        "below admm",
        "seconds",
    )
    rows = {row[1].value: [cell.value for cell in row] for row in table.rows}
    assert rows["maiht"] == ["50%", "maiht", 3.0, 1.5, None, 2.25, 1.0, 5.0]
    assert rows["admm"][-2] is None
    assert rows["wanda"][-2] == 0.0
    assert rows["maiht:swaps=all"] == ["50%", "maiht:swaps=all", 6.0, 3.0, 2.5, 5.0, 0.5, 5.0]
