"""Tables of records: perplexity by method, and the plain facts of any other measurement."""

from collections.abc import Sequence

from benchmarks.records import PROVENANCE
from reports.load import Row
from reports.protocols import one_protocol, perplexity_records
from reports.tables import Cell, Table, flatten, interval, protocol_note


def perplexity_by_method(records: Sequence[Row]) -> Table:
    """Perplexity with intervals: a row per model and sparsity, a column per method, dense first.

    Parameters
    ----------
    records : sequence of dict
        Records; those of other measurements than perplexity are left aside. All must share one protocol.

    Returns
    -------
    Table
        Where a cell was measured more than once, the newest record stands and a note says so.
    """
    rows = perplexity_records(records)
    one_protocol(rows)
    return perplexity_grid(rows)


def perplexity_grid(rows: Sequence[Row]) -> Table:
    """The table of `perplexity_by_method` from rows that were already found to share a protocol."""
    newest = {_place(row): row for row in sorted(rows, key=lambda row: row.get("when", ""))}
    methods = list(dict.fromkeys(["dense", *(row["method"] for row in rows)]))
    places = sorted({(row["model"], row["sparsity"]) for row in rows if row["method"] != "dense"})
    places = places or sorted({(row["model"], "0%") for row in rows})
    cells = [
        (Cell(model), Cell(sparsity), *(_cell(newest.get(_key(model, sparsity, name))) for name in methods))
        for model, sparsity in places
    ]
    notes = [protocol_note(rows[0])] if rows else ["No perplexity was recorded."]
    if len(rows) > len(newest):
        notes.append(f"{len(rows) - len(newest)} older measurements gave way to newer ones of the same cell.")
    return Table("Perplexity by method", ("model", "sparsity", *methods), cells, tuple(notes))


def facts(records: Sequence[Row], benchmark: str) -> Table:
    """Every record of one measurement, a row each, a column per fact that is one value."""
    chosen = [
        {name: value for name, value in flatten(row) if not isinstance(value, list)}
        for row in records
        if row["benchmark"] == benchmark
    ]
    names = [name for name in dict.fromkeys(key for row in chosen for key in row) if _is_fact(name)]
    rows = [tuple(_fact(row.get(name), row["id"]) for name in names) for row in chosen]
    return Table(benchmark, tuple(names), rows)


def origins(records: Sequence[Row]) -> Table:
    """Where records come from: a row per commit, machine and set of versions."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in records:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(row["versions"].items()))
        key = (row["commit"] or "unknown", row["machine"]["cpu"], f"Python {row['python']}, {versions}")
        groups.setdefault(key, []).append(row)
    rows = [
        (*map(Cell, key), Cell(min(row["when"] for row in group)), Cell(len(group), "count"))
        for key, group in groups.items()
    ]
    return Table("Provenance of the records", ("commit", "machine", "versions", "first", "records"), rows)


def _is_fact(name: str) -> bool:
    return name.split(".")[0] not in PROVENANCE


def _fact(value: object, identity: str) -> Cell:
    kinds = {bool: "text", int: "count", float: "real"}
    return Cell(value, kinds.get(type(value), "text"), f"record {identity}")


def _key(model: str, sparsity: str, method: str) -> tuple[str, ...]:
    return (model, method) if method == "dense" else (model, method, sparsity)


def _place(row: Row) -> tuple[str, ...]:
    return _key(row["model"], row["sparsity"], row["method"])


def _cell(row: Row | None) -> Cell:
    if row is None:
        return Cell(None)
    return Cell(row["perplexity"], "real", row["source"], interval(row))
