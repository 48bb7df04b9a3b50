"""python -m benchmarks: what it lists, refuses and prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import benchmarks.llm
from benchmarks.__main__ import BENCHMARKS, app
from benchmarks.records import make_record, read

FACTS = {"model": "m", "protocol": "windows-8", "text": "t [/b]", "perplexity": 7.25}
RUN = {"relative_error": 0.125, "seconds_solve": 1.0, "certificates": {"holds": 3, "fails": 0, "not applicable": 1}}


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """`compare` yields two records and remembers what it was asked."""
    asked: list[dict] = []

    def compare(out: Path, **options: object):
        asked.append({"out": out, **options})
        yield make_record("perplexity", method="dense", sparsity="0%", **FACTS)
        yield make_record("perplexity", method="maiht", sparsity="50%", **FACTS, **RUN)

    monkeypatch.setattr(benchmarks.llm, "compare", compare)
    return asked


def test_the_list_names_every_benchmark() -> None:
    said = invoke("list").stdout
    assert [line.split()[0] for line in said.splitlines()] == list(BENCHMARKS)


def test_options_are_frozen() -> None:
    command = typer.main.get_command(app).commands["run"]
    assert [p.opts[0] for p in command.params] == [
        *("name", "--model", "--calibration", "--text", "--methods", "--sparsities", "--refine", "--swaps"),
        *("--error-correction", "--inputs", "--allocate", "--length", "--protocol", "--blocks", "--layers", "--seed"),
        *("--seeds", "--device", "--scale", "--minutes", "--out", "--json"),
    ]


def test_records_are_appended_and_printed_as_one_document(planted: list[dict], tmp_path: Path) -> None:
    for _ in range(2):
        found = invoke("run", "llm", "--methods", "wanda, maiht,wanda", "--out", str(tmp_path / "a" / "b"), "--json")
        assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    kept = read([tmp_path / "a" / "b" / "records.jsonl"])
    assert all(record in kept for record in said["records"])
    assert planted[0]["methods"] == ("wanda", "maiht")
    assert planted[0]["sparsities"] == ("50%",)
    assert planted[0]["seeds"] == (0,)
    assert not planted[0]["fresh"]


def test_specs_seeds_and_stages_reach_the_comparison(planted: list[dict], tmp_path: Path) -> None:
    specs = "wanda,maiht:refine=gradient:30,iters=9, fista:start=sparsegpt"
    words = ["run", "llm", "--methods", specs, "--seeds", "0, 3,0", "--swaps", "all", "--error-correction", "block"]
    found = invoke(*words, "--inputs", "dense", "--allocate", "owl", "--out", str(tmp_path))
    assert found.exit_code == 0, found.output
    assert planted[0]["methods"] == ("wanda", "maiht:refine=gradient:30,iters=9", "fista:start=sparsegpt")
    assert planted[0]["seeds"] == (0, 3)
    stages = {key: planted[0][key] for key in ("refine", "swaps", "error_correction", "inputs", "allocate")}
    assert list(stages.values()) == ["none", "all", "block", "dense", "owl"]


def test_the_table_has_a_row_for_each_record(planted: list[dict], tmp_path: Path) -> None:
    said = invoke("run", "demo", "--out", str(tmp_path)).stdout
    assert planted[0]["fresh"]
    assert "m: windows-8 on t [/b]" in said
    for cell in ("dense", "maiht", "7.250", "0.125", "3, 0"):
        assert cell in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "dmeo"), "unknown benchmark 'dmeo'. Did you mean 'demo'"),
        (("run", "llm", "--methods", "maith"), "unknown method 'maith'"),
        (("run", "llm", "--sparsities", "150%"), "the share to remove must lie between 0% and 100%"),
        (("run", "llm", "--model", "no[/b]where"), "no[/b]where is not one"),
        (("run", "demo", "--methods", ""), "unknown method ''"),
        (("run", "llm", "--layers", "q_proj"), "the benchmark llm does not read --layers"),
        (("run", "layers", "--refine", "exact", "--length", "8"), "layers does not read --refine, --length"),
        (("run", "layers", "--error-correction", "block"), "layers does not read --error-correction"),
        (("run", "layers", "--blocks", "7:9"), "--blocks is a:b"),
        (("run", "layers", "--methods", "maiht:refine=exact"), "measures every stage itself"),
        (("run", "demo", "--methods", "wanda:"), "a method is written NAME or NAME:key=value,key=value; got 'wanda:'"),
        (("run", "demo", "--methods", "wanda:refin=exact"), "wanda takes no 'refin'"),
        (("run", "demo", "--methods", "maiht:iters=3,iters=4"), "says iters twice"),
        (("run", "demo", "--methods", "maiht:iters=few"), "maiht option iters must be int"),
        (("run", "demo", "--methods", "wanda:refine=gradient:3,swaps=all"), "swaps compare exactly refitted weights"),
        (
            ("run", "demo", "--seeds", "0,one"),
            "numbers with commas between them, 0,1,2; got '0,one'",
        ),
        (("run", "demo", "--allocate", "owl", "--sparsities", "2:4"), "owl gives every block a share of its own"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    found = invoke(*words, "--out", str(tmp_path / "out"))
    assert isinstance(found.exception, SystemExit), repr(found.exception)
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith("error: ")
    assert says in found.stderr
    assert found.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_interruption_keeps_the_records_so_far_and_leaves_with_three(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compare(out: Path, **options: object):
        yield make_record("perplexity", method="dense", sparsity="0%", **FACTS)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmarks.llm, "compare", compare)
    found = invoke("run", "llm", "--out", str(tmp_path))
    assert found.exit_code == 3
    assert "interrupted" in found.stderr
    assert len(read([tmp_path / "records.jsonl"])) == 1
