"""Planted defects in the fast twin of the swaps; see `theory_checks.mutants` for the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.gpu import swaps, tableau
from theory_checks.mutant import Mutant, Patch

_moved, _try = tableau._moved, tableau._try


def _unfitted(L: Any, k: Any, swapped: Any, sides: Any, scalars: Any) -> Any:
    """Only the weights of the two inputs move; f is judged on what they were after a refit."""
    w, _, judged = _moved(L, k, swapped, sides, scalars)
    two = (L.inputs == swapped[0]) | (L.inputs == swapped[1])
    w = L.xp.where(two, w, k.w)
    return w, L.gradient(w, k.w0, k.r), judged


def _tried_first(L: Any, gain: Any, flat: Any, *row: Any) -> None:
    """Removed inputs beyond the first few are never tried."""
    if not L.xp.any(gain > -L.xp.inf):
        _try(L, gain, flat, *row)


def _any_pair(sparsity: Any, kept: Any, removed: Any) -> Any:
    return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


def _in_place(array: Any, left: Any, right: Any) -> Any:
    return array


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), tuple(by.split()))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("swap twin: the tableau is stale", tableau, "subtract_product", _in_place, "swap-twin-step"),
    _mutant("swap twin: no refit after an exchange", tableau, "_moved", _unfitted, "swap-twin-step"),
    _mutant("swap twin: the best of those tried first", tableau, "_try", _tried_first, "swap-twin-pair"),
    _mutant("swap twin: across windows", swaps, "exchangeable", _any_pair, "swap-twin-run swap-twin-pair"),
    _mutant("swap twin: ends on a stale tableau", swaps.Batch, "_restart", lambda k, slots: None, "swap-twin-ends"),
)
