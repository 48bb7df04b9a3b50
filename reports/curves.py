"""What the figures draw, before it is drawn: plain numbers out of runs, tested without a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from reports.load import Row, Run

MANY_STAGES = 12
SEVERITY = ("not applicable", "holds", "fails")


@dataclass(frozen=True)
class Curve:
    """One layer's trace: value t belongs to iteration t + 1; and the iterations that end a stage of the schedule."""

    layer: str
    objective: list[float]
    plain: list[float]
    kept: list[float]
    stages: list[int]


@dataclass(frozen=True)
class Band:
    """Neighbouring layers on which a claim has one outcome, as (first layer, number of layers)."""

    claim: int
    outcome: str
    first: int
    width: int


def curves(run: Run, few: int = 4) -> list[Curve]:
    """Traces of the layer with the largest error and of others, evenly through the depth.

    Parameters
    ----------
    run : Run
        One-shot methods have no traces and give no curves.
    few : int
        How many at most.
    """
    traced = [row for row in run.layers if row.get("trace")]
    if not traced:
        return []
    worst = max(range(len(traced)), key=lambda index: traced[index]["relative_error"] or 0)
    spread = [round(step * (len(traced) - 1) / max(few - 2, 1)) for step in range(few - 1)]
    return [curve(traced[index]) for index in sorted({worst, *spread})]


def curve(row: Row) -> Curve:
    """One layer's trace as it is drawn; what was not recorded is a gap."""
    trace = row["trace"]
    size = row["shape"][0] * row["shape"][1]
    return Curve(
        row["layer"],
        _drawn(trace.get("objective")),
        _drawn(trace.get("plain")),
        [count / size for count in _drawn(trace.get("nonzeros"))],
        stages(trace.get("level") or []),
    )


def stages(levels: Sequence[Any]) -> list[int]:
    """The last iteration of every stage but the last; none where they are so many that lines would hide the curve."""
    changes = [index for index in range(1, len(levels)) if levels[index] != levels[index - 1]]
    return changes if len(changes) <= MANY_STAGES else []


def short(layer: str) -> str:
    """``model.layers.0.self_attn.q_proj`` as ``0 q_proj``."""
    parts = layer.removesuffix(".weight").split(".")
    return " ".join([*[part for part in parts if part.isdigit()][:1], parts[-1]])


def sites(runs: Sequence[Run]) -> list[str]:
    """The sites in the order in which a block meets them."""
    return list(dict.fromkeys(row["site"] for run in runs for row in run.layers))


def errors(runs: Sequence[Run], site: str) -> dict[str, list[tuple[float, float]]]:
    """Points (block, relative error) of one site: a series per run, or per layer of the block when there is one run."""
    series: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        for row in run.layers:
            if row["site"] == site and row["relative_error"] is not None:
                name = run.label if len(runs) > 1 else row["layer"].removesuffix(".weight").split(".")[-1]
                series.setdefault(name, []).append((row["block"], row["relative_error"]))
    return series


def outcome_bands(run: Run) -> tuple[list[str], list[str], list[Band]]:
    """Claims, layers, and the bands of equal outcome; a claim met twice on a layer counts by its worst outcome."""
    claims = list(dict.fromkeys(row["claim"] for row in run.certificates))
    known = [row["layer"] for row in run.layers]
    names = list(dict.fromkeys([*known, *(row["layer"] for row in run.certificates)]))
    worst: dict[tuple[str, str], str] = {}
    for row in run.certificates:
        place = (row["claim"], row["layer"])
        worst[place] = max(worst.get(place, SEVERITY[0]), row["outcome"], key=SEVERITY.index)
    bands = []
    for index, claim in enumerate(claims):
        bands += _bands(index, [worst.get((claim, name)) for name in names])
    return claims, names, bands


def block_starts(run: Run) -> dict[int, int]:
    """For each block, the place of its first layer."""
    starts: dict[int, int] = {}
    for place, row in enumerate(run.layers):
        starts.setdefault(row["block"], place)
    return starts


def _bands(claim: int, outcomes: Sequence[str | None]) -> list[Band]:
    bands: list[Band] = []
    for place, outcome in enumerate(outcomes):
        last = bands[-1] if bands else None
        if outcome is None:
            continue
        if last and last.outcome == outcome and last.first + last.width == place:
            bands[-1] = Band(claim, outcome, last.first, last.width + 1)
        else:
            bands.append(Band(claim, outcome, place, 1))
    return bands


def _drawn(values: Sequence[float | None] | None) -> list[float]:
    return [nan if value is None else float(value) for value in values or []]
