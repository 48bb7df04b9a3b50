"""Check a finished run against its source, trusting nothing that the run recorded.

The calibration is streamed again through the saved, rounded weights; every pattern is recounted, every objective and
certificate of the saved weights is evaluated again, and every tensor that was not pruned is compared bit for bit. What
OWL allotted to the blocks is followed as it was recorded, and measured and computed again on the dense model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import solvers
from llm_pipeline.allocation import budgets, recheck
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.evidence import Inputs, see
from llm_pipeline.journal import certificate_line
from llm_pipeline.layer import dense_weight, digest, judge_saved
from llm_pipeline.plan import Plan
from llm_pipeline.prune import Progress, silent
from llm_pipeline.sources import DTYPES
from solvers.refusal import Refusal
from solvers.sparsity import Budget
from theory_checks import Certificate, allowance, one_swap_again

SOURCE = "the run's own record"


def verify(
    folder: Path, plan: Plan, source: Checkpoint, tokens: Tokens, *, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One line per layer and check, in the form of certificates.jsonl; a tensor that is no layer counts as one."""
    pruned = Checkpoint.open(folder)
    if pruned.entries.keys() != source.entries.keys():
        names = pruned.entries.keys() ^ source.entries.keys()
        raise Refusal(f"{folder} and its source hold different tensors: {', '.join(sorted(names)[:5])}. Prune again.")
    recorded = read_layers(folder)
    walk = BlockWalk(pruned, plan.device, dtype=DTYPES[plan.dtype])
    layers = {walk.weight_name(i, reader) for i in range(len(walk)) for reader in walk.family.readers}
    lines = [certificate_line(name, c) for name, c in _untouched(pruned, source, layers)]
    with torch.inference_mode():
        dense = BlockWalk(source, plan.device, dtype=DTYPES[plan.dtype])
        lines += [certificate_line("all blocks", c) for c in recheck(plan, dense, tokens, progress)]
        for name, certificate in _layers(walk, plan, source, tokens, recorded, progress):
            lines.append(certificate_line(name, certificate))
    return lines


def _untouched(pruned: Checkpoint, source: Checkpoint, layers: set[str]) -> Iterator[tuple[str, Certificate]]:
    claim = "every tensor that is no pruned layer equals its source bit for bit"
    different = [n for n in source.names if n not in layers and digest(pruned.read(n)) != digest(source.read(n))]
    for name in different or ["all other tensors"]:
        yield name, Certificate("untouched", claim, "by construction", float(bool(different)), 0.0)


def _layers(
    walk: BlockWalk, plan: Plan, source: Checkpoint, tokens: Tokens, recorded: dict[str, Any], progress: Progress
) -> Iterator[tuple[str, Certificate]]:
    hidden, kept = walk.embed(tokens.ids), budgets(plan, source)
    unpruned = BlockWalk(source, plan.device, dtype=DTYPES[plan.dtype]) if plan.needs_dense_block else None
    for i in range(len(walk)):
        progress(i, len(walk), f"block {i}")
        block, dense = walk.load(i), unpruned.load(i) if unpruned else None
        corrected = dense if plan.error_correction == "block" else None
        seen = see(walk, block, i, hidden, walk.family.sites, corrected, hidden if plan.inputs == "pruned" else None)
        if plan.inputs == "dense":
            walk.forward(dense, i, hidden, into=hidden)
        for site, inputs in zip(walk.family.sites, seen, strict=True):
            for reader in site.readers:
                name = walk.weight_name(i, reader)
                for certificate in _layer(walk.checkpoint, source, name, inputs, plan, kept[name], recorded.get(name)):
                    yield name, certificate
    progress(len(walk), len(walk), "all blocks")


def _layer(
    pruned: Checkpoint,
    source: Checkpoint,
    name: str,
    inputs: Inputs,
    plan: Plan,
    budget: Budget,
    row: dict[str, Any] | None,
) -> list[Certificate]:
    claim = "the saved weights are those that were certified"
    if row is None:
        return [Certificate("identity", claim, SOURCE, 1.0, 0.0)]
    stored = pruned.read(name)
    saved = stored.to(torch.float64).numpy()
    problem = inputs.problem(dense_weight(source, name))
    f = problem.value(saved)
    reach = allowance(problem.magnitude(saved), problem.shape[1], dtype="float32")
    again = "|f(saved weights) - recorded objective| = 0"
    checks = [
        Certificate("identity", claim, SOURCE, float(digest(stored) != row["sha256"]), 0.0),
        Certificate("objective-recomputed", again, SOURCE, abs(f - row["objective"]), 0.0, reach),
    ]
    judged, method = problem.normalised(plan.last_mu), solvers.find(plan.method.name)
    if method.prunes:
        judged = judged.recentred()
    checks += judge_saved(method, judged, budget, saved)
    return checks + [one_swap_again(judged, budget, saved)] * (plan.swaps == "all")


def read_layers(folder: Path) -> dict[str, Any]:
    """layers.jsonl by layer name."""
    try:
        rows = [json.loads(line) for line in (folder / "layers.jsonl").read_text(encoding="utf-8").splitlines()]
        return {row["layer"]: {"sha256": str(row["sha256"]), "objective": float(row["objective"])} for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal(
            f"a run folder holds a readable layers.jsonl; {folder} does not ({type(error).__name__}: {error}). "
            "Give the --out folder of a finished run."
        ) from error
