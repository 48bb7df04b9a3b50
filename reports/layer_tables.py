"""Tables of layer records: mean errors by stage, certificates and bounds, the layers that go the other way."""

from collections.abc import Sequence
from statistics import median

from benchmarks.layer_summary import STAGES, TEXTS, below, by_method, excess, mean_error, seconds, stages
from reports.layers import Pair, above, pairs, roles
from reports.load import OUTCOMES, Row
from reports.tables import Cell, Table

WRITTEN = {"calibration": "calibration", "held_out": "held-out"}
BOUNDED = (
    "the last stage's objective over what a perspective relaxation proves of every weight of the pattern, so that 1.2 "
    "is within 20 % of the best support. "
)


def errors(rows: Sequence[Row]) -> Table:
    """Mean relative error by pattern, method and stage, on both texts; one setting."""
    judged, _ = roles(rows)
    groups, first = by_method(rows), rows[0]
    share = f"{judged} below"
    header = ("pattern", "method", "stage", "layers", "calibration", "held-out", "held-out / calibration")
    table = [
        (
            *(Cell(sparsity), Cell(method), Cell(stage), Cell(len(group), "count")),
            *(Cell(mean_error(group, stage, text), "real", _source(group)) for text in TEXTS),
            Cell(excess(group, stage), "real", _source(group)),
            *(_below(groups.get((sparsity, judged), []), group, stage, text, judged) for text in TEXTS),
            Cell(seconds(group, stage), "seconds", _source(group)),
        )
        for (sparsity, method), group in groups.items()
        for stage in stages(group)
    ]
    notes = (
        f"Squared output error over squared dense output, mean over layers of the dense {first['model']}; every method "
        f"got the same Grams. Calibration: {first['calibration']}; held out: {first['held_out']}. Found with ridge "
        f"{first['mu']:g}, refined and swapped with {first['refine_mu']:g}, swaps {first['swaps']}; errors carry no "
        f"ridge. Held-out / calibration is the geometric mean over layers. '{share}': the share of layers on which "
        f"{judged} has the smaller error at the same stage, calibration and held-out.",
    )
    return Table("Mean relative error", (*header, share, f"{share}, held-out", "seconds"), table, notes)


def overview(rows: Sequence[Row], against: Sequence[str] = ("admm", "alps")) -> Table:
    """Mean relative error by pattern and method after every stage; how often the last beats a refitted baseline.

    Parameters
    ----------
    rows : layer records of one setting
    against : baselines, refitted; those that were not measured have no column
    """
    groups, first = by_method(rows), rows[0]
    known = [name for name in against if any(method == name for _, method in groups)]
    bounded = bool(above(rows))
    header = ("pattern", "method", *STAGES, "held-out, last", *(f"below {name}" for name in known))
    header += ("objective / bound",) * bounded + ("seconds",)
    table = []
    for (sparsity, method), group in groups.items():
        done = stages(group)
        means = [Cell(mean_error(group, stage, "calibration"), "real", _source(group)) for stage in STAGES]
        rivals = [(name, groups.get((sparsity, name), [])) for name in known]
        table.append(
            (
                *(Cell(sparsity), Cell(method), *means),
                Cell(mean_error(group, done[-1], "held_out"), "real", _source(group)),
                *(_last_below(group, name, theirs, done[-1]) for name, theirs in rivals),
                *([_above(group)] if bounded else []),
                Cell(sum(seconds(group, stage) for stage in done), "seconds", _source(group)),
            )
        )
    notes = (
        f"Mean of |WX - W0X|^2 / |W0X|^2 over the {len({row['layer'] for row in rows})} layers of the dense "
        f"{first['model']}, the same Grams for every method. Calibration {first['calibration']}; held out "
        f"{first['held_out']}. Found with ridge {first['mu']:g}; refined and swapped with {first['refine_mu']:g}. "
        "'below': the share of layers whose last stage is below that of the refitted baseline, on calibration. "
        + ("'objective / bound': median over layers; " + BOUNDED if bounded else "")
        + "Seconds of all layers together.",
    )
    return Table("Relative layer error", header, table, notes)


