"""Layer by layer: errors against a direct forward pass, the same Grams for all, stages as the door makes them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import solvers
from benchmarks import layers, records
from benchmarks.__main__ import _measure
from benchmarks.layer_stages import staged
from benchmarks.layer_summary import STAGES, TEXTS
from llm_pipeline.checkpoint import Checkpoint
from solvers.problem import LayerProblem
from solvers.refusal import Refusal

METHODS, SPARSITIES = ("magnitude", "sparsegpt", "maiht"), ("50%", "2:4")
READERS = 7
Measured = Callable[..., Iterator[records.Record]]


def kind(found: list[records.Record], name: str) -> list[records.Record]:
    return [record for record in found if record["benchmark"] == name]


@pytest.fixture(scope="module")
def found(measured: Measured) -> list[records.Record]:
    return list(measured(methods=METHODS, sparsities=SPARSITIES, blocks="1:3", swaps=2))


def outputs_lost(tiny_layers: Path, record: records.Record, text: str) -> float:
    """|W X - W0 X|^2 / |W0 X|^2 of one-shot magnitude pruning, X the inputs of the whole dense model."""
    model = AutoModelForCausalLM.from_pretrained(tiny_layers / "tiny", dtype=torch.float64)
    layer, seen = model.get_submodule(record["layer"].removesuffix(".weight")), []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().reshape(-1, inputs[0].shape[-1])))
    file = {"calibration": "calibration", "held_out": "text"}[text]
    model(torch.from_numpy(np.load(tiny_layers / f"{file}.npy")))
    X, W0 = seen[0].numpy(), layer.weight.detach().numpy()
    target = solvers.parse(record["sparsity"]).on(W0.shape)
    W = np.where(target.mask(np.abs(W0)), W0, 0.0)
    return float(np.sum((X @ (W - W0).T) ** 2) / np.sum((X @ W0.T) ** 2))


def texts_agree(tiny_layers: Path, found: list[records.Record]) -> bool:
    """Whether what was recorded is what a forward pass of the whole model gives, on each of the two texts."""
    chosen = [r for r in found if r["method"] == "magnitude" and "2.mlp" in r["layer"] and r["sparsity"] == "50%"]
    pairs = [(r["errors"]["found"][text], outputs_lost(tiny_layers, r, text)) for r in chosen for text in TEXTS]
    return bool(pairs) and all(value == pytest.approx(direct, rel=1e-4) for value, direct in pairs)


def test_there_is_a_record_for_each_layer_pattern_and_method_in_turn(found: list[records.Record]) -> None:
    rows = kind(found, "layers")
    assert len(rows) == 2 * READERS * len(SPARSITIES) * len(METHODS)
    first = [(r["sparsity"], r["method"]) for r in rows[:6]]
    assert first == [(sparsity, method) for sparsity in SPARSITIES for method in METHODS]
    assert [r["block"] for r in rows] == [1] * (len(rows) // 2) + [2] * (len(rows) // 2)
    assert len({r["layer"] for r in rows}) == 2 * READERS


def test_errors_are_those_of_a_forward_pass_on_each_text(tiny_layers: Path, found: list[records.Record]) -> None:
    assert texts_agree(tiny_layers, kind(found, "layers"))


def test_one_gram_for_both_texts_would_be_noticed(
    measured: Measured, tiny_layers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[int, Any] = {}

    def measure(walk: Any, block: Any, i: int, hidden: Any, sites: Any) -> Any:
        inputs, output = honest(walk, block, i, hidden, sites)
        return kept.setdefault(i, inputs), output

    honest = layers.measure
    monkeypatch.setattr(layers, "measure", measure)
    planted = list(measured(methods=("magnitude",), blocks="2"))
    assert all(r["errors"]["found"]["calibration"] == r["errors"]["found"]["held_out"] for r in kind(planted, "layers"))
    assert not texts_agree(tiny_layers, kind(planted, "layers"))


def test_predecessors_are_dense_and_every_method_gets_the_same_problem(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, list[str]] = {}
    problems: list[LayerProblem] = []  # kept, so that no two share an id

    def spy(method: Any, problem: LayerProblem, sparsity: Any, swaps: Any) -> Any:
        problems.append(problem)
        given.setdefault(id(problem), []).append(method.paper)
        return staged(method, problem, sparsity, swaps)

    monkeypatch.setattr(layers, "staged", spy)
    list(measured(methods=METHODS, blocks="0:2", layers="q_proj"))
    assert [len(papers) for papers in given.values()] == [len(METHODS)] * 2
    assert all(problem.R is None for problem in problems)


def rises(row: records.Record) -> bool:
    """Whether a stage has a larger calibration error than the one before it."""
    errors = [row["errors"][stage]["calibration"] for stage in STAGES]
    return any(later > earlier for earlier, later in pairwise(errors))


def test_stages_come_in_their_order_and_each_improves_on_its_text(found: list[records.Record]) -> None:
    rows = kind(found, "layers")
    assert all(list(r["errors"]) == sorted(STAGES) for r in rows)
    # The ridge of the stages is not in the errors, so maiht's own refit may be a little better without it.
    assert not any(rises(r) for r in rows if r["method"] == "magnitude")
    planted = [{**r, "errors": dict(zip(STAGES, reversed(r["errors"].values()), strict=True))} for r in rows]
    assert any(rises(r) for r in planted if r["method"] == "magnitude")


def test_a_record_judges_its_last_stage(measured: Measured) -> None:
    [row] = kind(list(measured(methods=("maiht",), blocks="0", layers="o_proj")), "layers")
    assert row["objective"] >= row["lower_bound"] > 0
    assert row["gap"] == pytest.approx(row["objective"] / row["lower_bound"], rel=1e-12)
    assert row["residual"] >= 0
    assert (row["sparsity_measured"], row["exchanges"]) == (0.5, None)
    assert row["certificates"]["holds"] > 0
    assert row["certificates"].get("fails", 0) == len(row["failures"]) == 0
    assert {"mu": 0.1, "refine_mu": 0.01}.items() <= row.items()
    assert set(row["seconds"]) == {"found", "refined", "certify"}


def test_every_pattern_of_a_layer_is_bounded_once_and_no_method_is_below(found: list[records.Record]) -> None:
    bounds = {(r["layer"], r["sparsity"]): r["bound"] for r in kind(found, "layers-bound")}
    rows = kind(found, "layers")
    assert len(kind(found, "layers-bound")) == len(bounds) == 2 * READERS * len(SPARSITIES)
    assert bounds.keys() == {(r["layer"], r["sparsity"]) for r in rows}
    assert all(r["objective"] > bounds[r["layer"], r["sparsity"]] > r["lower_bound"] > 0 for r in rows)
    assert found.index(kind(found, "layers-bound")[0]) < found.index(rows[0])


def test_a_bound_that_is_too_high_fails_on_every_method_and_a_shared_budget_has_none(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = layers.bound_of

    def boastful(*arguments: Any, **options: Any) -> Any:
        bound = honest(*arguments, **options)
        return bound._replace(value=100 * bound.value)

    monkeypatch.setattr(layers, "bound_of", boastful)
    asked = {"methods": ("wanda", "magnitude"), "sparsities": ("50%", "50%/layer"), "blocks": "0", "layers": "q_proj"}
    planted = list(measured(**asked))
    assert [r["sparsity"] for r in kind(planted, "layers-bound")] == ["50%"]
    told = {(r["sparsity"], r["method"]): [f.split(":")[0] for f in r["failures"]] for r in kind(planted, "layers")}
    assert {key: names for key, names in told.items() if names} == {
        ("50%", method): ["optimality-gap"] for method in ("wanda", "magnitude")
    }


def test_a_layer_whose_gram_is_lost_has_no_bound_and_says_why(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "bound_of", lambda *arguments, **options: Refusal("H is singular"))
    [bound] = kind(list(measured(blocks="0", layers="q_proj")), "layers-bound")
    assert (bound["bound"], bound["why"]) == (None, "H is singular")


def test_a_one_shot_method_has_no_residual_and_swaps_are_counted(found: list[records.Record]) -> None:
    rows = kind(found, "layers")
    assert {r["method"] for r in rows if r["residual"] is None} == {"magnitude", "sparsegpt"}
    assert all(0 <= r["exchanges"] <= 2 * r["shape"][0] for r in rows)
    assert any(r["exchanges"] for r in rows)


def test_the_run_says_what_it_cost(found: list[records.Record]) -> None:
    [run] = kind(found, "layers-run")
    assert found[-1] == run
    assert run["peak_memory_bytes"] > 2**20
    assert run["tried"] == len(kind(found, "layers"))
    solved = sum(r["seconds"]["swapped"] for r in kind(found, "layers"))
    assert run["seconds"]["swapped"] == pytest.approx(solved, rel=1e-9)
    assert run["seconds"]["total"] > run["seconds"]["inputs"] > 0


def test_a_method_that_refuses_one_layer_leaves_the_others(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fussy(problem: LayerProblem, sparsity: Any) -> solvers.Solution:
        if problem.shape[1] == 40:
            raise Refusal("not on Tuesdays")
        return solvers.METHODS["magnitude"].run(problem, sparsity)

    monkeypatch.setitem(solvers.METHODS, "fussy", replace(solvers.METHODS["magnitude"], run=fussy))
    found = list(measured(methods=("fussy", "wanda"), blocks="0"))
    [refused] = kind(found, "layers-refused")
    assert refused["layer"].endswith("down_proj.weight")
    assert refused["why"] == "not on Tuesdays"
    assert len(kind(found, "layers")) == 2 * READERS - 1


def test_the_grams_of_a_block_are_forgotten_before_those_of_the_next(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: dict[int, list[weakref.ref[Any]]] = {}

    def measure(walk: Any, block: Any, i: int, hidden: Any, sites: Any) -> Any:
        gc.collect()
        still.append([ref() is not None for j, refs in alive.items() if j != i for ref in refs])
        inputs, output = honest(walk, block, i, hidden, sites)
        alive.setdefault(i, []).extend(weakref.ref(one.gram) for one in inputs)
        return inputs, output

    still: list[list[bool]] = []
    honest = layers.measure
    monkeypatch.setattr(layers, "measure", measure)
    list(measured())
    assert len(still) == 6
    assert not any(any(kept) for kept in still)


def test_the_dense_model_is_not_touched(found: list[records.Record], tiny_layers: Path) -> None:
    assert found
    dense = Checkpoint.open(tiny_layers / "tiny")
    assert not any((dense.read(name) == 0).float().mean() > 0.4 for name in dense.names if "proj" in name)


def test_interrupted_records_are_kept(tiny_layers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(10))

    def breaks(*arguments: Any) -> Any:
        if next(count) == 2:
            raise KeyboardInterrupt
        return staged(*arguments)

    monkeypatch.setattr(layers, "staged", breaks)
    texts = {"calibration": f"{tiny_layers}/calibration.npy", "text": f"{tiny_layers}/text.npy"}
    options = {"model": f"{tiny_layers}/tiny", **texts, "methods": ("wanda",), "sparsities": ("50%",)}
    with pytest.raises(KeyboardInterrupt):
        _measure("layers", tmp_path, **options)
    assert len(kind(records.read([tmp_path / "records.jsonl"]), "layers")) == 2
