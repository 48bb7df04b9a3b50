"""Tables of certificates: by claim and outcome, and every failure with both its sides."""

from collections import defaultdict
from math import isfinite

from reports.load import OUTCOMES, Row, Run
from reports.tables import Cell, Table


def certificates(run: Run) -> Table:
    """A row per claim: how often it holds, and how much of its bound the worst layer used."""
    claims: dict[str, list[Row]] = defaultdict(list)
    for row in run.certificates:
        claims[row["claim"]].append(row)
    header = ("claim", "statement", "where", *OUTCOMES, "worst measured / bound")
    rows = [_claim_row(name, group, run) for name, group in claims.items()]
    notes = () if rows else ("No claim was evaluated in this run.",)
    return Table("Certificates by claim", header, rows, notes)


def failures(run: Run) -> Table:
    """Every certificate that failed, with both sides."""
    header = ("layer", "claim", "measured", "bound", "allowance", "because")
    rows = [
        (
            Cell(row["layer"]),
            Cell(row["claim"], mark="fails"),
            *(Cell(row.get(side), "real", row["source"]) for side in ("measured", "bound", "allowance")),
            Cell(row.get("because") or None),
        )
        for row in run.certificates
        if row["outcome"] == "fails"
    ]
    return Table("Certificates that fail", header, rows)


def used(row: Row) -> float | None:
    """The used share of the bound, where the quotient means something."""
    measured, bound = row["measured"], row["bound"]
    if row["outcome"] == "not applicable" or measured is None or not bound:
        return None
    meaningful = isfinite(measured) and isfinite(bound) and measured >= 0 and bound > 0
    return measured / bound if meaningful else None


def _claim_row(name: str, group: list[Row], run: Run) -> tuple[Cell, ...]:
    counts = {outcome: sum(row["outcome"] == outcome for row in group) for outcome in OUTCOMES}
    shares = [(used(row), row["source"]) for row in group if used(row) is not None]
    worst, source = max(shares, default=(None, ""))
    file = run.source("certificates.jsonl")
    return (
        Cell(name, mark="fails" if counts["fails"] else ""),
        Cell(group[0]["statement"]),
        Cell(group[0]["where"]),
        Cell(counts["holds"], "count", file),
        Cell(counts["fails"], "count", file, mark="fails" if counts["fails"] else ""),
        Cell(counts["not applicable"], "count", file),
        Cell(worst, "real", source),
    )
