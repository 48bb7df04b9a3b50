"""Several calibration seeds in the pages: means, intervals over draws, and what may be marked as best."""

import json

import pytest

from benchmarks.records import make_record
from reports import allotment, figures, record_tables
from reports.load import load, load_run
from reports.page import page
from reports.protocols import over_seeds, perplexity_records
from reports.render import html, markdown

SEEDS = {0: -0.2, 1: 0.0, 2: 0.2}


@pytest.fixture
def measured(perplexity_fact):
    """`measured({spec: perplexity})` gives a record for every spec and seed, 0.2 apart."""

    def records(values, seeds=SEEDS):
        facts = [
            perplexity_fact(spec.split(":")[0], value + moved, seed=seed, spec=spec)
            for spec, value in values.items()
            for seed, moved in seeds.items()
        ]
        return [make_record("perplexity", **fact) for fact in [perplexity_fact("dense", 12.0), *facts]]

    return records


@pytest.fixture
def compared(perplexity_fact):
    """`compared(better, than, windows, seeds)` gives a comparison record under the protocol of the perplexities."""

    def record(better, than, windows, seeds, drawn=(0, 1, 2), **changes):
        fact = {key: value for key, value in perplexity_fact("x", 13.0).items() if key not in ("method", "perplexity")}
        intervals = {"difference_interval": windows, "seed_interval": seeds, "seeds": list(drawn), "nll_difference": -1}
        return make_record("comparison", **{**fact, "better": better, "than": than, **intervals, **changes})

    return record


def marked(records):
    table = record_tables.perplexity_by_method(records)
    return [name for name, cell in zip(table.header, table.rows[0], strict=True) if cell.mark == "best"]


def test_a_cell_is_the_mean_over_seeds_with_its_student_interval(measured):
    table = record_tables.perplexity_by_method(measured({"wanda": 15.0, "maiht:refine=exact": 13.0}))
    assert table.header == ("model", "sparsity", "dense", "wanda", "maiht:refine=exact")
    assert [cell.value for cell in table.rows[0][2:]] == pytest.approx([12.0, 15.0, 13.0])
    reach = 4.302652729911275 * 0.2 / 3**0.5
    assert table.rows[0][4].interval == pytest.approx((13.0 - reach, 13.0 + reach))
    assert table.rows[0][2].interval == (11.5, 12.5)
    assert "calibration seeds 0, 1, 2" in table.notes[1]
    assert len(table.notes) == 2


def test_the_newest_of_a_seed_stands_and_the_older_is_counted(measured):
    old = [{**row, "when": "2026-01-01T00:00:00+00:00"} for row in measured({"wanda": 99.0}, {1: 0.0})]
    table = record_tables.perplexity_by_method([*measured({"wanda": 15.0}), *old])
    assert table.rows[0][3].value == pytest.approx(15.0)
    assert table.notes[-1].startswith("2 older")


def test_records_of_before_seeds_count_as_seed_0(perplexity_fact):
    rows = [perplexity_fact("maiht", 13.0), perplexity_fact("maiht", 14.0, seed=1, spec="maiht")]
    rows.append(perplexity_fact("maiht", 13.5, refine="exact"))
    [mean, refined] = over_seeds(perplexity_records([make_record("perplexity", **row) for row in rows]))
    assert (mean["perplexity"], mean["seeds"]) == (13.5, [0, 1])
    assert (refined["method"], refined["interval"]) == ("maiht:refine=exact", [13.0, 14.0])


def test_the_best_is_marked_where_windows_and_seeds_say_so(measured, compared):
    rows = measured({"wanda": 15.0, "maiht": 13.0})
    assert marked([*rows, compared("maiht", "wanda", [-0.2, -0.1], [-0.3, -0.05])]) == ["maiht"]
    assert marked([*rows, compared("wanda", "maiht", [0.1, 0.2], [0.05, 0.3])]) == ["maiht"]


