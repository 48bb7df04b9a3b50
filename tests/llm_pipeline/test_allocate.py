"""OWL in the pipeline: streamed outliers, exact totals, what is recorded, and what verify notices."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import solvers.allocate
from llm_pipeline import allocation, assemble
from llm_pipeline.__main__ import app
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.choices import OPTIONS, read_spec, spec, split_specs
from llm_pipeline.evidence import measure
from llm_pipeline.plan import Plan
from solvers.refusal import Refusal

OWL = {"method": "wanda", "sparsity": "70%", "allocate": "owl", "owl_m": 3.0}


def layers(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "layers.jsonl").read_text().splitlines()]


def by_block(run: Path) -> list[float]:
    rows = layers(run)
    size = [sum(np.prod(r["shape"]) for r in rows if r["block"] == i) for i in range(3)]
    return [1 - sum(r["kept"] for r in rows if r["block"] == i) / size[i] for i in range(3)]


def verified(run: Path) -> tuple[Result, list[str]]:
    found = CliRunner().invoke(app, ["verify", str(run), "--json"])
    if found.exit_code == 2:
        return found, []
    return found, [line["claim"] for line in json.loads(found.stdout)["checks"] if line["outcome"] == "fails"]


def replan(run: Path, old: str, new: str) -> None:
    text = (run / "plan.toml").read_text()
    assert old in text
    (run / "plan.toml").write_text(text.replace(old, new))


@pytest.fixture
def run(tiny: Path, prune_to: Callable) -> Path:
    return prune_to(tiny, **OWL)[0]


@pytest.mark.parametrize("sparsity", ["70%/layer", "70%"])
@pytest.mark.parametrize("options", [{}, {"error_correction": "block", "inputs": "dense"}], ids=str)
def test_the_total_is_met_and_verify_holds(sparsity: str, options: dict, tiny: Path, prune_to: Callable) -> None:
    out, summary = prune_to(tiny, **{**OWL, **options, "sparsity": sparsity})
    rows = layers(out)
    size, kept = sum(np.prod(row["shape"]) for row in rows), sum(row["kept"] for row in rows)
    granted = size - int(0.7 * size)
    assert abs(kept - granted) <= (0 if sparsity.endswith("layer") else rows[-1]["shape"][0] / 2)
    assert summary["certificates"]["fails"] == 0
    found = CliRunner().invoke(app, ["verify", str(out), "--json"])
    assert found.exit_code == 0, found.stdout
    said = {line["claim"] for line in json.loads(found.stdout)["checks"] if line["layer"] == "all blocks"}
    assert said == {"outliers-recounted", "allotment"}


def test_blocks_differ_by_two_lambda_and_more_outliers_keep_more(run: Path) -> None:
    shares, recorded = by_block(run), Plan.read(run).allocation
    assert max(shares) - min(shares) == pytest.approx(0.16, abs=1 / 32)
    pairs = [(a, b) for a in range(3) for b in range(3) if recorded.outliers[a] > recorded.outliers[b]]
    assert pairs
    assert all(shares[a] < shares[b] for a, b in pairs)


def test_outliers_are_those_of_the_dense_model(run: Path, tiny: Path) -> None:
    """Counted once more from the Grams of every site, all blocks dense."""
    walk = BlockWalk(assemble.sources.model(str(tiny)), "cpu", dtype=torch.float32)
    hidden, counts = walk.embed(np.load(tiny.parent / "ids.npy")), []
    for i in range(len(walk)):
        seen, hidden = measure(walk, walk.load(i), i, hidden, walk.family.sites)
        scores = [
            np.abs(walk.checkpoint.read(walk.weight_name(i, reader)).double().numpy()) * np.sqrt(np.diag(inputs.gram.H))
            for site, inputs in zip(walk.family.sites, seen, strict=True)
            for reader in site.readers
        ]
        pooled = np.concatenate([A.ravel() for A in scores])
        counts.append(int((pooled > 3 * pooled.mean()).sum()))
    assert Plan.read(run).allocation.outliers == counts
    assert len(set(counts)) > 1


def test_plan_summary_and_card_say_what_was_allotted(run: Path) -> None:
    plan = tomllib.loads((run / "plan.toml").read_text())["allocation"]
    assert plan["options"] == {"lambda": 0.08, "m": 3.0}
    blocks = json.loads((run / "summary.json").read_text())["blocks"]
    assert [row["measured"] for row in blocks] == pytest.approx(by_block(run))
    size = sum(np.prod(row["shape"]) for row in layers(run)) / 3
    assert [row["sparsity"] for row in blocks] == [1 - kept / size for kept in plan["kept"]]
    assert [row["outliers"] for row in blocks] == [count / size for count in plan["outliers"]]
    assert f"| 1 | {blocks[1]['outliers']:.4%} | {blocks[1]['sparsity']:.4%} |" in (run / "README.md").read_text()


def test_uniform_says_nothing_of_blocks(tiny: Path, prune_to: Callable) -> None:
    out, summary = prune_to(tiny, method="wanda")
    assert summary["blocks"] is None
    assert "Sparsity by block" not in (out / "README.md").read_text()
    assert Plan.read(out).allocation.name == "uniform"


def test_equal_lambda_zero_is_uniform(tiny: Path, prune_to: Callable) -> None:
    out, _ = prune_to(tiny, **{**OWL, "sparsity": "50%"}, owl_lambda=0)
    plain, _ = prune_to(tiny, "plain", method="wanda", sparsity="50%")
    assert [row["sha256"] for row in layers(out)] == [row["sha256"] for row in layers(plain)]


def moved(run: Path) -> tuple[str, str]:
    """One entry goes from the first block to the second."""
    kept = Plan.read(run).allocation.kept
    return f"kept = {kept}", f"kept = {[kept[0] - 1, kept[1] + 1, *kept[2:]]}"


def recounted(run: Path) -> tuple[str, str]:
    counts = Plan.read(run).allocation.outliers
    return f"outliers = {counts}", f"outliers = {[counts[0] + 20, *counts[1:]]}"


@pytest.mark.parametrize(
    ("edit", "claims"),
    [
        (moved, {"allotment"}),
        (recounted, {"outliers-recounted", "allotment"}),
        (lambda run: ("lambda = 0.08", "lambda = 0.07"), {"allotment"}),
        (lambda run: ("m = 3.0", "m = 2.0"), {"outliers-recounted"}),
        (lambda run: ('name = "owl"', 'name = "uniform"'), {"exact-count"}),
    ],
    ids=["kept", "outliers", "lambda", "m", "uniform"],
)
def test_an_edited_allotment_fails(edit: Callable, claims: set[str], run: Path) -> None:
    replan(run, *edit(run))
    found, failed = verified(run)
    assert found.exit_code == 1
    assert claims <= set(failed)


def test_an_allotment_of_another_shape_is_refused(run: Path) -> None:
    kept = Plan.read(run).allocation.kept
    replan(run, f"kept = {kept}", f"kept = {kept[1:]}")
    found, _ = verified(run)
    assert found.exit_code == 2
    assert "holds lambda, m, and the outliers and kept entries of each of the 3 blocks" in found.stderr


def test_shares_that_are_not_centred_are_noticed(tiny: Path, prune_to: Callable, monkeypatch: Any) -> None:
    """The planted run keeps too much; a verify without the defect does not find its own allotment."""
    with monkeypatch.context() as planted:
        planted.setattr(solvers.allocate, "water_level", lambda v, sizes, kept: -min(v))
        out, _ = prune_to(tiny, **OWL)
    found, failed = verified(out)
    assert found.exit_code == 1
    assert "allotment" in failed


def test_a_pass_over_pruned_blocks_is_noticed(tiny: Path, prune_to: Callable, monkeypatch: Any) -> None:
    """The planted pass does not move on: every block is measured on the first one's input."""
    with monkeypatch.context() as planted:
        planted.setattr(BlockWalk, "forward", stuck(BlockWalk.forward))
        plan = assemble.job(str(tiny), calibration=str(tiny.parent / "ids.npy"), **OWL)
        walk = BlockWalk(plan.source, "cpu", dtype=torch.float32)
        wrong = list(allocation.dense_outliers(plan.plan, walk, plan.tokens, lambda *_: None))
    out, _ = prune_to(tiny, **OWL)
    counts = Plan.read(out).allocation.outliers
    assert [block.above for block in wrong] != counts
    replan(out, f"outliers = {counts}", f"outliers = {[block.above for block in wrong]}")
    assert "outliers-recounted" in verified(out)[1]


