"""--solver: the fast twin behind the pipeline, recorded in the plan, judged by the reference's certificates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_pipeline.__main__ import app
from llm_pipeline.plan import Plan


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("sparsity", ["50%", "2:4"])
@pytest.mark.parametrize("method", ["iht", "maiht"])
def test_a_fast_run_has_the_certificates_of_the_reference(
    method: str, sparsity: str, tiny: Path, prune_to: Callable
) -> None:
    runs = {
        solver: prune_to(tiny, solver, method=method, sparsity=sparsity, solver=solver)
        for solver in ("reference", "fast")
    }
    (slow, one), (fast, two) = runs["reference"], runs["fast"]
    assert (Plan.read(slow).solver, Plan.read(fast).solver) == ("reference", "fast")
    assert one["certificates"] == two["certificates"]
    assert two["certificates"]["fails"] == 0
    assert one["sparsity_measured"] == two["sparsity_measured"]
    outcomes = [Counter((c["claim"], c["outcome"]) for c in _lines(out / "certificates.jsonl")) for out in (slow, fast)]
    assert outcomes[0] == outcomes[1]
    traces = [row["trace"] for row in _lines(fast / "layers.jsonl")]
    assert {(trace["ramp_dtype"], trace["dtype"]) for trace in traces} == {("float32", "float64")}
    assert all(0 < trace["ramp_rows"] < len(trace["level"]) for trace in traces)
    assert abs(one["relative_error"] / two["relative_error"] - 1) < 0.01
    assert CliRunner().invoke(app, ["verify", str(fast)]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--solver", "fasst"), "--solver is one of reference, fast; got 'fasst'. Did you mean 'fast'?"),
        (
            ("--solver", "reference", "--precision", "tf32"),
            "computes in fp64; precision tf32 needs the fast",
        ),
        (("--precision", "fp16"), "products at one of fp64, fp32, bf16x3, tf32, bf16; got 'fp16'."),
    ],
)
def test_what_no_solver_does_is_refused_before_a_write(words: tuple[str, ...], said: str, tiny: Path) -> None:
    found = CliRunner().invoke(app, ["prune", str(tiny), *words])
    assert found.exit_code == 2
    assert said in " ".join(found.output.split())


def test_runs_are_fast_unless_asked_otherwise_and_the_plan_says_at_which_precision(
    tiny: Path, prune_to: Callable
) -> None:
    for asked, recorded in (({}, "fp32"), ({"precision": "bf16x3"}, "bf16x3"), ({"solver": "reference"}, "fp64")):
        out, summary = prune_to(tiny, "-".join(asked.values()) or "default", method="maiht", sparsity="50%", **asked)
        plan = Plan.read(out)
        assert (plan.solver, plan.precision) == (asked.get("solver", "fast"), recorded)
        assert summary["certificates"]["fails"] == 0
        ramps = {"fp32": "float32", "bf16x3": "bf16x3", "fp64": "float64"}
        traces = [row["trace"] for row in _lines(out / "layers.jsonl")]
        assert {trace["ramp_dtype"] or trace["dtype"] for trace in traces} == {ramps[recorded]}


def test_a_formula_has_one_text_and_its_refinement_two(tiny: Path, prune_to: Callable) -> None:
    weights = {}
    for solver in ("reference", "fast"):
        out, _ = prune_to(tiny, f"wanda-{solver}", method="wanda", sparsity="50%", solver=solver)
        weights[solver] = [row["sha256"] for row in _lines(out / "layers.jsonl")]
    assert weights["reference"] == weights["fast"]


def test_swaps_of_a_fast_run_end_where_those_of_the_reference_end(tiny: Path, prune_to: Callable) -> None:
    found = [
        prune_to(tiny, f"swaps-{solver}", method="wanda", sparsity="50%", swaps="all", refine="exact", solver=solver)[1]
        for solver in ("reference", "fast")
    ]
    assert found[0]["certificates"] == found[1]["certificates"]
    assert found[1]["certificates"]["fails"] == 0
    assert abs(found[0]["relative_error"] / found[1]["relative_error"] - 1) < 0.01