def _above(group: Sequence[Row]) -> Cell:
    found = above(group)
    return Cell(median(found) if found else None, "used", _source(group))


def _last_below(group: Sequence[Row], name: str, theirs: Sequence[Row], stage: str) -> Cell:
    found = pairs([*group, *theirs], group[0]["method"], name, stage) if group[0]["method"] != name else []
    less = sum(pair.ratio["calibration"] is not None and pair.ratio["calibration"] < 1 for pair in found)
    return Cell(less / len(found) if found else None, "share", _source(group))


def verdicts(rows: Sequence[Row]) -> Table:
    """Certificates by outcome, the certified distance from the optimum, the fixed-point residual."""
    bounded = bool(above(rows))
    header = ("pattern", "method", *OUTCOMES, "objective / lower bound, median")
    header += ("objective / perspective bound, median",) * bounded + ("residual, largest",)
    table = []
    for (sparsity, method), group in by_method(rows).items():
        counts = [sum(row["certificates"].get(outcome, 0) for row in group) for outcome in OUTCOMES]
        gaps = [row["gap"] for row in group if row["gap"] is not None]
        residuals = [row["residual"] for row in group if row["residual"] is not None]
        marks = ["fails" if outcome == "fails" and n else "" for outcome, n in zip(OUTCOMES, counts, strict=True)]
        table.append(
            (
                *(Cell(sparsity), Cell(method)),
                *(Cell(n, "count", _source(group), mark=mark) for n, mark in zip(counts, marks, strict=True)),
                Cell(median(gaps) if gaps else None, "real", _source(group)),
                *([_above(group)] if bounded else []),
                Cell(max(residuals, default=None), "real", _source(group)),
            )
        )
    notes = (
        "Objective of the last stage with its ridge over the separable lower bound on the global minimum: at least 1, "
        "and an upper bound on how far from optimal a layer is. "
        + ("Perspective bound: " + BOUNDED if bounded else "")
        + "Residual: the worst violation of the fixed-point "
        "clauses at the found weight over the weight's norm, for methods that iterate such a map.",
    )
    return Table("Certificates and bounds", header, table, notes)


def exceptions(rows: Sequence[Row]) -> list[Table]:
    """Layers on which the judged method, refitted, is not below the refitted baseline, the worst ratio first.

    No table where a single method was measured.
    """
    judged, baseline = roles(rows)
    if baseline is None:
        return []
    every = pairs(rows, judged, baseline)
    found = sorted((pair for pair in every if pair.is_exception), key=_worst, reverse=True)
    title = f"Layers where {judged} is not below {baseline}, both refitted"
    counts = [
        f"{sum(not value < 1 for pair in every if (value := pair.ratio[text]) is not None)} of {len(every)} on "
        f"{WRITTEN[text]} text"
        for text in TEXTS
    ]
    header = ("pattern", "layer", "site", judged, baseline, "ratio", "ratio, held-out")
    return [Table(title, header, [_exception(pair) for pair in found], (f"{', '.join(counts)}.",))]


def _exception(pair: Pair) -> tuple[Cell, ...]:
    ours, theirs = pair.ours, pair.theirs
    return (
        *(Cell(ours["sparsity"]), Cell(ours["layer"].removesuffix(".weight")), Cell(ours["site"])),
        *(Cell(row["errors"]["refined"]["calibration"], "real", f"record {row['id']}") for row in (ours, theirs)),
        *(Cell(pair.ratio[text], "used", f"record {ours['id']}", mark=_mark(pair.ratio[text])) for text in TEXTS),
    )


def _mark(ratio: float | None) -> str:
    return "fails" if ratio is not None and not ratio < 1 else ""


def _worst(pair: Pair) -> float:
    return max(value for value in pair.ratio.values() if value is not None)


def _below(ours: Sequence[Row], group: Sequence[Row], stage: str, text: str, judged: str) -> Cell:
    less, of = below(ours, group, stage, text)
    return Cell(less / of if of and group[0]["method"] != judged else None, "share", _source(group))


def _source(group: Sequence[Row]) -> str:
    return f"{len(group)} records, the first {group[0]['id']}"
