"""The theory, measured: every claim, every planted defect, the curves beside their bounds, the recovery maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import isfinite
from typing import Any

from benchmarks.records import Record, make_record
from benchmarks.recovery_map import recovery_maps
from benchmarks.theory_curves import curves
from theory_checks.claims import CLAIMS
from theory_checks.evaluate import evaluate, statement
from theory_checks.matrix import CHECKS, matrix
from theory_checks.mutants import MUTANTS
from theory_checks.scaling import EXPERIMENTS

EXAMPLES = 100  # synthetic layers per claim
MOST = 12  # synthetic layers that a defect may survive before it counts as a survivor

Say = Callable[[int, int, str], None]


def measure(seed: int = 0, *, progress: Say = lambda done, of, what: None) -> Iterator[Record]:
    """Records of the benchmarks ``claim``, ``theory-curve``, ``recovery`` and ``mutation``, in this order."""
    yield from claims(seed, progress=progress)
    yield from curves(seed, progress=progress)
    yield from recovery_maps(seed, progress=progress)
    yield from mutations(seed, progress=progress)


def claims(
    seed: int, examples: int = EXAMPLES, *, progress: Say = lambda done, of, what: None, names: tuple[str, ...] = ()
) -> Iterator[Record]:
    """A record for every claim and experiment: both sides, outcome, examples, statement; all names by default."""
    for row in evaluate(names or (*CLAIMS, *EXPERIMENTS), examples, seed, lambda n, of: progress(n, of, "claims")):
        sides = {side: _number(row[side]) for side in ("measured", "bound", "allowance")}
        told = statement(row["name"])
        about = {"module": told.module, "title": told.title, "statement": told.text}
        yield make_record("claim", seed=seed, **{**row, **sides}, used=used(row), **about)


def used(row: dict[str, Any]) -> float | None:
    """measured / bound, the used share of the bound, where the bound is positive and the claim applies."""
    if row["applies"] or not row["bound"] > 0:
        return None
    return _number(row["measured"] / row["bound"])


def mutations(
    seed: int,
    most: int = MOST,
    *,
    progress: Say = lambda done, of, what: None,
    names: tuple[str, ...] = (),
    workers: int | None = None,
) -> Iterator[Record]:
    """A record for every planted defect: after how many layers each check that notices it does so.

    ``killed_after`` holds every check that noticed, and null for a check that is named for the defect and did not;
    ``checks`` says how many were tried.
    """
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    tell = partial(_planted, progress)
    rows = matrix([mutant.name for mutant in chosen], CHECKS, most=most, seed=seed, workers=workers, progress=tell)
    for mutant in chosen:
        row, named = rows[mutant.name], list(mutant.killed_by)
        kept = {check: n for check, n in row.items() if n is not None or check in named}
        yield make_record(
            "mutation", seed=seed, name=mutant.name, killed_after=kept, named=named, checks=len(row), examples=most
        )


def _planted(progress: Say, done: int, of: int) -> None:
    progress(done, of, "planted defects")


def _number(value: float) -> float | None:
    """A number that a record can hold; what is not finite is null."""
    return value if isfinite(value) else None