def stuck(forward: Callable) -> Callable:
    def run(walk: BlockWalk, block: Any, i: int, hidden: torch.Tensor, **_: Any) -> torch.Tensor:
        forward(walk, block, i, hidden)
        return hidden

    return run


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sparsity": "2:4"}, "owl gives every block a share of its own, and 2:4"),
        ({"allocate": "owls"}, "--allocate is one of uniform, owl; got 'owls'. Did you mean 'owl'"),
        ({"owl_lambda": 0.6}, "lambda must lie between 0 and 0.5"),
        ({"owl_lambda": "wide"}, "--owl-lambda must be a number of at least 0; got 'wide'"),
        ({"owl_m": -1}, "--owl-m must be a number of at least 0; got '-1'"),
    ],
)
def test_what_owl_cannot_do_is_refused(options: dict, says: str, tiny: Path, prune_to: Callable) -> None:
    with pytest.raises(Refusal, match=says):
        prune_to(tiny, **{**OWL, **options})
    assert not (tiny.parent / "out").exists()


SPECS = [
    "wanda",
    "maiht:refine=exact,swaps=all",
    "maiht:refine=gradient:30,mu=0.2,iters=9",
    "fista:start=sparsegpt",
    "wanda:error_correction=block,inputs=dense,allocate=owl,owl_lambda=0.05,owl_m=7.0",
]


@pytest.mark.parametrize("text", SPECS)
def test_a_spec_says_what_the_plan_holds(text: str, tiny: Path, ids: Path) -> None:
    plan = assemble.job(str(tiny), calibration=str(ids), **read_spec(text)).plan
    assert sorted(spec(plan).replace(":", ",", 1).split(",")) == sorted(text.replace(":", ",", 1).split(","))
    again = assemble.job(str(tiny), calibration=str(ids), **read_spec(spec(plan))).plan
    assert again == plan


def test_specs_come_from_one_line() -> None:
    assert split_specs(", ".join(SPECS)) == tuple(SPECS)


def test_no_hyper_parameter_has_the_name_of_a_stage() -> None:
    named = {option for method in solvers.METHODS.values() for option in method.options()}
    assert not named & {*OPTIONS, "mu"}
