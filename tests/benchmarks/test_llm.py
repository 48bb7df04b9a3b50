"""Comparing methods on one model: what is recorded, against the runs that were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import records
from benchmarks.llm import compare, forget, run_folder
from benchmarks.seeds import student, verdict
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.evaluate import perplexity
from llm_pipeline.plan import Plan
from solvers.refusal import Refusal

METHODS, SPARSITIES = ("magnitude", "wanda", "iht"), ("50%", "2:4")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random LLaMA and token ids to calibrate and to evaluate on."""
    folder = tmp_path_factory.mktemp("compare")
    torch.manual_seed(1)
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    config = AutoConfig.for_model("llama", **shape, num_attention_heads=4, max_position_embeddings=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "tiny")
    for seed, name in enumerate(("calibration", "text")):
        np.save(folder / f"{name}.npy", np.random.default_rng(seed).integers(0, 97, size=(6, 32)))
    return folder


def compared(place: Path, out: Path, **options: object) -> list[records.Record]:
    chosen = {"methods": METHODS, "sparsities": SPARSITIES, "text": str(place / "text.npy"), **options}
    return list(compare(out, model=str(place / "tiny"), calibration=f"{place}/calibration.npy:4x32", **chosen))


@pytest.fixture(scope="module")
def found(place: Path) -> list[records.Record]:
    return compared(place, place / "runs")


def test_dense_comes_first_then_every_method_and_each_pair(found: list[records.Record]) -> None:
    kinds = [(r["benchmark"], r.get("method") or (r["better"], r["than"]), r["sparsity"]) for r in found]
    expected = [("perplexity", "dense", "0%")]
    for sparsity in SPARSITIES:
        expected += [("perplexity", method, sparsity) for method in METHODS]
        pairs = (("wanda", "magnitude"), ("iht", "magnitude"), ("iht", "wanda"))
        expected += [("comparison", pair, sparsity) for pair in pairs]
    assert kinds == expected


def test_a_comparison_is_the_difference_of_its_two_runs_and_lies_in_its_interval(found: list[records.Record]) -> None:
    nll = {(r["method"], r["sparsity"]): r["nll"] for r in found if r["benchmark"] == "perplexity"}
    pairs = [r for r in found if r["benchmark"] == "comparison"]
    for r in pairs:
        difference = nll[r["better"], r["sparsity"]] - nll[r["than"], r["sparsity"]]
        assert r["nll_difference"] == pytest.approx(difference, abs=1e-12)
        low, high = r["difference_interval"]
        assert low < r["nll_difference"] < high
    assert all(r["nll_difference"] != 0 for r in pairs)


def test_a_record_says_what_its_run_folder_says(found: list[records.Record], place: Path) -> None:
    for r in found:
        if r["benchmark"] == "perplexity" and r["method"] != "dense":
            summary = json.loads((run_folder(place / "runs", r["method"], r["sparsity"]) / "summary.json").read_text())
            assert r["perplexity"] == summary["perplexity"]["pruned"]["perplexity"]
            assert r["certificates"] == summary["certificates"]
            assert r["relative_error"] == summary["relative_error"]
            assert r["calibration"] == "calibration.npy:4x32, seed 0"
            assert r["certificates"]["fails"] == 0


def test_perplexities_are_those_of_the_models_on_disk(found: list[records.Record], place: Path) -> None:
    folders = {("dense", "0%"): place / "tiny"}
    folders |= {(m, s): run_folder(place / "runs", m, s) for m in METHODS for s in SPARSITIES}
    for r in found:
        if r["benchmark"] == "perplexity":
            again = perplexity(folders[r["method"], r["sparsity"]], place / "text.npy")
            assert r["perplexity"] == pytest.approx(again.perplexity, rel=1e-12)


def test_records_can_be_appended_and_read(found: list[records.Record], tmp_path: Path) -> None:
    for record in found:
        records.append(tmp_path / "records.jsonl", record)
    assert records.read([tmp_path / "records.jsonl"]) == found


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"text": "none"}, "a comparison needs --text FILE"),
        ({"methods": ("wanda", "maith")}, "unknown method 'maith'"),
        ({"sparsities": ("50%", "3:7")}, "3:7 needs an input dimension divisible by 7"),
        ({"methods": ("iht", "maiht-released")}, "maiht-released cannot meet"),
    ],
)
def test_nothing_is_measured_or_written_where_one_run_is_impossible(
    options: dict, says: str, place: Path, tmp_path: Path
) -> None:
    arrived = []
    with pytest.raises(Refusal, match=says):
        arrived += compared(place, tmp_path / "out", **options)
    assert arrived == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["wanda-50", "wanda-50.partial"])
