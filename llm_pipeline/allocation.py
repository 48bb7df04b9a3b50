"""What each layer of a model may keep: the same everywhere, or by the outliers of its block in the dense model.

For OWL the calibration first streams through the unpruned blocks, one at a time; only the norms of the inputs are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Any

import solvers
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.checkpoint import Checkpoint, require_finite
from llm_pipeline.families import family_of
from llm_pipeline.gram import MeanSquares, watching
from llm_pipeline.plan import Plan
from solvers.allocate import Outliers, allot, layer_budgets, outliers, share_of
from solvers.refusal import Refusal
from solvers.sparsity import Budget
from theory_checks import Certificate, allowance

RECORD = "the run's own record"
Progress = Callable[[int, int, str], None]


def allotted(plan: Plan, walk: BlockWalk, tokens: Tokens, progress: Progress) -> Plan:
    """The plan with what OWL lets every block keep, measured on the dense model."""
    found = list(dense_outliers(plan, walk, tokens, progress))
    counts = [block.above for block in found]
    kept = allot(counts, [block.size for block in found], *_wanted(plan))
    return replace(plan, allocation=replace(plan.allocation, outliers=counts, kept=kept))


def dense_outliers(plan: Plan, walk: BlockWalk, tokens: Tokens, progress: Progress) -> Iterator[Outliers]:
    """The outliers of one block after another, on what the unpruned model feeds it."""
    hidden = walk.embed(tokens.ids)  # (n, l, d)
    for i in range(len(walk)):
        progress(i, len(walk), f"block {i}, outliers")
        block, sites = walk.load(i), walk.family.sites
        seen = {site.readers[0]: MeanSquares(block.get_submodule(site.readers[0]).in_features) for site in sites}
        with watching(block, seen):
            walk.forward(block, i, hidden, into=hidden)
        layers = []
        for site in sites:
            for reader in site.readers:
                name, norms = walk.weight_name(i, reader), seen[site.readers[0]].norms()
                layers.append((require_finite(name, walk.checkpoint.read(name)).double().numpy(), norms))
        error = allowance(1.0, max(len(norms) for _, norms in layers), dtype="float32")
        yield outliers(layers, plan.allocation.options["m"], error)


def budgets(plan: Plan, source: Checkpoint) -> dict[str, Budget]:
    """What every layer may keep, by its stored name."""
    target, names = solvers.parse(plan.sparsity), layers_of(source)
    if plan.allocation.name == "uniform":
        return {name: target.on(source.shape(name)) for block in names for name in block}
    _require_recorded(plan, len(names))
    shapes = [[source.shape(name) for name in block] for block in names]
    found = layer_budgets(plan.allocation.kept, shapes, target.scope)
    return dict(zip(chain(*names), chain(*found), strict=True))


def by_block(plan: Plan, layers: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Share of outliers, allotted and measured sparsity of every block, from the lines of layers.jsonl."""
    if plan.allocation.name == "uniform":
        return None
    rows = []
    for i, (count, keep) in enumerate(zip(plan.allocation.outliers, plan.allocation.kept, strict=True)):
        block = [row for row in layers if row["block"] == i]
        size = sum(row["shape"][0] * row["shape"][1] for row in block)
        measured = 1 - sum(row["kept"] for row in block) / size
        rows.append({"block": i, "outliers": count / size, "sparsity": 1 - keep / size, "measured": measured})
    return rows


def recheck(
    plan: Plan, walk: BlockWalk, tokens: Tokens, progress: Progress, *, recount: bool = True
) -> list[Certificate]:
    """Whether the recorded outliers are those of the dense model, and the allotment follows from them.

    Without `recount` the dense model does not run, and only the second is checked.
    """
    if plan.allocation.name == "uniform":
        return []
    _require_recorded(plan, len(walk))
    recorded, checks = plan.allocation.outliers, []
    if recount:
        counted = "the recorded outliers of every block are those of the dense model, up to rounding of the scores"
        found = dense_outliers(plan, walk, tokens, progress)
        missed = [max(b.least - count, count - b.most, 0) for b, count in zip(found, recorded, strict=True)]
        checks = [Certificate("outliers-recounted", counted, RECORD, float(max(missed)), 0.0)]
    source = walk.checkpoint
    sizes = [sum(math.prod(source.shape(name)) for name in block) for block in layers_of(source)]
    again = allot(recorded, sizes, *_wanted(plan))
    moved = max(abs(a - b) for a, b in zip(again, plan.allocation.kept, strict=True))
    follows = "every block was allotted what its outliers give it, to the entry"
    return [*checks, Certificate("allotment", follows, RECORD, float(moved), 0.0)]


def _wanted(plan: Plan) -> tuple[Fraction, float]:
    return share_of(solvers.parse(plan.sparsity)), plan.allocation.options["lambda"]


def layers_of(source: Checkpoint) -> list[list[str]]:
    """Stored names of the layers that a run prunes, block by block."""
    family = family_of(source.config)
    blocks = range(source.config.num_hidden_layers)
    return [[source.resolve(f"{family.blocks}.{i}.{reader}.weight") for reader in family.readers] for i in blocks]


def _require_recorded(plan: Plan, blocks: int) -> None:
    recorded = plan.allocation
    counts = [isinstance(n, int) and n >= 0 for n in (*recorded.outliers, *recorded.kept)]
    lengths = {len(recorded.outliers), len(recorded.kept)}
    if lengths != {blocks} or not all(counts) or recorded.options.keys() != {"lambda", "m"}:
        raise Refusal(
            f"a plan with owl holds lambda, m, and the outliers and kept entries of each of the {blocks} blocks as "
            f"counts; this one holds {recorded}. Usually plan.toml was edited; prune again."
        )
