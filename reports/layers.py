"""Layer records as the page needs them: one setting at a time, who is judged against whom, curves, exceptions."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.layer_summary import TEXTS, error, place
from reports.load import Row
from reports.theory import newest

BENCHMARK, BOUND, RUN = "layers", "layers-bound", "layers-run"
JUDGED, AGAINST = "maiht", "admm"
STAGE = "refined"  # the baseline is judged here, so that supports are compared and not the weights on them
SETTING = (
    *("model", "calibration", "calibration_sha256", "held_out", "held_out_sha256", "tokenizer_sha256"),
    *("swaps", "mu", "refine_mu"),
)


LAYER = (*(key for key in SETTING if key not in ("swaps", "mu")), "layer", "sparsity")


class Roles(NamedTuple):
    """Who is judged, and against whom; the baseline is None where a single method was measured."""

    judged: str
    baseline: str | None


class Pair(NamedTuple):
    """One layer under two methods, both refitted: the records, and the ratio of their errors by text."""

    ours: Row
    theirs: Row
    ratio: dict[str, float | None]

    @property
    def is_exception(self) -> bool:
        """Whether the judged method is not below the baseline on one of the texts."""
        return any(value is not None and not value < 1 for value in self.ratio.values())


def settings(records: Sequence[Row]) -> list[list[Row]]:
    """Layers by what was measured on which texts; of a layer measured twice the newest record.

    Where the pattern was bounded on the same layer, `above` is the objective over that lower bound.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    bounds = {_layer(row): row["bound"] for row in newest(records, BOUND, *LAYER)}
    for row in newest(records, BENCHMARK, *SETTING, "layer", "sparsity", "method"):
        low = bounds.get(_layer(row))
        told = {"above": row["objective"] / low} if low else {}
        groups.setdefault(tuple(row[key] for key in SETTING), []).append({**row, **told})
    return list(groups.values())


def _layer(row: Row) -> tuple[object, ...]:
    return tuple(row[key] for key in LAYER)


def above(rows: Sequence[Row]) -> list[float]:
    """Objectives over lower bounds, of the layers that have one."""
    return [row["above"] for row in rows if row.get("above") is not None]


def methods(rows: Sequence[Row]) -> list[str]:
    """In the order in which they were measured, from the expected worst to the best."""
    return list(dict.fromkeys(row["method"] for row in rows))


def sparsities(rows: Sequence[Row]) -> list[str]:
    """The patterns, in their order."""
    return list(dict.fromkeys(row["sparsity"] for row in rows))


def sites(rows: Sequence[Row]) -> list[str]:
    """The sites in the order in which a block meets them."""
    return list(dict.fromkeys(row["site"] for row in rows))


def roles(rows: Sequence[Row]) -> Roles:
    """maiht against admm; without them the last method, and the last of the others."""
    known = methods(rows)
    judged = JUDGED if JUDGED in known else known[-1]
    others = [name for name in known if name != judged]
    return Roles(judged, AGAINST if AGAINST in others else others[-1] if others else None)


def pairs(rows: Sequence[Row], method: str, baseline: str, stage: str = STAGE) -> list[Pair]:
    """The layers that both methods measured; `stage` is that of `method`, the baseline is judged refitted."""
    theirs = {place(row): row for row in rows if row["method"] == baseline}
    ours = [row for row in rows if row["method"] == method and place(row) in theirs]
    return [
        Pair(row, other, {text: _ratio(error(row, stage, text), error(other, STAGE, text)) for text in TEXTS})
        for row in ours
        for other in [theirs[place(row)]]
    ]


def sorted_ratios(rows: Sequence[Row], method: str, baseline: str, stage: str, text: str) -> list[float]:
    """Errors of a method over those of the refitted baseline, layer by layer, ascending."""
    found = [pair.ratio[text] for pair in pairs(rows, method, baseline, stage)]
    return sorted(value for value in found if value is not None)


def by_depth(rows: Sequence[Row], site: str, method: str, stage: str, text: str) -> list[tuple[int, float]]:
    """(block, mean error of the layers that read this site), blocks ascending."""
    found: dict[int, list[float]] = {}
    for row in rows:
        value = error(row, stage, text)
        if row["site"] == site and row["method"] == method and value is not None:
            found.setdefault(row["block"], []).append(value)
    return [(block, sum(values) / len(values)) for block, values in sorted(found.items())]


def alarms(records: Sequence[Row]) -> list[dict[str, str]]:
    """What must stand in red at the top: layers on which a certificate fails."""
    rows = [row for group in settings(records) for row in group]
    failed = [row for row in rows if row["certificates"].get("fails", 0)]
    if not failed:
        return []
    names = list(dict.fromkeys(told.split(":")[0] for row in failed for told in row["failures"]))
    count = sum(row["certificates"]["fails"] for row in failed)
    told = f"{count} certificates fail on {len(failed)} of {len(rows)} solved layers: {', '.join(names)}."
    return [{"run": "Layers", "anchor": "records", "text": told}]


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs
