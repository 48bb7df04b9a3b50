"""Tables of runs: what was asked, what came out, what it cost; unformatted cells in a Table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reports.load import OUTCOMES, Row, Run
from reports.protocols import one_protocol, perplexities


@dataclass(frozen=True)
class Cell:
    """One value, not yet text.

    Attributes
    ----------
    value : object
        None where nothing was measured.
    kind : str
        How it is written: ``text``, ``hash``, ``count``, ``real``, ``used``, ``share``, ``seconds`` or ``bytes``.
    source : str
        The record or the line of a run that produced it.
    interval : (float, float), optional
        Around the value, in its unit.
    mark : str
        ``fails`` for what must catch the eye, ``best`` for what was shown to be.
    """

    value: Any
    kind: str = "text"
    source: str = ""
    interval: tuple[float, float] | None = None
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """What a page prints; `reports.render` turns it into Markdown or HTML."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    notes: tuple[str, ...] = ()


def asked(run: Run) -> Table:
    """What was asked: the plan, line by line."""
    source = run.source("plan.toml")
    rows = [
        (Cell(path), Cell(value, "hash" if _is_hash(value) else "text", source))
        for path, value in flatten(run.plan)
        if not path.startswith("versions")
    ]
    return Table("What was asked", ("setting", "value"), rows)


def result(run: Run) -> Table:
    """What came out: sparsity, error, certificates."""
    summary, counted = run.source("summary.json"), run.source("certificates.jsonl")
    outcomes = run.outcomes()
    rows = [
        (Cell("sparsity asked"), Cell(run.summary["sparsity_asked"], source=summary)),
        (Cell("sparsity measured"), Cell(run.summary["sparsity_measured"], "share", summary)),
        (Cell("relative layer error, mean"), Cell(run.summary["relative_error"], "real", summary)),
        *((Cell(f"certificates: {name}"), Cell(outcomes[name], "count", counted)) for name in OUTCOMES),
    ]
    return Table("Result", ("what", "value"), rows)


def perplexity(run: Run) -> Table:
    """Perplexity of the dense and of the pruned model, and the difference of their losses."""
    rows = [_perplexity_row(row) for row in perplexities(run)]
    if not rows:
        return Table("Perplexity", ("model",), [], ("Perplexity was not evaluated in this run.",))
    measured = run.summary["perplexity"]
    difference = measured.get("difference") or {}
    source = run.source("summary.json: perplexity.difference")
    change = Cell(difference.get("nll"), "real", source, interval(difference))
    rows.append((Cell("pruned minus dense"), Cell(None), change, Cell(None), Cell(None)))
    header = ("model", "perplexity", "nll per token", "windows", "tokens")
    return Table("Perplexity", header, rows, (protocol_note(measured),))


def comparison(runs: Sequence[Run]) -> Table:
    """Several runs side by side: result, error, cost, certificates."""
    one_protocol(row for run in runs for row in perplexities(run))
    header = (
        *("run", "model", "sparsity", "measured", "dense perplexity", "perplexity", "layer error"),
        *("solve", "certificates held", "failed"),
    )
    evaluated = [run.summary["perplexity"] for run in runs if run.summary["perplexity"]]
    notes = (protocol_note(evaluated[0]),) if evaluated else ("Perplexity was evaluated in none of these runs.",)
    return Table("Runs side by side", header, [_comparison_row(run) for run in runs], notes)


def layers(run: Run) -> Table:
    """A row per layer: what was kept, what it cost, why the method stopped."""
    header = ("layer", "shape", "kept", "sparsity", "objective", "relative error", "refinement gain", "seconds", "stop")
    return Table("Layers", header, [_layer_row(row) for row in run.layers])


def seconds(runs: Sequence[Run]) -> Table:
    """Seconds by stage, a row per run."""
    stages = list(dict.fromkeys(stage for run in runs for stage in run.summary.get("seconds", {})))
    rows = []
    for run in runs:
        spent = run.summary.get("seconds", {})
        cells = [Cell(spent.get(stage), "seconds", run.source(f"summary.json: seconds.{stage}")) for stage in stages]
        total = Cell(sum(filter(None, spent.values())), "seconds", run.source("summary.json: seconds"))
        peak = Cell(run.summary.get("peak_memory_bytes"), "bytes", run.source("summary.json: peak_memory_bytes"))
        rows.append((Cell(run.label), *cells, total, peak))
    return Table("Seconds by stage", ("run", *stages, "total", "peak memory"), rows)


