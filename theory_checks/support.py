"""Supports: exact counts, and the windows in which a budget counts."""

from __future__ import annotations

from typing import cast

import numpy as np

from solvers.sparsity import Array, Budget, KeepGroups, KeepNofM, KeepPerLayer, Sparsity
from theory_checks.certificate import Certificate


def windows(sparsity: Sparsity, A: Array) -> Array:
    """A laid out so that every row is one window of the budget: an output row, the layer, n of m, or the groups."""
    if isinstance(sparsity, KeepPerLayer):
        return A.reshape(1, -1)
    if isinstance(sparsity, KeepNofM):
        return A.reshape(-1, sparsity.of)
    if isinstance(sparsity, KeepGroups):
        return np.bincount(sparsity.groups, weights=A.sum(axis=0))[None, :].astype(np.float64)
    return A


def violations(sparsity: Budget, W: Array) -> int:
    """Nonzeros beyond the budget, summed over its windows."""
    counts = np.count_nonzero(windows(sparsity, np.abs(W)), axis=1)
    return int(np.maximum(counts - sparsity.keep, 0).sum())


def exact_count(sparsity: Sparsity, W0: Array, W: Array) -> Certificate:
    """Every window of the budget holds exactly `keep` nonzeros, and what is removed is +0.0.

    Assumptions: a budget, not a penalty. An entry that is kept may have been born zero: only then may a window hold
    fewer nonzeros. Measured: the largest deviation of a count, plus the negative zeros. Tight: bound 0.
    """
    name, claim, where = (
        "exact-count",
        "every window keeps exactly its budget; removed entries are +0.0",
        "by construction",
    )
    if not isinstance(sparsity, Budget):
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"{sparsity} is a penalty, it fixes no count")
    nonzero = [cast(Array, A != 0) for A in (W, W0)]  # an eighth of the memory
    counts = np.count_nonzero(windows(sparsity, nonzero[0]), axis=1)
    born_zero = np.count_nonzero(windows(sparsity, nonzero[1]) == 0, axis=1)
    short = sparsity.keep - born_zero - counts
    deviation = np.maximum(counts - sparsity.keep, np.maximum(short, 0)).max()
    negative_zeros = np.count_nonzero((W == 0) & np.signbit(W))
    return Certificate(name, claim, where, float(deviation + negative_zeros), 0.0)
