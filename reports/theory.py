"""Records of the theory as the page needs them: the newest of each, groups of claims, the order of the defects."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from reports.load import Row

BENCHMARKS = ("claim", "mutation", "theory-curve", "recovery")
OUTCOMES = ("holds", "fails", "inconclusive", "not applicable")
ANCHOR = "theory"


@dataclass(frozen=True)
class Matrix:
    """Planted defects by checks.

    Attributes
    ----------
    defects : list of str
        Survivors first, then in the order of the first check that was meant to notice them.
    checks : list of str
        The claims in their order, then the clauses of the contract.
    kills : dict
        (defect, check) -> the number of layers after which it was noticed.
    survivors : list of str
        Defects that no check noticed.
    """

    defects: list[str]
    checks: list[str]
    kills: dict[tuple[str, str], int]
    survivors: list[str]


def is_theory(row: Row) -> bool:
    """Whether the theory page tells of this record."""
    return row["benchmark"] in BENCHMARKS


def newest(records: Sequence[Row], benchmark: str, *keys: str) -> list[Row]:
    """Of the records of one measurement that agree in `keys` the newest, in the order in which they first came."""
    chosen = [row for row in records if row["benchmark"] == benchmark]
    order = dict.fromkeys(tuple(row[key] for key in keys) for row in chosen)
    last = {tuple(row[key] for key in keys): row for row in sorted(chosen, key=lambda row: row["when"])}
    return [last[key] for key in order]


def claims(records: Sequence[Row]) -> list[Row]:
    """Every claim and experiment once."""
    return newest(records, "claim", "name")


def mutations(records: Sequence[Row]) -> list[Row]:
    """Every planted defect once."""
    return newest(records, "mutation", "name")


def curves(records: Sequence[Row], figure: str) -> list[Row]:
    """The lines of one figure."""
    return [row for row in newest(records, "theory-curve", "figure", "name") if row["figure"] == figure]


def maps(records: Sequence[Row]) -> list[Row]:
    """A recovery map per method."""
    return newest(records, "recovery", "method")


def outcomes(rows: Sequence[Row]) -> Counter[str]:
    """Claims by outcome."""
    return Counter(row["outcome"] for row in rows)


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Claims by the title of the module that states them, in the order of the claims."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["title"].rstrip(".") or "Other claims", []).append(row)
    return found


def matrix(records: Sequence[Row]) -> Matrix:
    """Defects by checks, ordered so that those which were meant for each other lie near the diagonal."""
    rows = mutations(records)
    known = [row["name"] for row in claims(records)]
    met = [check for row in rows for check in row["killed_after"]]
    checks = list(dict.fromkeys([*known, *met]))
    place = {check: index for index, check in enumerate(checks)}

    def key(row: Row) -> tuple[Any, ...]:
        noticed = [check for check, n in row["killed_after"].items() if n]
        meant = [check for check in noticed if check in row["named"]] or noticed
        return (bool(noticed), min((place[check] for check in meant), default=-1), len(noticed), row["name"])

    kills = {(row["name"], check): n for row in rows for check, n in row["killed_after"].items() if n}
    return Matrix([row["name"] for row in sorted(rows, key=key)], checks, kills, survivors(rows))


def survivors(rows: Sequence[Row]) -> list[str]:
    """Defects that no check noticed."""
    return [row["name"] for row in rows if not any(row["killed_after"].values())]


def alarms(records: Sequence[Row]) -> list[dict[str, str]]:
    """What must stand in red at the top: claims that fail or stay undecided, defects that survive."""
    rows, planted = claims(records), mutations(records)
    told = []
    for outcome, verb in (("fails", "fail"), ("inconclusive", "are inconclusive")):
        if names := [row["name"] for row in rows if row["outcome"] == outcome]:
            told.append(f"{len(names)} of {len(rows)} claims {verb}: {', '.join(names)}.")
    if names := survivors(planted):
        told.append(f"{len(names)} of {len(planted)} planted defects survive: {', '.join(names)}.")
    return [{"run": "Theory", "anchor": ANCHOR, "text": text} for text in told]


def drawn(values: Sequence[float | None]) -> list[float]:
    """Numbers for a figure; what was not recorded is a gap."""
    return [nan if value is None else float(value) for value in values]
