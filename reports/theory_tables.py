"""Tables of the theory: counts, claims with both their sides, planted defects with the checks that noticed them."""

from collections.abc import Sequence

from reports import theory
from reports.certificate_tables import used
from reports.load import Row
from reports.tables import Cell, Table


def summary(records: Sequence[Row]) -> Table:
    """One row: how many claims and how they ended, the most used bound, how many defects and survivors."""
    rows, planted = theory.claims(records), theory.mutations(records)
    counts, survivors = theory.outcomes(rows), theory.survivors(planted)
    share, name = max(((used(row), row["name"]) for row in rows if used(row) is not None), default=(None, ""))
    header, cells = ["claims"], [Cell(len(rows), "count")]
    for outcome in theory.OUTCOMES:
        header.append(outcome)
        cells.append(Cell(counts[outcome], "count", mark=_bad(outcome, counts[outcome])))
    header += ["largest share of a bound", "planted defects", "survivors"]
    cells += [Cell(share, "real", name), Cell(len(planted) or None, "count")]
    cells.append(Cell(len(survivors) if planted else None, "count", mark="fails" if survivors else ""))
    return Table("Counts", tuple(header), [tuple(cells)] if rows or planted else [])


def claims(rows: Sequence[Row], title: str) -> Table:
    """A row per claim: what it states, both sides, the used share of the bound as a bar, the outcome."""
    header = ("claim", "statement", "where", "measured", "bound", "used", "outcome", "examples")
    return Table(title, header, [_claim(row) for row in rows])


def failures(records: Sequence[Row]) -> Table:
    """Every claim that fails or stays undecided, with both sides and the layer on which it is worst."""
    header = ("claim", "outcome", "inequality", "measured", "bound", "allowance", "because", "worst case")
    rows = [
        (
            Cell(row["name"], mark="fails"),
            Cell(row["outcome"], mark="fails"),
            Cell(row["claim"]),
            *(Cell(row[side], "real", _source(row)) for side in ("measured", "bound", "allowance")),
            Cell(row.get("inconclusive")),
            Cell(row["worst_case"]),
        )
        for row in theory.claims(records)
        if row["outcome"] in ("fails", "inconclusive")
    ]
    return Table("Claims that fail or stay undecided", header, rows)


def defects(records: Sequence[Row]) -> Table:
    """A row per planted defect: the checks that are named for it, and who noticed it after how many layers."""
    places = {row["name"]: row for row in theory.mutations(records)}
    ordered = [places[name] for name in theory.matrix(records).defects]
    rows = []
    for row in ordered:
        kills = sorted((n, check) for check, n in row["killed_after"].items() if n)
        told = ", ".join(f"{check} ({n})" for n, check in kills) or "survives"
        rows.append(
            (
                Cell(row["name"], mark="" if kills else "fails"),
                Cell(", ".join(row["named"])),
                Cell(told, source=f"record {row['id']}", mark="" if kills else "fails"),
                Cell(kills[0][0] if kills else None, "count"),
            )
        )
    return Table("Planted defects", ("defect", "named checks", "noticed by (after layers)", "first"), rows)


def note(title: str, text: str) -> Table:
    """Words that stand above a figure."""
    return Table(title, (), [], (text,))


def _claim(row: Row) -> tuple[Cell, ...]:
    source, outcome = _source(row), row["outcome"]
    reason = row["applies"] or row.get("inconclusive") or ""
    mark = _bad(outcome, 1)
    return (
        Cell(row["name"], source=row["claim"], mark=mark),
        Cell(row["statement"] or row["claim"]),
        Cell(row["where"]),
        Cell(row["measured"], "real", source),
        Cell(row["bound"], "real", source),
        Cell(used(row), "used", source),
        Cell(f"{outcome}: {reason}" if reason else outcome, mark=mark),
        Cell(row["examples"], "count", source),
    )


def _bad(outcome: str, count: int) -> str:
    return "fails" if count and outcome in ("fails", "inconclusive") else ""


def _source(row: Row) -> str:
    return f"record {row['id']}: {row['worst_case']}"