def foreseen(run: Run) -> Table:
    """What the planner predicted beside what came; no rows where nothing was predicted."""
    predicted, spent = run.summary.get("predicted") or {}, run.summary.get("seconds", {})
    rows = []
    for stage, took in predicted.get("seconds", {}).items():
        if took or spent.get(stage):
            rows.append(_foreseen_row(run, stage, took, spent.get(stage), "seconds", f"seconds.{stage}"))
    if rows:
        needed, peak = predicted["memory"]["host_bytes"], run.summary.get("peak_memory_bytes")
        rows.append(_foreseen_row(run, "peak memory", needed, peak, "bytes", "memory.host_bytes"))
    return Table("Predicted against actual", ("stage", "predicted", "actual", "predicted / actual"), rows)


def provenance(run: Run) -> Table:
    """What made the numbers: machine, commit, versions."""
    origin = {key: run.summary.get(key) for key in ("machine", "commit", "python", "versions")}
    origin["versions"] = origin["versions"] or run.plan.get("versions")
    source = run.source("summary.json")
    rows = [(Cell(path), Cell(value, source=source)) for path, value in flatten(origin) if value]
    return Table("Provenance", ("what", "value"), rows)


def hashes(run: Run) -> Table:
    """The hash of every layer as it was written."""
    rows = [(Cell(row["layer"]), Cell(row["sha256"], "hash", row["source"])) for row in run.layers if row.get("sha256")]
    return Table("Hashes of the layers", ("layer", "sha256"), rows)


def interval(row: Row) -> tuple[float, float] | None:
    """The row's interval as a pair."""
    return tuple(row["interval"]) if row.get("interval") else None


def protocol_note(row: Row) -> str:
    """The protocol in words, to stand under every table of perplexities."""
    windows = f"{row['windows']} windows, {row['tokens']} tokens; " if "windows" in row and "tokens" in row else ""
    tokenizer = row["tokenizer_sha256"]
    return (
        f"Protocol {row['protocol']}: text {row.get('text', 'unnamed')} (sha256 {row['text_sha256'][:12]}), {windows}"
        + (f"tokenizer sha256 {tokenizer[:12]}" if tokenizer else "token ids as given, no tokenizer")
        + ". Lower is better; brackets are intervals."
    )


def flatten(tree: Row, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested tables as dotted paths with their leaves."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _perplexity_row(row: Row) -> tuple[Cell, ...]:
    return (
        Cell(row["method"] if row["method"] == "dense" else f"pruned: {row['method']} {row['sparsity']}"),
        Cell(row["perplexity"], "real", row["source"], interval(row)),
        Cell(row.get("nll"), "real", row["source"]),
        Cell(row.get("windows"), "count", row["source"]),
        Cell(row.get("tokens"), "count", row["source"]),
    )


def _comparison_row(run: Run) -> tuple[Cell, ...]:
    dense, pruned = perplexities(run) or ({}, {})
    summary, outcomes = run.source("summary.json"), run.outcomes()
    counted = run.source("certificates.jsonl")
    return (
        Cell(run.label),
        Cell(run.summary["model"]),
        Cell(run.summary["sparsity_asked"]),
        Cell(run.summary["sparsity_measured"], "share", summary),
        Cell(dense.get("perplexity"), "real", dense.get("source", ""), interval(dense)),
        Cell(pruned.get("perplexity"), "real", pruned.get("source", ""), interval(pruned)),
        Cell(run.summary["relative_error"], "real", summary),
        Cell(run.summary.get("seconds", {}).get("solve"), "seconds", summary),
        Cell(outcomes["holds"], "count", counted),
        Cell(outcomes["fails"], "count", counted, mark="fails" if outcomes["fails"] else ""),
    )


def _foreseen_row(run: Run, what: str, told: float, came: float | None, kind: str, place: str) -> tuple[Cell, ...]:
    source = run.source(f"summary.json: predicted.{place}")
    ratio = told / came if came else None
    return (
        Cell(what),
        Cell(told, kind, source),
        Cell(came, kind, run.source("summary.json")),
        Cell(ratio, "real", source),
    )


def _layer_row(row: Row) -> tuple[Cell, ...]:
    source, refined = row["source"], row.get("refine") or {}
    return (
        Cell(row["layer"]),
        Cell(" × ".join(map(str, row["shape"]))),
        Cell(row["kept"], "count", source),
        Cell(row["sparsity"], "share", source),
        Cell(row["objective"], "real", source),
        Cell(row["relative_error"], "real", source),
        Cell(refined.get("gain"), "real", source),
        Cell(row.get("seconds"), "seconds", source),
        Cell(row.get("stop")),
    )
