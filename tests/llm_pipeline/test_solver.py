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
            ("--solver", "fast", "--method", "wanda"),
            "this method has no fast twin; iht, maiht, sparsegpt, admm, fista, alps have one.",
        ),
    ],
)
def test_what_has_no_twin_is_refused_before_anything_is_written(words: tuple[str, ...], said: str, tiny: Path) -> None:
    found = CliRunner().invoke(app, ["prune", str(tiny), *words])
    assert found.exit_code == 2
    assert said in " ".join(found.output.split())
