"""Where the target of layer errors is missed: mAIHT with its best exchanges against refitted baselines, by layer."""

from collections.abc import Sequence
from typing import NamedTuple

from reports.layers import Pair, above, methods, pairs, sparsities
from reports.load import Row
from reports.tables import Cell, Table

TARGETS = {"admm": 0.90, "alps": 1.0}  # most that our error may be of the baseline's, both refitted
WANTED = 0.90  # of the layers
STAGE = "swapped"


class Score(NamedTuple):
    """One pattern against one baseline: the layers that both measured, worst first, and those above the target."""

    sparsity: str
    baseline: str
    pairs: list[Pair]
    above: list[Pair]

    @property
    def reached(self) -> int:
        """On how many layers the target is reached."""
        return len(self.pairs) - len(self.above)

    def __str__(self) -> str:
        return f"{self.reached} of {len(self.pairs)} at {self.sparsity}"


def judged(rows: Sequence[Row]) -> str | None:
    """The last mAIHT whose exchanges were measured; None where there is none."""
    swapped = {row["method"] for row in rows if STAGE in row["errors"]}
    found = [name for name in methods(rows) if name.split(":")[0] == "maiht" and name in swapped]
    return found[-1] if found else None


def scores(rows: Sequence[Row]) -> list[Score]:
    """Every pattern against every baseline of `TARGETS`, on calibration; one setting."""
    ours, found = judged(rows), []
    for baseline, most in TARGETS.items():
        for sparsity in sparsities(rows) if ours else ():
            chosen = [row for row in rows if row["sparsity"] == sparsity]
            both = sorted(pairs(chosen, ours or "", baseline, STAGE), key=_ratio, reverse=True)
            if both:
                found.append(Score(sparsity, baseline, both, [pair for pair in both if not _ratio(pair) <= most]))
    return found


def missed(rows: Sequence[Row]) -> list[Table]:
    """The layers above a target with their ratios, and how many reach it in words; nothing without both methods."""
    found = scores(rows)
    if not found:
        return []
    title = "Layers that miss the target"
    bounded = bool(above(rows))
    header = ("pattern", "layer", "site", str(judged(rows)), "baseline", "its error", "ratio", "target")
    header += ("proved ratio",) * bounded
    body = [_row(score, pair)[: len(header)] for score in found for pair in score.above]
    proof = (
        "Proved ratio: a lower bound on every weight of the pattern over the baseline's objective, both with the ridge."
    )
    return [Table(title, header, body, (f"{_told(found)} {proof}" if bounded and body else _told(found),))]


def _told(found: Sequence[Score]) -> str:
    sentences = []
    for baseline in dict.fromkeys(score.baseline for score in found):
        chosen = [score for score in found if score.baseline == baseline]
        met = all(score.reached >= WANTED * len(score.pairs) for score in chosen)
        share = "" if TARGETS[baseline] == 1 else f"{TARGETS[baseline]:.2f} times "
        counts = ", ".join(map(str, chosen))
        sentences.append(f"at most {share}that of {baseline} on {counts} ({'reached' if met else 'missed'})")
    return (
        f"Target: after exact refits and exchanges the error is, on at least {WANTED:.0%} of the layers, "
        f"{'; '.join(sentences)}. Listed is every layer above it, on calibration, the worst first."
    )


def _row(score: Score, pair: Pair) -> tuple[Cell, ...]:
    ours, theirs = pair.ours, pair.theirs
    return (
        *(Cell(score.sparsity), Cell(ours["layer"].removesuffix(".weight")), Cell(ours["site"])),
        Cell(ours["errors"][STAGE]["calibration"], "real", f"record {ours['id']}"),
        Cell(score.baseline),
        Cell(theirs["errors"]["refined"]["calibration"], "real", f"record {theirs['id']}"),
        Cell(pair.ratio["calibration"], "used", f"record {ours['id']}"),
        Cell(TARGETS[score.baseline], "used"),
        Cell(1 / theirs["above"] if theirs.get("above") else None, "used", f"record {theirs['id']}"),
    )


def _ratio(pair: Pair) -> float:
    """Ours over theirs; a layer without output has no error to lower, and reaches every target."""
    value = pair.ratio["calibration"]
    return 0.0 if value is None else value
