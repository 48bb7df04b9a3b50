"""The model card that travels with a pruned model."""

from __future__ import annotations

from typing import Any

from llm_pipeline.plan import Plan


def model_card(plan: Plan, summary: dict[str, Any]) -> str:
    """README.md of an output folder: what was done, what came of it, how to check it again."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in summary["certificates"].items())
    return f"""# {plan.model.name}, {plan.method.name} at {plan.sparsity}

Pruned with certified-pruning {plan.versions.get("certified-pruning", "")}; pruned entries are exact zeros in ordinary
dense tensors, so any program that reads the dense model reads this one.

| fact | value |
|---|---|
| method | {plan.method.name} {plan.method.options} |
| solver | {plan.solver}, products with the Gram in {plan.precision}; certificates in float64 |
| sparsity asked, measured | {plan.sparsity}, {summary["sparsity_measured"]:.4%} of {summary["layers"]} layers |
| refinement, ridge | {_stages(plan, summary)} |
| calibration | {plan.calibration.source}: {plan.calibration.protocol} |
| mean relative layer error | {summary["relative_error"]:.4e} |
{_perplexity(summary["perplexity"])}| certificates | {outcomes} |

`plan.toml` determines the run, `layers.jsonl` and `certificates.jsonl` hold a line per layer and per claim.
`python -m llm_pipeline verify DIR` recounts and recomputes them from these weights.
{_blocks(plan, summary["blocks"])}"""


def _stages(plan: Plan, summary: dict[str, Any]) -> str:
    text = f"{plan.refine}, mu = {plan.mu}"
    if plan.needs_dense_block:
        text += f", error correction {plan.error_correction}, inputs of {plan.inputs} predecessors"
    if plan.refine != "none":
        text += f", refine-mu = {plan.refine_mu}"
    if plan.swaps:
        text += f"; {summary['swaps']} swaps ({plan.swaps} a row asked)"
    if summary["stages"]:
        text += "; mean error " + ", ".join(f"{stage} {error:.4e}" for stage, error in summary["stages"].items())
    return text


def _blocks(plan: Plan, blocks: list[dict[str, Any]] | None) -> str:
    """What every block was allotted, where that is not the same."""
    if blocks is None:
        return ""
    facts = "".join(
        f"| {row['block']} | {row['outliers']:.4%} | {row['sparsity']:.4%} | {row['measured']:.4%} |\n"
        for row in blocks
    )
    words = ", ".join(f"{name} = {value}" for name, value in plan.allocation.options.items())
    header = "| block | outliers | sparsity allotted | measured |\n|---|---|---|---|\n"
    return f"\nSparsity by block ({plan.allocation.name}, {words}):\n\n{header}{facts}"


def _perplexity(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return ""
    dense, pruned = (facts[which]["perplexity"] for which in ("dense", "pruned"))
    return f"| perplexity ({facts['protocol']}, {facts['text']}) | dense {dense:.4f}, pruned {pruned:.4f} |\n"
