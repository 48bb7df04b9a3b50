"""One page: what was asked, the result, the certificates, the layers, the cost, the provenance."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from reports import (
    allotment,
    certificate_tables,
    figures,
    kernel_tables,
    layer_figures,
    layer_tables,
    layer_targets,
    layers,
    record_tables,
    tables,
    theory,
    theory_figures,
    theory_tables,
)
from reports.load import Row, Run
from reports.protocols import by_protocol, over_seeds, perplexities, perplexity_records
from reports.render import environment
from reports.tables import Table


@dataclass(frozen=True)
class Section:
    """A heading with its tables and figures; long tables are folded away."""

    title: str
    tables: Sequence[Table] = ()
    figures: Sequence[Markup] = ()
    folded: Sequence[Table] = ()


def page(runs: Sequence[Run], records: Sequence[Row] = ()) -> str:
    """The page's HTML, self-contained and the same bytes for the same input.

    Parameters
    ----------
    runs : sequence of Run
        Several are compared first, then told one by one.
    records : sequence of dict
        Told before the runs.
    """
    proofs, others = [r for r in records if theory.is_theory(r)], [r for r in records if not theory.is_theory(r)]
    chapters = [{"title": "Theory", "anchor": theory.ANCHOR, "sections": of_theory(proofs)}] if proofs else []
    chapters += [{"title": "Records", "anchor": "records", "sections": of_records(others)}] if others else []
    if len(runs) > 1:
        chapters.append({"title": "Comparison", "anchor": "comparison", "sections": of_comparison(runs)})
    chapters += [{"title": run.label, "anchor": anchor(run), "sections": of_run(run)} for run in runs]
    title = " · ".join(
        [*(run.label for run in runs), *(["theory"] if proofs else []), *(["records"] if others else [])]
    )
    template = environment().get_template("page.html")
    red = alarms(runs) + theory.alarms(proofs) + layers.alarms(others)
    return template.render(title=title, alarms=red, chapters=chapters)


def alarms(runs: Sequence[Run]) -> list[dict[str, str]]:
    """What must stand in red at the top: certificates that fail, counts that contradict each other."""
    found = []
    for run in runs:
        if failed := run.outcomes()["fails"]:
            claims = dict.fromkeys(row["claim"] for row in run.certificates if row["outcome"] == "fails")
            told = f"{failed} of {len(run.certificates)} certificates fail: {', '.join(claims)}."
            found.append({"run": run.label, "anchor": anchor(run), "text": told})
        counts = run.summary.get("certificates") or {}
        if any(counts.get(name, 0) != run.outcomes()[name] for name in counts):
            told = f"summary.json counts {counts}, certificates.jsonl holds {dict(run.outcomes())}."
            found.append({"run": run.label, "anchor": anchor(run), "text": told})
    return found


def anchor(run: Run) -> str:
    """The run's place on the page."""
    return "run-" + re.sub(r"[^a-z0-9]+", "-", run.name.lower())


def of_comparison(runs: Sequence[Run]) -> list[Section]:
    """Several runs side by side."""
    measured = [row for run in runs for row in perplexities(run)]
    allotted = any(run.summary.get("blocks") for run in runs)
    return [
        Section("Result", [tables.comparison(runs)], drawn(figures.perplexity, compared(measured))),
        Section("Layers", figures=drawn(figures.layer_errors, runs)),
        *([Section("Sparsity by block", figures=drawn(allotment.by_block, runs))] if allotted else []),
        Section("Cost", [tables.seconds(runs)], drawn(figures.seconds, runs)),
    ]


