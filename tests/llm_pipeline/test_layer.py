"""One layer: measured, solved, cast, judged and described."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import solvers
from llm_pipeline import assemble
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint, digest
from llm_pipeline.evidence import measure
from llm_pipeline.layer import Layer, describe, judge, judge_saved, prune_layer
from solvers.refusal import Refusal
from theory_checks.exchange import one_swap_sampled

READER = "mlp.gate_proj"


@pytest.fixture
def solved(save_tiny: Callable[..., Path], ids: Path) -> Callable[..., Layer]:
    """`solved(method)` prunes gate_proj of block 0 of a bfloat16 model in float32."""
    source = save_tiny("llama", dtype=torch.bfloat16)

    def solve(method: str, **stages: Any) -> Layer:
        job = assemble.job(str(source), method=method, calibration=str(ids), dtype="float32", **stages)
        walk = BlockWalk(job.source, "cpu", dtype=torch.float32)
        site = next(site for site in walk.family.sites if READER in site.readers)
        [gram], _ = measure(walk, walk.load(0), 0, walk.embed(job.tokens.ids), (site,))
        budget = solvers.parse("50%").on((40, 32))
        return prune_layer(walk, 0, site, READER, gram, solvers.find(method), budget, job.plan)

    return solve


def test_objective_and_error_are_those_of_the_weights_as_saved(solved: Callable[..., Layer]) -> None:
    layer = solved("maiht")
    row, H, W0 = describe(layer, "none"), layer.problem.H, layer.problem.W0
    saved = layer.saved.double().numpy()
    assert layer.saved.dtype == torch.bfloat16
    expected = 0.5 * np.trace((saved - W0) @ H @ (saved - W0).T)
    assert row["objective"] == pytest.approx(expected, rel=1e-12)
    assert row["relative_error"] == pytest.approx(2 * expected / np.trace(W0 @ H @ W0.T), rel=1e-12)
    unrounded = layer.run.problem.original(layer.run.swapped)
    assert row["objective"] != pytest.approx(0.5 * np.trace((unrounded - W0) @ H @ (unrounded - W0).T), rel=1e-7)
    assert (row["kept"], row["sparsity"], row["shape"]) == (40 * 16, 0.5, [40, 32])
    assert row["sha256"] == digest(layer.saved)
    assert row["trace"]["level"][-1] == 16


def test_refinement_says_what_it_gained(solved: Callable[..., Layer]) -> None:
    plain, refined = (describe(solved("wanda", refine=how), how) for how in ("none", "exact"))
    assert plain["refine"] is None
    assert refined["refine"]["name"] == "exact"
    assert refined["refine"]["gain"] > 0
    assert refined["objective"] < plain["objective"]


def test_every_stage_says_what_it_gained(solved: Callable[..., Layer]) -> None:
    layer = solved("wanda", swaps="all", refine_mu=1e-3)
    row, run = describe(layer, "exact"), layer.run
    assert row["stages"]["found"] > row["stages"]["refined"] > row["stages"]["swapped"] > 0
    assert row["stages"]["swapped"] == pytest.approx(row["relative_error"], rel=0.1)
    assert row["swaps"]["count"] == sum(map(len, run.gains)) > 0
    assert row["swaps"]["rows_ended"] == 40
    f = run.refit.value
    assert row["refine"]["gain"] == pytest.approx(f(run.found.weight) - f(run.refined), rel=1e-9)
    assert row["swaps"]["gain"] == pytest.approx(f(run.refined) - f(run.swapped), rel=1e-6)
    certificates = {c.name: c.outcome for c in judge(solvers.find("wanda"), layer, "exact")}
    assert {certificates[name] for name in ("swaps-descend", "one-swap-optimal", "masked-least-squares")} == {"holds"}


def test_swaps_that_were_cut_short_do_not_claim_to_be_optimal(solved: Callable[..., Layer]) -> None:
    layer = solved("wanda", swaps=1)
    row = describe(layer, "exact")["swaps"]
    assert 0 < row["count"] == 40 - row["rows_ended"]
    certificate = one_swap_sampled(layer.run.refit, layer.run.sparsity, layer.run.swapped, ~layer.run.ended)
    assert certificate.outcome == "fails"
    found = {c.name: c.outcome for c in judge(solvers.find("wanda"), layer, "exact")}
    assert found["one-swap-optimal"] != "fails"
    assert describe(solved("wanda", refine="exact"), "exact")["swaps"] is None


def test_a_layer_that_breaks_its_budget_fails_exactly_that_claim(solved: Callable[..., Layer]) -> None:
    layer, method = solved("wanda"), solvers.find("wanda")
    assert {c.outcome for c in judge(method, layer, "none")} == {"holds", "not applicable"}
    saved = layer.saved.double().numpy()
    for broken in (np.where(saved == 0, -0.0, saved), np.where(saved == 0, 1e-30, saved), 0 * saved):
        found = {c.name: c.outcome for c in judge_saved(method, layer.run.problem, layer.run.sparsity, broken)}
        assert found["exact-count"] == "fails"


def test_the_null_method_owes_no_pattern_and_says_so(solved: Callable[..., Layer]) -> None:
    layer = solved("dense")
    saved = [c for c in judge(solvers.find("dense"), layer, "none") if c.name in ("exact-count", "lower-bound")]
    assert [c.applies for c in saved] == ["the null method removes nothing"] * 2
    assert all(np.isfinite([c.measured, c.bound]).all() for c in saved)


def test_weights_that_the_file_cannot_hold_are_refused(
    solved: Callable[..., Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = solvers.run
    monkeypatch.setattr(solvers, "run", lambda *a, **k: (r := run(*a, **k))._replace(weight=1e300 * r.weight))
    with pytest.raises(solvers.Refusal, match=r"the pruned weights reach \S+, beyond the range of torch\.bfloat16"):
        solved("wanda")


def test_a_digest_sees_one_bit_and_the_sign_of_zero() -> None:
    weight = torch.zeros(3, 4, dtype=torch.bfloat16)
    flipped = weight.clone()
    flipped.view(torch.int16)[2, 3] = 1
    assert len({digest(weight), digest(flipped), digest(-weight), digest(weight[:2])}) == 4
    assert digest(weight.T.contiguous().T) == digest(weight)


def test_a_gram_that_is_no_number_is_refused_by_block_and_site(tiny: Path) -> None:
    walk = BlockWalk(Checkpoint.open(tiny), "cpu")
    hidden = walk.embed(np.zeros((2, 8), dtype=np.int64)).clone()
    hidden[1, 3] = float("nan")
    with pytest.raises(Refusal, match="block 1, attention input: the Gram holds NaN"):
        measure(walk, walk.load(1), 1, hidden, walk.family.sites[:1])
