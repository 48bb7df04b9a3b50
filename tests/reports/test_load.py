"""Run folders and record files into rows; refusals that name file and line; protocols kept apart."""

import json

import pytest

from benchmarks.records import append, make_record
from reports.load import OUTCOMES, load, load_run
from reports.protocols import by_protocol, one_protocol, perplexities, perplexity_records
from solvers.refusal import Refusal


def test_a_run_is_read_with_the_source_of_every_row(write_run):
    run = load_run(write_run("first"))
    assert (run.name, run.label, len(run.layers)) == ("first", "maiht 50%", 14)
    assert run.layers[3]["source"] == "first/layers.jsonl, line 4"
    assert run.certificates[-1]["source"] == "first/certificates.jsonl, line 42"
    assert run.plan["method"]["iterations"] == 20
    assert sum(run.outcomes().values()) == 42


@pytest.mark.parametrize("file", ["plan.toml", "layers.jsonl", "certificates.jsonl", "summary.json"])
def test_a_missing_file_is_named(write_run, file):
    folder = write_run("first")
    (folder / file).unlink()
    with pytest.raises(Refusal, match=f"first is not a finished run: it lacks {file}"):
        load_run(folder)


def test_a_cut_line_is_named(write_run):
    folder = write_run("first")
    path = folder / "layers.jsonl"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(Refusal, match=r"first/layers\.jsonl, line 14 is not JSON"):
        load_run(folder)


@pytest.mark.parametrize("file", ["layers.jsonl", "certificates.jsonl"])
def test_a_file_that_is_no_text_is_named(write_run, file):
    folder = write_run("first")
    (folder / file).write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match=f"{file} must hold JSON lines in UTF-8"):
        load_run(folder)


def test_a_run_without_layers_is_refused(write_run):
    folder = write_run("first")
    (folder / "layers.jsonl").write_text("")
    with pytest.raises(Refusal, match=r"first/layers\.jsonl is empty"):
        load_run(folder)


@pytest.mark.parametrize("file", ["plan.toml", "summary.json"])
def test_a_cut_table_is_named(write_run, file):
    folder = write_run("first")
    (folder / file).write_text('{"model')
    with pytest.raises(Refusal, match=f"first/{file} cannot be read"):
        load_run(folder)


def test_a_line_without_its_objective_is_named(write_run):
    folder = write_run("first")
    path = folder / "layers.jsonl"
    path.write_text(path.read_text().replace('"objective"', '"loss"', 1))
    with pytest.raises(Refusal, match=r"layers\.jsonl, line 1 lacks objective"):
        load_run(folder)


def test_an_unknown_outcome_is_refused(write_run):
    folder = write_run("first", failing="monotone")
    path = folder / "certificates.jsonl"
    path.write_text(path.read_text().replace('"outcome": "fails"', '"outcome": "skipped"'))
    with pytest.raises(Refusal, match=f"outcome 'skipped'; known: {', '.join(OUTCOMES)}"):
        load_run(folder)


def test_several_runs_are_told_apart_by_method_then_by_folder(write_run):
    folders = [write_run("a/x"), write_run("b/x"), write_run("b/y", method="wanda")]
    runs, records = load(folders)
    assert [run.name for run in runs] == ["a/x", "b/x", "b/y"]
    assert [run.label for run in runs] == ["maiht 50% (a/x)", "maiht 50% (b/x)", "wanda 50%"]
    assert records == []


def test_runs_and_records_are_read_together(write_run, tmp_path):
    append(tmp_path / "a.jsonl", make_record("clock", seconds=1.0))
    runs, records = load([tmp_path / "a.jsonl", write_run("first")])
    assert (len(runs), records[0]["seconds"]) == (1, 1.0)


def test_a_run_given_twice_is_read_once(write_run):
    folder = write_run("first")
    assert len(load([folder, folder / "." / ".." / "first"])[0]) == 1


def test_nothing_at_the_place_is_refused(tmp_path):
    with pytest.raises(Refusal, match="nothing at"):
        load([tmp_path / "none"])


def test_refinement_belongs_to_the_name_of_the_method(write_run):
    folder = write_run("first")
    plan = folder / "plan.toml"
    plan.write_text(plan.read_text().replace('"none"', '"exact"').replace("swaps = 0", "swaps = 4"))
    assert load_run(folder).label == "maiht:refine=exact,swaps=4 50%"


def test_perplexities_of_a_run_say_where_they_stand(write_run):
    dense, pruned = perplexities(load_run(write_run("first")))
    assert (dense["method"], dense["perplexity"], pruned["perplexity"]) == ("dense", 12.5, 14.25)
    assert pruned["source"] == "first/summary.json: perplexity.pruned"
    assert perplexities(load_run(write_run("second", perplexity=None))) == []


def test_an_interval_of_the_loss_is_no_interval_of_the_perplexity(write_run):
    folder = write_run("first")
    summary = json.loads((folder / "summary.json").read_text())
    summary["perplexity"]["pruned"]["interval"] = [2.4, 2.6]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(Refusal, match=r"14\.25 lies outside its interval \[2\.4, 2\.6\]"):
        perplexities(load_run(folder))


@pytest.mark.parametrize(
    "change",
    [{"protocol": "words"}, {"text_sha256": "f" * 64}, {"tokenizer_sha256": "e" * 64}, {"windows": 3}],
)
def test_two_protocols_do_not_share_a_column(perplexity_fact, change):
    rows = perplexity_records(
        [
            make_record("perplexity", **perplexity_fact("dense", 12.0)),
            make_record("perplexity", **perplexity_fact("maiht", 13.0)),
            make_record("perplexity", **perplexity_fact("wanda", 14.0, **change)),
        ]
    )
    one_protocol(rows[:2])
    spelled = str(next(iter(change.values())))[:12]
    with pytest.raises(Refusal, match=f"(?s)two protocols.*windows-256.*{spelled}"):
        one_protocol(rows)
    assert [len(group) for group in by_protocol(rows)] == [2, 1]


def test_a_perplexity_without_its_text_is_refused(perplexity_fact):
    fact = perplexity_fact("maiht", 13.0)
    del fact["text_sha256"]
    with pytest.raises(Refusal, match="nothing without text_sha256"):
        perplexity_records([make_record("perplexity", **fact)])


def test_other_measurements_are_no_perplexities():
    assert perplexity_records([make_record("clock", seconds=1.0)]) == []