def test_a_folder_that_is_taken_is_refused_before_anything_is_measured(name: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(Refusal, match=f"{name} exist already"):
        next(compare(tmp_path, **arguments(place)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def arguments(place: Path) -> dict:
    return {
        "model": str(place / "tiny"),
        "calibration": str(place / "calibration.npy"),
        "text": str(place / "text.npy"),
        "methods": ("magnitude", "wanda"),
    }


def test_starting_afresh_removes_only_what_the_comparison_wrote(place: Path, tmp_path: Path) -> None:
    for name in ("magnitude-50", "magnitude-50.partial", "wanda-50", "maiht-50"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("notes.txt" if name == "wanda-50" else "plan.toml")).write_text("kept?")
    (tmp_path / "records.jsonl").write_text("{}\n")
    (tmp_path / "thesis.tex").write_text("precious")
    forget(tmp_path, ("magnitude", "wanda"), ("50%",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maiht-50", "thesis.tex", "wanda-50"]


def test_a_fresh_start_that_is_refused_forgets_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("{}\n")
    with pytest.raises(Refusal, match="unknown method"):
        compared(place, tmp_path, methods=("maith",), fresh=True)
    assert (tmp_path / "records.jsonl").is_file()


SPECS = ("wanda", "wanda:allocate=owl,owl_m=3.0", "iht:refine=exact,iters=5")


@pytest.fixture(scope="module")
def seeded(place: Path) -> list[records.Record]:
    return compared(place, place / "seeded", methods=SPECS, sparsities=("60%",), seeds=(0, 5, 7))


def test_every_seed_is_a_run_of_its_own(seeded: list[records.Record], place: Path) -> None:
    runs = [r for r in seeded if r["benchmark"] == "perplexity" and r["method"] != "dense"]
    assert [(r["spec"], r["seed"]) for r in runs] == [(spec, seed) for spec in SPECS for seed in (0, 5, 7)]
    plans = [Plan.read(run_folder(place / "seeded", r["spec"], "60%", r["seed"])) for r in runs]
    assert [plan.seed for plan in plans] == [0, 5, 7] * 3
    assert [r["calibration"] for r in runs[:3]] == [f"calibration.npy:4x32, seed {seed}" for seed in (0, 5, 7)]
    assert [plan.allocation.name for plan in plans[::3]] == ["uniform", "owl", "uniform"]
    assert (plans[6].refine, plans[6].method.options["iters"]) == ("exact", 5)
    assert len({r["perplexity"] for r in runs}) == 9


def test_a_comparison_over_seeds_averages_and_spreads_its_pairs(seeded: list[records.Record]) -> None:
    nll = {(r.get("spec"), r.get("seed")): r["nll"] for r in seeded if r["benchmark"] == "perplexity"}
    pairs = [r for r in seeded if r["benchmark"] == "comparison"]
    assert [(SPECS.index(r["better"]), SPECS.index(r["than"])) for r in pairs] == [(1, 0), (2, 0), (2, 1)]
    for r in pairs:
        each = np.array([nll[r["better"], seed] - nll[r["than"], seed] for seed in (0, 5, 7)])
        assert r["nll_difference"] == pytest.approx(each.mean(), abs=1e-12)
        reach = 4.302652729911275 * each.std(ddof=1) / 3**0.5  # t of 2 degrees of freedom at 0.975
        assert r["seed_interval"] == pytest.approx([each.mean() - reach, each.mean() + reach], abs=1e-12)
        assert r["verdict"] == verdict(r["difference_interval"], r["seed_interval"])


def test_shared_stages_reach_every_run_whose_spec_says_nothing(place: Path) -> None:
    options = {"methods": ("wanda", "wanda:swaps=1"), "sparsities": ("50%",), "swaps": "2", "inputs": "dense"}
    found = compared(place, place / "staged", error_correction="block", **options)
    specs = [r["spec"] for r in found if r["benchmark"] == "perplexity" and r["method"] != "dense"]
    stages = "error_correction=block,inputs=dense"
    assert specs == [f"wanda:refine=exact,swaps=2,{stages}", f"wanda:refine=exact,swaps=1,{stages}"]


@pytest.mark.parametrize(
    ("windows", "seeds", "said"),
    [
        ((-3, -1), (-2, -1), "lower"),
        ((1, 3), (0.5, 2), "higher"),
        ((-3, -1), (-2, 0.1), "not separated"),
        ((-3, 0.1), (-2, -1), "not separated"),
        ((-3, -1), (1, 2), "not separated"),
        ((-3, -1), None, "not separated"),
        (None, (-2, -1), "not separated"),
    ],
)
def test_windows_and_seeds_must_agree(windows: tuple | None, seeds: tuple | None, said: str) -> None:
    assert verdict(windows, seeds) == said


def test_one_seed_has_no_spread(found: list[records.Record]) -> None:
    assert student([1.5]) is None
    assert student([2.0, 2.0]) == (2.0, 2.0)
    pairs = [r for r in found if r["benchmark"] == "comparison"]
    assert {(r["seed_interval"], r["verdict"]) for r in pairs} == {(None, "not separated")}


def test_the_dense_model_is_not_touched(found: list[records.Record], place: Path) -> None:
    assert found
    dense = Checkpoint.open(place / "tiny")
    assert not any((dense.read(name) == 0).float().mean() > 0.4 for name in dense.names if "proj" in name)