@pytest.mark.parametrize(
    ("windows", "seeds", "changes"),
    [
        ([-0.2, 0.1], [-0.3, -0.05], {}),
        ([-0.2, -0.1], [-0.3, 0.05], {}),
        ([0.1, 0.2], [0.05, 0.3], {}),
        ([-0.2, -0.1], None, {}),
        ([-0.2, -0.1], [-0.3, -0.05], {"drawn": (0, 1)}),
        ([-0.2, -0.1], [-0.3, -0.05], {"sparsity": "60%"}),
        ([-0.2, -0.1], [-0.3, -0.05], {"windows": 41}),
        ([-0.2, -0.1], [-0.3, -0.05], {"model": "other"}),
    ],
)
def test_nothing_is_marked_where_they_do_not(windows, seeds, changes, measured, compared):
    fact = {key: value for key, value in changes.items() if key != "windows"}
    record = compared("maiht", "wanda", windows, seeds, **fact)
    if "windows" in changes:
        record = {**record, "windows": changes["windows"]}
    assert marked([*measured({"wanda": 15.0, "maiht": 13.0}), record]) == []


def test_the_best_must_be_lower_than_every_other(measured, compared):
    rows = measured({"wanda": 15.0, "iht": 14.0, "maiht": 13.0})
    over_wanda = compared("maiht", "wanda", [-0.2, -0.1], [-0.3, -0.05])
    assert marked([*rows, over_wanda]) == []
    assert marked([*rows, over_wanda, compared("maiht", "iht", [-0.2, -0.1], [-0.3, -0.05])]) == ["maiht"]


def test_a_newer_comparison_overrules_an_older_one(measured, compared):
    old = {**compared("maiht", "wanda", [-0.2, -0.1], [-0.3, -0.05]), "when": "2026-01-01T00:00:00+00:00"}
    new = compared("maiht", "wanda", [-0.2, 0.1], [-0.3, 0.05])
    assert marked([*measured({"wanda": 15.0, "maiht": 13.0}), new, old]) == []


def test_a_mark_is_bold_in_markdown_and_on_the_page(measured, compared):
    records = [*measured({"wanda": 15.0, "maiht": 13.0}), compared("maiht", "wanda", [-0.2, -0.1], [-0.3, -0.05])]
    table = record_tables.perplexity_by_method(records)
    assert "| **13.00 [12.50, 13.50]** |" in markdown(table)
    assert 'class="number best"' in html(table)
    assert table.notes[2].startswith("Bold: lower than every other method of its row")
    text = page([], records)
    assert 'class="number best"' in text
    assert text.count("maiht 50%: 13") == 1


def test_the_figure_has_a_line_per_method(measured):
    rows = over_seeds(perplexity_records(measured({"wanda": 15.0, "maiht": 13.0})))
    assert figures.perplexity(rows).split("</desc>")[0].count("50%") == 2


def allot(folder):
    """Write into a run that its two blocks were allotted 40 % and 60 %, and were given that."""
    summary = json.loads((folder / "summary.json").read_text())
    shares = ((0, 0.03, 0.4), (1, 0.01, 0.6))
    summary["blocks"] = [{"block": i, "outliers": d, "sparsity": s, "measured": s} for i, d, s in shares]
    summary["spec"] = "wanda:allocate=owl"
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [json.loads(line) for line in (folder / "layers.jsonl").read_text().splitlines()]
    kept = [{**row, "kept": round(128 * 128 * (1 - shares[row["block"]][2]))} for row in rows]
    (folder / "layers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return folder


def test_an_allotment_is_told_as_table_and_figure(write_run):
    runs, _ = load([allot(write_run("a")), write_run("b")])
    assert runs[0].label == "wanda:allocate=owl 50%"
    table = allotment.blocks(runs[0])
    assert [[cell.value for cell in row] for row in table.rows] == [[0, 0.03, 0.4, 0.4], [1, 0.01, 0.6, 0.6]]
    assert allotment.sparsities(runs[0]) == pytest.approx({0: 0.4, 1: 0.6}, abs=1e-4)
    assert allotment.sparsities(runs[1]) == {0: 0.5, 1: 0.5}
    assert page(runs).count("<h2>Sparsity by block</h2>") == 2
    assert allotment.by_block(runs) == allotment.by_block(runs)


def test_a_uniform_run_says_nothing_of_blocks(write_run):
    run = load_run(write_run())
    assert allotment.blocks(run).rows == []
    assert "Sparsity by block" not in page([run])
