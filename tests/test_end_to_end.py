"""The main job on trained models, as a user runs it: the embedded one, and small ones of other people."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import records
from benchmarks.llm import compare, run_folder
from llm_pipeline.__main__ import app
from llm_pipeline.bundled import MODEL
from llm_pipeline.bundled.text import held_out_text
from llm_pipeline.llama2c import import_llama2c
from reports.__main__ import app as pages

METHODS = ("magnitude", "wanda", "maiht")
LOADING = """
import sys, torch
from transformers import AutoModelForCausalLM
model, notes = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
layers = [m.weight for n, m in model.named_modules() if n.endswith("_proj")]
zeros = {float((row == 0).float().mean()) for weight in layers for row in weight}
print(len(layers), *zeros, *notes["missing_keys"], *notes["unexpected_keys"])
"""


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.safetensors")}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `text.txt`: 40 kB of held-out text."""
    folder = tmp_path_factory.mktemp("end to end")
    (folder / "text.txt").write_text("<|endoftext|>".join(held_out_text())[:40_000], encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def found(place: Path) -> list[dict[str, Any]]:
    """Records of the three methods on the embedded model, runs in `place/runs`."""
    options = {"calibration": "embedded:8x128", "text": str(place / "text.txt"), "length": 128}
    made = list(compare(place / "runs", methods=METHODS, **options))
    for record in made:
        records.append(place / "runs" / "records.jsonl", record)
    return made


def test_better_methods_hurt_a_trained_model_less(found: list[dict[str, Any]]) -> None:
    runs = {r["method"]: r for r in found if r["benchmark"] == "perplexity"}
    error = {name: runs[name]["relative_error"] for name in METHODS}
    assert 0 < error["maiht"] < error["wanda"] < error["magnitude"] < 1
    perplexity = {name: run["perplexity"] for name, run in runs.items()}
    assert perplexity["dense"] < perplexity["maiht"] < perplexity["wanda"]
    for name in METHODS:
        assert runs[name]["certificates"]["fails"] == 0
        assert runs[name]["sparsity_measured"] == 0.5


@pytest.mark.usefixtures("found")
def test_the_page_builds_from_runs_and_records_alone(place: Path) -> None:
    runs = [str(run_folder(place / "runs", method, "50%")) for method in METHODS]
    for places, out in ((runs, "report.html"), ([str(place / "runs" / "records.jsonl")], "records.html")):
        built = CliRunner().invoke(pages, ["build", *places, "--out", str(place / out)])
        assert built.exit_code == 0, built.output
        page = (place / out).read_text(encoding="utf-8")
        assert "<svg" in page or out == "records.html"
        assert all(method in page for method in METHODS)
        assert str(place) not in page


@pytest.mark.usefixtures("found")
def test_another_process_loads_the_pruned_model(place: Path) -> None:
    done = run_python("-c", LOADING, str(run_folder(place / "runs", "maiht", "50%")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["28", "0.5"]


def run_python(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=folder)


def one_document(module: str, *words: str, folder: Path) -> dict[str, Any]:
    done = run_python("-m", module, *words, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_with_json_stdout_is_one_document_and_nothing_else(place: Path) -> None:
    small = ("--calibration", "text.txt:2x32")
    scored = ("--text", "text.txt", "--length", "128")
    assert one_document("llm_pipeline", "inspect", folder=place)["name"] == "embedded"
    made = one_document(
        *("llm_pipeline", "prune", "--method", "magnitude", *small, *scored, "--out", "nested/new/out"), folder=place
    )
    assert (made["layers"], made["out"], made["certificates"]["fails"]) == (28, "nested/new/out", 0)
    scores = one_document("llm_pipeline", "eval", "nested/new/out", *scored, folder=place)
    assert scores["perplexity"] == pytest.approx(made["perplexity"]["pruned"]["perplexity"], rel=1e-6)
    checked = one_document("llm_pipeline", "verify", "nested/new/out", folder=place)
    assert checked["outcome"] == "holds"
    measured = one_document(
        *("benchmarks", "run", "llm", "--methods", "magnitude", *small, *scored, "--out", "bench"), folder=place
    )
    assert [r["method"] for r in measured["records"]] == ["dense", "magnitude"]
    assert measured["records"][1]["perplexity"] == pytest.approx(scores["perplexity"], rel=1e-6)


def null(model: str | None, calibration: str, text: str, out: Path, length: str) -> dict[str, Any]:
    words = ["--method", "dense", "--calibration", calibration, "--text", text, "--length", length, "--out", str(out)]
    done = CliRunner().invoke(app, ["prune", *([model] if model else []), *words, "--json"])
    assert done.exit_code == 0, done.output
    perplexity: dict[str, Any] = json.loads(done.stdout)["perplexity"]
    return perplexity


def test_the_null_method_returns_the_embedded_model(place: Path) -> None:
    scores = null(None, "embedded:2x32", str(place / "text.txt"), place / "dense", "256")
    assert hashes(place / "dense") == hashes(MODEL)
    assert scores["dense"] == scores["pruned"]
    assert 1 < scores["dense"]["perplexity"] < 50


@pytest.mark.data
@pytest.mark.parametrize("name", ["tinystories656K", "stories260K"])
def test_the_null_method_returns_models_of_other_people(
    name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stories = (data_dir / "data/tinystories/tinystories_sample.txt").read_text(encoding="utf-8").split("<|endoftext|>")
    for file, part in (("calibration.txt", stories[:60]), ("text.txt", stories[2200:2240])):
        (tmp_path / file).write_text("<|endoftext|>".join(part), encoding="utf-8")
    where = data_dir / "data" / name
    if not where.is_dir():
        pytest.skip(f"the data folder has no {name}")
    binary = name == "stories260K"
    source = import_llama2c(where / f"{name}.bin", tmp_path / "imported") if binary else where
    typed = where / f"{name}.bin" if binary else where
    out = tmp_path / "out"
    scores = null(str(typed), f"{tmp_path}/calibration.txt:4x32", str(tmp_path / "text.txt"), out, "128")
    assert hashes(out) == hashes(source)
    assert scores["dense"] == scores["pruned"]
    assert 1 < scores["dense"]["perplexity"] < 60


@pytest.fixture
def embedded_copy(tmp_path: Path) -> Callable[[], Path]:
    """A copy of the embedded model that a test may spoil."""

    def copy() -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        for path in MODEL.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    return copy


def test_a_tokenizer_that_changed_since_the_run_is_refused(embedded_copy: Callable[[], Path], place: Path) -> None:
    model, out = embedded_copy(), place / "of a copy"
    words = ["prune", str(model), "--method", "wanda", "--calibration", f"{place}/text.txt:2x32", "--out", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, ["verify", str(out)]).exit_code == 0
    fields = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    fields["model"]["merges"].pop()
    (model / "tokenizer.json").write_text(json.dumps(fields), encoding="utf-8")
    refused = CliRunner().invoke(app, ["verify", str(out)])
    assert refused.exit_code == 2
    assert "the tokenizer of" in refused.stderr
