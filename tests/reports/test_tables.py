"""Tables as values, then their text: numbers, tooltips, escapes."""

import json

import pytest

from benchmarks.records import make_record
from reports import certificate_tables, record_tables, tables
from reports.load import load, load_run
from reports.page import page
from reports.render import html, markdown, written
from reports.tables import Cell, Table
from solvers.refusal import Refusal


def column(table, name):
    place = table.header.index(name)
    return [row[place].value for row in table.rows]


def test_what_was_asked_is_the_plan(write_run):
    table = tables.asked(load_run(write_run()))
    asked = dict(zip(column(table, "setting"), column(table, "value"), strict=True))
    assert (asked["method.name"], asked["sparsity"], asked["calibration.sequences"]) == ("maiht", "50%", 16)
    assert not any(name.startswith("versions") for name in asked)


def test_perplexity_holds_dense_pruned_and_their_difference(write_run):
    table = tables.perplexity(load_run(write_run()))
    assert column(table, "perplexity") == [12.5, 14.25, None]
    assert column(table, "nll per token") == [2.5, 2.5, 0.12]
    assert table.rows[1][1].interval == (13.75, 14.75)
    assert "windows-256" in table.notes[0]
    assert "40 windows" in table.notes[0]


def test_an_unevaluated_run_says_so(write_run):
    table = tables.perplexity(load_run(write_run(perplexity=None)))
    assert table.rows == []
    assert table.notes == ("Perplexity was not evaluated in this run.",)


def test_token_ids_given_without_a_tokenizer_are_said_to_be(perplexity_fact):
    record = make_record("perplexity", **perplexity_fact("maiht", 13.0, tokenizer_sha256=None, interval=None))
    table = record_tables.perplexity_by_method([record])
    assert "no tokenizer" in table.notes[0]
    assert written(table.rows[0][3]) == "13.00"


def test_the_result_counts_the_certificates_themselves(write_run):
    run = load_run(write_run(failing="monotone"))
    run.summary["certificates"] = {"holds": 1000}
    values = dict(zip(column(tables.result(run), "what"), column(tables.result(run), "value"), strict=True))
    assert values["certificates: holds"] == 42 - 1 - 5
    assert values["certificates: fails"] == 1
    assert values["certificates: not applicable"] == 5


def test_runs_are_compared(write_run):
    runs, _ = load([write_run("a"), write_run("b", method="wanda", perplexity=15.0, failing="support-size")])
    table = tables.comparison(runs)
    assert column(table, "run") == ["maiht 50%", "wanda 50%"]
    assert column(table, "perplexity") == [14.25, 15.0]
    assert column(table, "solve") == [3.25, 3.25]
    assert column(table, "failed") == [0, 1]
    assert [row[-1].mark for row in table.rows] == ["", "fails"]


def test_runs_of_two_protocols_are_not_compared(write_run):
    runs, _ = load([write_run("a"), write_run("b", protocol="words")])
    with pytest.raises(Refusal, match=r"(?s)windows-256.*words"):
        tables.comparison(runs)


def test_a_run_without_perplexity_stays_in_the_comparison(write_run):
    runs, _ = load([write_run("a", perplexity=None), write_run("b", method="wanda")])
    assert column(tables.comparison(runs), "perplexity") == [None, 14.25]


def test_layers_have_a_row_each(write_run):
    table = tables.layers(load_run(write_run("a")))
    assert len(table.rows) == 14
    assert column(table, "kept") == [8192] * 14
    assert column(table, "shape")[0] == "128 × 128"
    assert column(table, "refinement gain")[:2] == [0.01, None]
    assert table.rows[4][4].source == "a/layers.jsonl, line 5"


def test_claims_are_counted_by_outcome_with_the_worst_share(write_run):
    table = certificate_tables.certificates(load_run(write_run("a", failing="sufficient-decrease")))
    assert column(table, "claim") == ["sufficient-decrease", "monotone", "support-size"]
    assert column(table, "holds") == [13, 9, 14]
    assert column(table, "fails") == [1, 0, 0]
    assert column(table, "not applicable") == [0, 5, 0]
    # Layer 12 is the last to which `monotone` does not apply, so 13 is its worst.
    assert column(table, "worst measured / bound") == [1.5, 1.013 / 2, 1.013 / 2]
    assert table.rows[0][-1].source == "a/certificates.jsonl, line 7"


@pytest.mark.parametrize(
    ("measured", "bound", "outcome", "share"),
    [
        (1.0, 4.0, "holds", 0.25),
        (5.0, 4.0, "fails", 1.25),
        (1.0, 4.0, "not applicable", None),
        (-1.0, 4.0, "holds", None),
        (0.0, 0.0, "holds", None),
        (1.0, float("inf"), "holds", None),
        (None, None, "holds", None),
        (1.0, None, "holds", None),
    ],
)
def test_the_used_share_only_where_the_quotient_means_something(measured, bound, outcome, share):
    assert certificate_tables.used({"measured": measured, "bound": bound, "outcome": outcome}) == share


def test_failures_are_listed_with_both_sides(write_run):
    assert certificate_tables.failures(load_run(write_run("good"))).rows == []
    table = certificate_tables.failures(load_run(write_run("bad", failing="support-size")))
    assert column(table, "layer") == ["model.layers.0.self_attn.v_proj"]
    assert (column(table, "measured"), column(table, "bound")) == ([3.0], [2.0])


