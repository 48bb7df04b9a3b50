"""What layer records say together: mean errors by method, pattern and stage, how far held-out text exceeds calibration,
and who is below whom; the printed table and the page are made of these numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.records import Record

STAGES = ("found", "refined", "swapped")
TEXTS = ("calibration", "held_out")


def error(row: Record, stage: str, text: str) -> float | None:
    """The relative error of one layer; None where it was not measured or the layer has no output."""
    value: float | None = row["errors"].get(stage, {}).get(text)
    return value


def stages(rows: Iterable[Record]) -> list[str]:
    """The stages that were measured, in their order."""
    met = {stage for row in rows for stage in row["errors"]}
    return [stage for stage in STAGES if stage in met]


def mean_error(rows: Iterable[Record], stage: str, text: str) -> float | None:
    """Mean relative error over layers."""
    found = [value for row in rows if (value := error(row, stage, text)) is not None]
    return sum(found) / len(found) if found else None


def excess(rows: Iterable[Record], stage: str) -> float | None:
    """Held-out over calibration error, geometric mean over the layers on which both are positive."""
    pairs = [[error(row, stage, text) for text in TEXTS] for row in rows]
    logs = [log(held / seen) for seen, held in pairs if seen and held]
    return exp(sum(logs) / len(logs)) if logs else None


def place(row: Record) -> tuple[str, str]:
    """What two methods must share to be compared: pattern and layer."""
    return row["sparsity"], row["layer"]


def below(ours: Sequence[Record], theirs: Sequence[Record], stage: str, text: str) -> tuple[int, int]:
    """On how many of the layers that both measured the first error is less than the second, and of how many."""
    other = {place(row): error(row, stage, text) for row in theirs}
    pairs = [(error(row, stage, text), other.get(place(row))) for row in ours]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    return sum(a < b for a, b in both), len(both)


def by_method(rows: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Rows by pattern and method, in the order in which they came."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for row in rows:
        groups.setdefault((row["sparsity"], row["method"]), []).append(row)
    return groups


def seconds(rows: Iterable[Record], stage: str) -> float:
    """Seconds of a stage over all layers."""
    return float(sum(row["seconds"].get(stage, 0.0) for row in rows))


def table(rows: Sequence[Record]) -> Table:
    """A row for each pattern and method; errors and shares as calibration / held-out, shares by the last stage."""
    groups, measured = by_method(rows), stages(rows)
    last, best = measured[-1], rows[-1]["method"]
    first = rows[0]
    shown = Table(
        box=box.SIMPLE_HEAD,
        title=f"{first['model']}: mean relative layer error on {first['calibration']} / {first['held_out']}",
        title_justify="left",
    )
    for column in ("sparsity", "method", *measured, f"{best} below it", "seconds"):
        shown.add_column(column, **_LEFT if column in ("sparsity", "method") else _RIGHT)
    for (sparsity, method), group in groups.items():
        ours = groups.get((sparsity, best), [])
        shown.add_row(
            sparsity,
            method,
            *(" / ".join(_short(mean_error(group, stage, text)) for text in TEXTS) for stage in measured),
            "" if method == best else " / ".join(_share(*below(ours, group, last, text)) for text in TEXTS),
            f"{sum(seconds(group, stage) for stage in measured):.1f}",
        )
    return shown


def told(records: Sequence[Record]) -> list[Any]:
    """Everything that a terminal shows of a run: the table, what was skipped, what it cost."""
    layers, refused, run = ([r for r in records if r["benchmark"] == kind] for kind in _KINDS)
    lines = [f"skipped {r['method']} {r['sparsity']}{_on(r['layer'])}: {r['why']}" for r in refused]
    spent = [f"{r['seconds']['total']:.0f} s, peak memory {r['peak_memory_bytes'] / 2**30:.2f} GiB" for r in run]
    failed = sum(r["certificates"].get("fails", 0) for r in layers)
    held = sum(r["certificates"].get("holds", 0) for r in layers)
    return [*([table(layers), f"certificates: {held} hold, {failed} fail"] if layers else []), *lines, *spent]


_LEFT: dict[str, Any] = {"justify": "left", "no_wrap": True}
_RIGHT: dict[str, Any] = {"justify": "right", "overflow": "fold"}
_KINDS = ("layers", "layers-refused", "layers-run")


def _on(layer: str | None) -> str:
    return f" on {layer}" if layer else ""


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _share(less: int, of: int) -> str:
    return f"{less / of:.0%}" if of else "–"
