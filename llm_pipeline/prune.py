"""Prune a checkpoint block by block, and hand back a certificate for every layer.

The loop reads as data flow: hidden states, the Gram of a site, its layers solved and judged, the pruned block run.
A site is measured after the sites before it in its block were pruned: H is the Gram of what the layer will see. With
error correction a second, dense copy of the block runs beside it, and the drift between both enters the problem. Under
OWL a pass through the dense blocks comes first and says how much each of them keeps. A block is finished when its
weights and its record are on the disk; `resume` goes on after the last one that is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import solvers
from llm_pipeline import plan as plans
from llm_pipeline.allocation import allotted, budgets
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.card import model_card
from llm_pipeline.changes import facts
from llm_pipeline.checkpoint import Checkpoint, require_finite
from llm_pipeline.evaluate import Perplexity, perplexity
from llm_pipeline.evidence import Inputs, see
from llm_pipeline.families import Site, family_of
from llm_pipeline.hidden import WHERE, HiddenStates, Need, choose, need
from llm_pipeline.journal import Journal
from llm_pipeline.judging import court_of
from llm_pipeline.layer import judged, prune_layer
from llm_pipeline.memory import give_back, keep_little
from llm_pipeline.output_folder import OutputFolder
from llm_pipeline.plan import Plan
from llm_pipeline.sources import DTYPES
from solvers.methods import Method
from solvers.refusal import Refusal
from solvers.sparsity import Budget, Target

Progress = Callable[[int, int, str], None]
Put = Callable[[str, torch.Tensor], None]
Engine = Callable[[HiddenStates, dict[str, Budget], Tokens, OutputFolder, Journal, Progress], None]


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
    hidden: str = "auto",
    predicted: dict[str, Any] | None = None,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Result:
    """Write a pruned copy of `source` to `out` and sum the run up.

    Parameters
    ----------
    tokens : calibration sequences
    text : windows to evaluate on, before and after
    dense : the dense model's perplexity on `text`, where it is known already
    hidden : where the hidden states go: ``gpu``, ``memory``, ``disk``, or ``auto``, the fastest that has room
    predicted : what the planner foresaw; kept in the summary beside what came
    engine : how the blocks are gone through, one of `engines.named`; by default in this process, one after the other
    progress : called with layers done, layers in all, and what is being done

    Returns
    -------
    Result

    Raises
    ------
    Refusal
        Before anything is written, or with everything removed again, or with the finished blocks kept for `resume`.
    """
    keep_little()
    method, target, journal = solvers.find(plan.method.name), solvers.parse(plan.sparsity), Journal(plan)
    with journal.stage("read"):
        place = place_of_hidden(hidden, plan, source, tokens)
        require_possible(source, method, plan.method.name, target)
        for name in source.names:
            require_finite(name, source.read(name))
    room = 2 * needed(plan, source, tokens).hidden if place == "disk" else 0
    with OutputFolder(source, out, room=room) as folder:
        with journal.stage("write"):
            folder.write_text(plans.FILE, plan.to_toml())
            folder.begin({**facts(plan, source, hidden), "predicted": predicted}, text)
        told = {"text": text, "dense": dense, "predicted": predicted, "engine": engine}
        return finish(folder, journal, tokens, place, progress=progress, **told)


def finish(
    folder: OutputFolder,
    journal: Journal,
    tokens: Tokens,
    place: str,
    *,
    text: Tokens | None = None,
    dense: Perplexity | None = None,
    predicted: dict[str, Any] | None = None,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Result:
    """Prune the blocks that the journal does not hold yet, evaluate, and write what there is to tell."""
    plan, source = journal.plan, folder.source
    with journal.stage("read"):
        walk = BlockWalk(source, plan.device, dtype=DTYPES[plan.dtype])
    if plan.allocation.name != "uniform" and not plan.allocation.kept:
        with journal.stage("allocate"):
            plan = journal.plan = allotted(plan, walk, tokens, progress)
        folder.write_text(plans.FILE, plan.to_toml())
    states = HiddenStates(walk, place, folder.run.folder)
    if why := court_of(plan.device).why:
        progress(len(journal.layers), len(walk) * len(walk.family.readers), f"certificates on the host: {why}")
    (engine or in_turn)(states, budgets(plan, source), tokens, folder, journal, progress)
    states.now = torch.empty(0)
    with journal.stage("write"):
        folder.write_lines("layers.jsonl", map(json.dumps, journal.layers))
        folder.write_lines("certificates.jsonl", map(json.dumps, journal.certificates))
    with journal.stage("evaluate"):
        scores = _evaluate(plan, source, folder.partial, text, dense, progress)
    summary = journal.summary(scores, states.place) | {"predicted": predicted}
    folder.write_text("summary.json", json.dumps(summary, indent=1))
    folder.write_text("README.md", model_card(plan, summary))
    folder.write_sums()
    return Result(summary, *(scores or (None, None)))


def in_turn(
    states: HiddenStates,
    kept: dict[str, Budget],
    tokens: Tokens,
    folder: OutputFolder,
    journal: Journal,
    progress: Progress,
) -> None:
    """The engine that needs nothing else: the unfinished blocks one after the other, in this process."""
    walk, first = states.walk, len(journal.blocks)
    total = len(walk) * len(walk.family.readers)
    progress(len(journal.layers), total, f"hidden states {WHERE[states.place]}")
    if first < len(walk):
        with journal.stage("calibrate"):
            reach(states, tokens, folder, journal, progress)
    for i in range(first, len(walk)):
        passes_on, more = prune_block(i, states, kept, folder.put, journal, progress), i + 1 < len(walk)
        with journal.stage("calibrate"):
            if more:
                states.advance(passes_on, i)
        del passes_on
        with journal.stage("write"):
            folder.finish(journal.close(states.digest() if more else "", states.told()))
            states.forget(i)
    progress(total, total, "all blocks")


def prune_block(
    i: int,
    states: HiddenStates,
    kept: dict[str, Budget],
    put: Put,
    journal: Journal,
    progress: Progress = silent,
) -> nn.Module:
    """Prune the block that receives `states.now`; returns the module whose output the next one receives."""
    plan, walk = journal.plan, states.walk
    total = len(walk) * len(walk.family.readers)
    with journal.stage("read"):
        block = walk.load(i)
        dense = walk.load(i) if plan.needs_dense_block else None
    corrected = dense if plan.error_correction == "block" else None
    for site in walk.family.sites:
        progress(len(journal.layers), total, f"block {i}, {site.name}")
        give_back()
        with journal.stage("calibrate"):
            inputs = _inputs(states, i, block, site, corrected)
        for reader in site.readers:
            budget = kept[walk.weight_name(i, reader)]
            saved = _prune_layer(states, i, site, reader, inputs, budget, put, journal)
            block.get_submodule(reader).weight.copy_(saved)
        del inputs
    return dense if dense is not None and plan.inputs == "dense" else block


def _inputs(states: HiddenStates, i: int, block: nn.Module, site: Site, dense: nn.Module | None) -> Inputs:
    """What a site sees."""
    [found] = states.sparing(lambda: see(states.walk, block, i, states.now, (site,), dense))
    return found


def _prune_layer(
    states: HiddenStates,
    i: int,
    site: Site,
    reader: str,
    inputs: Inputs,
    budget: Budget,
    put: Put,
    journal: Journal,
) -> torch.Tensor:
    """Solve, judge and write one layer; returns its weights as they are saved."""
    plan, method = journal.plan, solvers.find(journal.plan.method.name)
    give_back()
    with journal.stage("solve"):
        layer = states.sparing(lambda: prune_layer(states.walk, i, site, reader, inputs, method, budget, plan))
        give_back()
    with journal.stage("certify"):
        journal.note(judged(method, layer, plan.refine, court_of(plan.device)))
    with journal.stage("write"):
        put(layer.name, layer.saved)
    return layer.saved


def reach(states: HiddenStates, tokens: Tokens, folder: OutputFolder, journal: Journal, progress: Progress) -> None:
    """What the first unfinished block receives: from the file that holds it, or by running the finished ones again."""
    walk, blocks = states.walk, journal.blocks
    expected = blocks[-1]["hidden"] if blocks else ""
    shape = (*tokens.ids.shape, folder.source.config.hidden_size)
    if blocks and states.reopen(len(blocks), shape, expected):
        return
    states.embed(tokens.ids)
    pruned = Checkpoint.open(folder.partial) if blocks and journal.plan.inputs == "pruned" else None
    for i in range(len(blocks)):
        progress(i, len(blocks), f"block {i}, run again")
        states.advance(walk.load(i, pruned), i)
        states.forget(i)
    if blocks and states.digest() != expected:
        raise Refusal(
            f"what block {len(blocks) - 1} passes on must have the bits that it had when the run stopped, and has "
            "others. Probably another number of threads or another library; run it as before, or prune again."
        )


def needed(plan: Plan, source: Checkpoint, tokens: Tokens) -> Need:
    """Bytes of the hidden states, and of a block with what solving it takes."""
    return need(source, *tokens.ids.shape, DTYPES[plan.dtype], copies=2 if plan.needs_dense_block else 1)


def place_of_hidden(typed: str, plan: Plan, source: Checkpoint, tokens: Tokens) -> str:
    """Where the hidden states of a run go."""
    return choose(typed, plan.device, needed(plan, source, tokens))


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