def test_seconds_are_summed_and_provenance_is_told(write_run):
    run = load_run(write_run())
    table = tables.seconds([run])
    assert column(table, "solve") == [3.25]
    assert column(table, "total") == [pytest.approx(7.85)]
    assert column(table, "peak memory") == [3 * 2**28]
    assert column(tables.provenance(run), "value") == ["a processor, 2 cores", "2.4.6"]
    assert len(tables.hashes(run).rows) == 14


def test_methods_are_columns_and_dense_comes_first(perplexity_fact):
    facts = [
        perplexity_fact("maiht", 13.0),
        perplexity_fact("wanda", 14.0, sparsity="60%"),
        perplexity_fact("dense", 12.0),
        perplexity_fact("maiht", 13.5, refine="exact"),
    ]
    records = [make_record("perplexity", **fact) for fact in facts]
    table = record_tables.perplexity_by_method([*records, make_record("clock", seconds=1.0)])
    assert table.header == ("model", "sparsity", "dense", "maiht", "wanda", "maiht:refine=exact")
    assert [[cell.value for cell in row] for row in table.rows] == [
        ["tiny", "50%", 12.0, 13.0, None, 13.5],
        ["tiny", "60%", 12.0, None, 14.0, None],
    ]
    assert table.rows[0][3].source == f"record {records[0]['id']}"
    assert table.rows[0][3].interval == (12.5, 13.5)


def test_the_newest_record_of_a_cell_stands_and_the_table_says_so(perplexity_fact):
    old = {**make_record("perplexity", **perplexity_fact("maiht", 13.0)), "when": "2026-01-01T00:00:00+00:00"}
    new = {**make_record("perplexity", **perplexity_fact("maiht", 13.1)), "when": "2026-01-02T00:00:00+00:00"}
    table = record_tables.perplexity_by_method([new, old])
    assert column(table, "maiht") == [13.1]
    assert table.notes[1].startswith("1 older")


def test_records_of_two_protocols_are_refused(perplexity_fact):
    facts = [perplexity_fact("maiht", 13.0), perplexity_fact("wanda", 14.0, protocol="words")]
    with pytest.raises(Refusal, match="two protocols"):
        record_tables.perplexity_by_method([make_record("perplexity", **fact) for fact in facts])


def test_other_records_become_a_table_of_their_facts():
    records = [make_record("clock", method="maiht", seconds=0.5, curve=[1, 2]), make_record("other", x=1)]
    table = record_tables.facts(records, "clock")
    assert table.header == ("method", "seconds")
    assert [cell.value for cell in table.rows[0]] == ["maiht", 0.5]
    assert column(record_tables.origins(records), "records") == [2]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(None, "real"), "–"),
        (Cell(0.123456, "real"), "0.1235"),
        (Cell(12.345, "real", interval=(11.9, 12.8)), "12.35 [11.90, 12.80]"),
        (Cell(0.5, "real"), "0.5000"),
        (Cell(1234.0, "real"), "1234"),
        (Cell(1e-12, "real"), "1.000e-12"),
        (Cell(1234567, "count"), "1,234,567"),
        (Cell(0.5, "share"), "50.00%"),
        (Cell(3.254, "seconds"), "3.25 s"),
        (Cell(3 * 2**28, "bytes"), "0.75 GiB"),
        (Cell("0123456789abcdef" * 4, "hash"), "0123456789ab"),
        (Cell(False), "False"),
    ],
)
def test_a_cell_is_written(cell, text):
    assert written(cell) == text


def test_markdown_aligns_numbers_and_escapes_bars():
    table = Table("t", ("name", "value"), [(Cell("|x|\ny"), Cell(1.5, "real"))], ("A note.",))
    assert markdown(table) == "| name | value |\n| --- | ---: |\n| \\|x\\| y | 1.500 |\n\nA note."
    assert markdown(Table("t", ("name",), [], ("Nothing.",))) == "Nothing."


def test_a_column_with_a_number_is_aligned_to_the_right_where_it_is_absent_too():
    table = Table("t", ("name", "value"), [(Cell("a"), Cell(None)), (Cell("b"), Cell(1.5, "real"))])
    assert html(table).count('class="number"') == 3


def test_html_escapes_and_carries_the_source():
    table = Table("t", ("name", "value"), [(Cell("F(x) < <b>", mark="fails"), Cell(1.5, "real", "record ab12"))])
    text = html(table)
    assert '<td class="text fails">F(x) &lt; &lt;b&gt;</td>' in text
    assert '<td class="number" title="record ab12">1.500</td>' in text


def test_every_number_of_a_run_has_a_source(write_run):
    run = load_run(write_run(failing="monotone"))
    shown = [tables.result(run), tables.perplexity(run), tables.layers(run), tables.comparison([run])]
    shown += [certificate_tables.certificates(run), certificate_tables.failures(run), tables.seconds([run])]
    bare = [
        (table.title, cell)
        for table in shown
        for row in table.rows
        for cell in row
        if isinstance(cell.value, int | float) and not cell.source
    ]
    assert bare == []


def test_what_was_predicted_stands_beside_what_came(write_run):
    folder = write_run()
    assert tables.foreseen(load_run(folder)).rows == []
    summary = json.loads((folder / "summary.json").read_text())
    spent = summary["seconds"]
    stage = next(name for name in spent if spent[name])
    summary["predicted"] = {"seconds": {stage: 2 * spent[stage], "never": 0.0}, "memory": {"host_bytes": 2**31}}
    (folder / "summary.json").write_text(json.dumps(summary))
    table = tables.foreseen(load_run(folder))
    assert column(table, "stage") == [stage, "peak memory"]
    assert column(table, "predicted / actual")[0] == 2.0
    assert "Predicted against actual" in page([load_run(folder)])
