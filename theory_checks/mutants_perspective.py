"""Planted defects in the perspective bound and in its two sides; see `theory_checks.mutants` for the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory_checks import optimality_gap, perspective
from theory_checks.mutant import Mutant, Patch

_proved, _dual, _rows = perspective.proved, perspective.dual, optimality_gap.row_objectives


def _one_doubled(H: Any, d: Any) -> Any:
    """The first entry of D twice as large: H - D is no longer positive semidefinite."""
    return _proved(H, d) * np.where(np.arange(len(d)) == 0, 2, 1)


def _wrong_sign(problem: Any, d: Any, keep: Any, q: Any) -> Any:
    """+ q'Aq / 2 in (3)."""
    bound = _dual(problem, d, keep, q)
    return bound._replace(value=bound.value + (q @ (problem.H - np.diag(d)) * q).sum(axis=1))


def _one_too_many(problem: Any, d: Any, keep: Any, q: Any) -> Any:
    """Every window gives up one input more than it must."""
    return _dual(problem, d, np.maximum(keep - 1, 0), q)


def _one_too_few(problem: Any, d: Any, keep: Any, q: Any) -> Any:
    """Every window keeps one input more than it may."""
    width = problem.shape[1] // keep.shape[1]
    return _dual(problem, d, np.minimum(keep + 1, width), q)


def _halved_objective(problem: Any, W: Any) -> Any:
    F, rounding = _rows(problem, W)
    return F / 2, rounding


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), tuple(by.split()))


ABOVE = "perspective-below optimality-gap"

MUTANTS: tuple[Mutant, ...] = (
    _mutant("perspective: an entry of D doubled", perspective, "proved", _one_doubled, ABOVE),
    _mutant("perspective: q'Aq with the wrong sign", perspective, "dual", _wrong_sign, ABOVE),
    _mutant("perspective: gives up one input more", perspective, "dual", _one_too_many, ABOVE),
    _mutant("perspective: keeps one input more", perspective, "dual", _one_too_few, "perspective-tight"),
    _mutant("perspective: half of D", perspective, "proved", lambda H, d: _proved(H, d) / 2, "perspective-tight"),
    _mutant("gap: half of f", optimality_gap, "row_objectives", _halved_objective, "optimality-gap"),
)