def of_run(run: Run) -> list[Section]:
    """One run from what was asked to what made the numbers."""
    claims = [certificate_tables.certificates(run)]
    failed, blocks, foreseen = certificate_tables.failures(run), allotment.blocks(run), tables.foreseen(run)
    traced = any(row.get("trace") for row in run.layers)
    layers = drawn(figures.layer_errors, [run] if run.layers else [])
    layers += drawn(figures.objective, run if traced else None) + drawn(figures.nonzeros, run if traced else None)
    return [
        Section("What was asked", [tables.asked(run)]),
        Section("Result", [tables.result(run), tables.perplexity(run)]),
        Section(
            "Certificates",
            [*([failed] if failed.rows else []), *claims],
            drawn(figures.outcomes, run if run.certificates else None),
        ),
        *([Section("Sparsity by block", [blocks], drawn(allotment.by_block, [run]))] if blocks.rows else []),
        Section("Layers", figures=layers, folded=[tables.layers(run)]),
        Section(
            "Cost",
            [tables.seconds([run]), *([foreseen] if foreseen.rows else [])],
            drawn(figures.seconds, [run]),
        ),
        Section("Provenance", [tables.provenance(run)], folded=[tables.hashes(run)]),
    ]


def of_records(records: Sequence[Row]) -> list[Section]:
    """Perplexities a protocol at a time, layer errors, then every other measurement, then where all came from."""
    sections = [
        Section(
            f"Perplexity, protocol {group[0]['protocol']}",
            [record_tables.perplexity_grid(group, record_tables.comparisons(records))],
            drawn(figures.perplexity, compared(over_seeds(group))),
        )
        for group in by_protocol(perplexity_records(records))
    ]
    sections += [section for rows in layers.settings(records) for section in of_layers(rows)]
    others = sorted({row["benchmark"] for row in records} - {"perplexity", layers.BENCHMARK, layers.BOUND})
    for name in others:
        table = kernel_tables.TABLES.get(name)
        sections.append(Section(name, [table(records) if table else record_tables.facts(records, name)]))
    return [*sections, Section("Provenance", [record_tables.origins(records)])]


def of_layers(rows: Sequence[Row]) -> list[Section]:
    """Layer errors of one setting: a table of all patterns, then the figures and exceptions of each."""
    model, verdicts = rows[0]["model"], [layer_tables.verdicts(rows)]
    told = [layer_tables.errors(rows), *layer_targets.missed(rows)]
    sections = [Section(f"Layer errors, {model}", told, folded=verdicts)]
    for sparsity in layers.sparsities(rows):
        chosen = [row for row in rows if row["sparsity"] == sparsity]
        compared_with = layers.roles(chosen).baseline
        drawings = drawn(layer_figures.depth, chosen) + drawn(layer_figures.ratios, chosen if compared_with else None)
        sections.append(Section(f"Layers at {sparsity}, {model}", layer_tables.exceptions(chosen), drawings))
    return sections


def of_theory(records: Sequence[Row]) -> list[Section]:
    """The theory from its counts to the defects that its checks notice; what was not recorded is not told."""
    rows, failed, matrix = theory.claims(records), theory_tables.failures(records), theory.matrix(records)
    told = [
        _drawn("Recovery", theory_figures.recovery, theory.maps(records), theory_figures.RECOVERY),
        _drawn("Planted defects", theory_figures.mutants, matrix if matrix.defects else None, theory_figures.MUTANTS),
    ]
    for name, (title, draw, words) in reversed(theory_figures.CURVES.items()):
        told.insert(0, _drawn(title, draw, theory.curves(records, name), words))
    folded = [theory_tables.defects(records)] if matrix.defects else []
    sections = [
        Section("Counts", [theory_tables.summary(records), *([failed] if failed.rows else [])]),
        Section("Claims", [theory_tables.claims(group, title) for title, group in theory.groups(rows).items()]),
        *told[:-1],
        replace(told[-1], folded=folded),
        Section("Provenance", [record_tables.origins(records)]),
    ]
    return [section for section in sections if section.tables]


def _drawn(title: str, figure: Callable[[Any], str], shown: Any, words: str) -> Section:
    """A figure under its heading, explained in a sentence; an empty section where there is nothing to draw."""
    return Section(title, [theory_tables.note(title, words)] if shown else [], drawn(figure, shown))


def compared(rows: Sequence[Row]) -> Sequence[Row]:
    """The perplexities, where there is one to hold against the dense model's."""
    return rows if any(row["method"] != "dense" for row in rows) else []


def drawn(figure: Callable[[Any], str], shown: Any) -> list[Markup]:
    """The figure as safe markup; nothing where there is nothing to draw."""
    return [Markup(figure(shown))] if shown else []
