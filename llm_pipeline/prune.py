"""Prune a checkpoint block by block, and hand back a certificate for every layer.

The loop reads as data flow: hidden states, the Gram of a site, its layers solved and judged, the pruned block run.
A site is measured after the sites before it in its block were pruned: H is the Gram of what the layer will see. With
error correction a second, dense copy of the block runs beside it, and the drift between both enters the problem. Under
OWL a pass through the dense blocks comes first and says how much each of them keeps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import solvers
from llm_pipeline import plan as plans
from llm_pipeline.allocation import allotted, budgets
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.card import model_card
from llm_pipeline.checkpoint import Checkpoint, require_finite
from llm_pipeline.evaluate import Perplexity, perplexity
from llm_pipeline.evidence import measure
from llm_pipeline.families import family_of
from llm_pipeline.journal import Journal
from llm_pipeline.layer import judge, prune_layer
from llm_pipeline.output_folder import OutputFolder
from llm_pipeline.plan import Plan
from llm_pipeline.sources import DTYPES
from solvers.methods import Method
from solvers.sparsity import Budget, Target

Progress = Callable[[int, int, str], None]


class Result(NamedTuple):
    """What summary.json holds, and the perplexities window by window where a text was given."""

    summary: dict[str, Any]
    dense: Perplexity | None
    pruned: Perplexity | None


def silent(done: int, of: int, what: str) -> None:
    """No progress."""


@torch.inference_mode()
def prune(
    plan: Plan,
    source: Checkpoint,
    tokens: Tokens,
    out: Path,
    *,
    text: Tokens | None = None,
    dense: Perplexity | None = None,
    predicted: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> Result:
    """Write a pruned copy of `source` to `out` and sum the run up.

    Parameters
    ----------
    tokens : calibration sequences
    text : windows to evaluate on, before and after
    dense : the dense model's perplexity on `text`, where it is known already
    predicted : what the planner foresaw; kept in the summary beside what came
    progress : called with layers done, layers in all, and what is being done

    Returns
    -------
    Result

    Raises
    ------
    Refusal
        Before anything is written, or with everything removed again.
    """
    method, target, journal = solvers.find(plan.method.name), solvers.parse(plan.sparsity), Journal(plan)
    with journal.stage("read"):
        walk = BlockWalk(source, plan.device, dtype=DTYPES[plan.dtype])
        require_possible(source, method, plan.method.name, target)
        for name in source.names:
            require_finite(name, source.read(name))
    with OutputFolder(source, out) as folder:
        if plan.allocation.name != "uniform":
            with journal.stage("allocate"):
                plan = journal.plan = allotted(plan, walk, tokens, progress)
        folder.write_text(plans.FILE, plan.to_toml())
        _prune_blocks(plan, walk, method, budgets(plan, source), tokens, folder, journal, progress)
        with journal.stage("evaluate"):
            scores = _evaluate(plan, source, folder.partial, text, dense, progress)
        summary = journal.summary(scores) | {"predicted": predicted}
        folder.write_text("summary.json", json.dumps(summary, indent=1))
        folder.write_text("README.md", model_card(plan, summary))
    return Result(summary, *(scores or (None, None)))


def _prune_blocks(
    plan: Plan,
    walk: BlockWalk,
    method: Method,
    kept: dict[str, Budget],
    tokens: Tokens,
    folder: OutputFolder,
    journal: Journal,
    progress: Progress,
) -> None:
    total = len(walk) * len(walk.family.readers)
    with journal.stage("calibrate"):
        hidden = walk.embed(tokens.ids)  # (n, l, d)
    for i in range(len(walk)):
        with journal.stage("read"):
            block = walk.load(i)
            dense = walk.load(i) if plan.needs_dense_block else None
        corrected = dense if plan.error_correction == "block" else None
        for site in walk.family.sites:
            progress(len(journal.layers), total, f"block {i}, {site.name}")
            with journal.stage("calibrate"):
                [inputs], _ = measure(walk, block, i, hidden, (site,), corrected)
            for reader in site.readers:
                with journal.stage("solve"):
                    budget = kept[walk.weight_name(i, reader)]
                    layer = prune_layer(walk, i, site, reader, inputs, method, budget, plan)
                with journal.stage("certify"):
                    certificates = judge(method, layer, plan.refine)
                    journal.note(folder, layer, certificates)
                with journal.stage("write"):
                    folder.put(layer.name, layer.saved)
                    block.get_submodule(reader).weight.copy_(layer.saved)
        with journal.stage("calibrate"):
            hidden = walk.forward(block if plan.inputs == "pruned" else dense, i, hidden)
    progress(total, total, "all blocks")


def _evaluate(
    plan: Plan, source: Checkpoint, pruned: Path, text: Tokens | None, dense: Perplexity | None, progress: Progress
) -> tuple[Perplexity, Perplexity] | None:
    if text is None:
        return None
    options = {"device": plan.device, "dtype": DTYPES[plan.dtype]}
    before = dense or perplexity(
        source.path, text, progress=lambda d, n: progress(d, n, "perplexity, dense"), **options
    )
    after = perplexity(pruned, text, progress=lambda d, n: progress(d, n, "perplexity, pruned"), **options)
    return before, after


def require_possible(source: Checkpoint, method: Method, name: str, target: Target) -> None:
    """Refuse a budget that some layer cannot meet, before anything is computed or written."""
    family = family_of(source.config)
    for i in range(source.config.num_hidden_layers):
        for reader in family.readers:
            rows, inputs = source.shape(f"{family.blocks}.{i}.{reader}.weight")
            method.require(name, target.on((rows, inputs)))
