"""Tables of records: perplexity by method, and the plain facts of any other measurement."""

from collections.abc import Sequence

from benchmarks.records import PROVENANCE
from benchmarks.seeds import verdict
from reports.load import Row
from reports.protocols import one_protocol, over_seeds, perplexity_records, place, protocol
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
        Means over calibration seeds. What was measured more than once with one seed stands as measured last, and a
        note says so.
    """
    rows = perplexity_records(records)
    one_protocol(rows)
    return perplexity_grid(rows, comparisons(records))


def comparisons(records: Sequence[Row]) -> list[Row]:
    """The records of two methods compared over several calibration seeds, newest last."""
    found = [row for row in records if row["benchmark"] == "comparison" and row.get("seed_interval")]
    return sorted(found, key=lambda row: row["when"])


def perplexity_grid(rows: Sequence[Row], compared: Sequence[Row] = ()) -> Table:
    """The table of `perplexity_by_method` from rows that were already found to share a protocol.

    Parameters
    ----------
    rows : sequence of dict
        Perplexities, one for every seed.
    compared : sequence of dict
        What `comparisons` gave; the best cell of a row is marked only where these bear it out.
    """
    means = {place(row): row for row in over_seeds(rows)}
    methods = list(dict.fromkeys(["dense", *(row["method"] for row in rows)]))
    places = sorted({(row["model"], row["sparsity"]) for row in rows if row["method"] != "dense"})
    places = places or sorted({(row["model"], "0%") for row in rows})
    cells = []
    for model, sparsity in places:
        found = [means.get(_key(model, sparsity, name)) for name in methods]
        best = best_method([row for row in found if row], compared)
        cells.append((Cell(model), Cell(sparsity), *(_cell(row, best) for row in found)))
    return Table("Perplexity by method", ("model", "sparsity", *methods), cells, _notes(rows, means, cells))


def best_method(rows: Sequence[Row], compared: Sequence[Row]) -> str | None:
    """The method that is lower than every other one of these rows over windows and over seeds; None where none is."""
    pruned = [row for row in rows if row["method"] != "dense"]
    if len(pruned) < 2:
        return None
    best = min(pruned, key=lambda row: row["perplexity"])
    borne_out = all(_lower(best, other, compared) for other in pruned if other is not best)
    return str(best["method"]) if borne_out else None


def _lower(row: Row, other: Row, compared: Sequence[Row]) -> bool:
    """Whether the newest comparison of the two, over exactly the seeds of both, says that the first is lower."""
    expected = "not separated"
    for found in compared:
        same = (found["model"], found["sparsity"], protocol(found)) == (row["model"], row["sparsity"], protocol(row))
        if same and sorted(found["seeds"]) == row["seeds"] == other["seeds"]:
            said = verdict(found["difference_interval"], found["seed_interval"])
            if (found["better"], found["than"]) == (row["method"], other["method"]):
                expected = said
            elif (found["than"], found["better"]) == (row["method"], other["method"]):
                expected = {"lower": "higher", "higher": "lower"}.get(said, said)
    return expected == "lower"


def _notes(rows: Sequence[Row], means: dict[tuple[str, ...], Row], cells: Sequence[Sequence[Cell]]) -> tuple[str, ...]:
    notes = [protocol_note(rows[0])] if rows else ["No perplexity was recorded."]
    several = {", ".join(map(str, row["seeds"])) for row in means.values() if len(row["seeds"]) > 1}
    if several:
        words = " or ".join(sorted(several))
        notes.append(f"Means over calibration seeds {words} with their 95 % Student intervals over seeds.")
    if any(cell.mark == "best" for row in cells for cell in row):
        notes.append("Bold: lower than every other method of its row, over windows (paired bootstrap) and over seeds.")
    old = len(rows) - sum(len(row["seeds"]) for row in means.values())
    return (*notes, *([f"{old} older measurements gave way to newer ones of the same cell."] if old else []))


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
    return place({"model": model, "sparsity": sparsity, "method": method})


def _cell(row: Row | None, best: str | None) -> Cell:
    if row is None:
        return Cell(None)
    mark = "best" if row["method"] == best else ""
    return Cell(row["perplexity"], "real", row["source"], interval(row), mark)
