"""A proximal operator minimises its own definition; a projection is a nearest point.

Letters: Z, V (out, in); s step; lam penalty. Both sides are evaluated here, never through the operator under test.
"""

from __future__ import annotations

import numpy as np

from solvers.sparsity import L0, L1, Array, Budget, Sparsity
from theory_checks.certificate import Certificate, allowance
from theory_checks.support import violations, windows


def prox_minimises(sparsity: Sparsity, Z: Array, s: float) -> Certificate:
    """|V - Z|^2 / 2s + g(V) at V = prox_{sg}(Z) is at most its minimum over all V.

    Assumptions: s > 0, Z finite. Why: for a separable g the minimiser of every entry is 0, z or the soft-thresholded
    z, so three values are compared; for a budget the minimum is the sum of the smallest squares of every window.
    Where: Blumensath, Davies 2008 (L0); Beck 2017, ch. 6 (L1); Beck, Eldar 2013, sec. 2 (budgets). Tight.
    """
    V = sparsity.prox(Z, s)
    if isinstance(sparsity, L0 | L1):
        measured, bound = _penalised(sparsity, V, Z, s), _least_penalised(sparsity, Z, s)
    else:
        measured = float(np.square(V - Z).sum()) / (2 * s) if violations(sparsity, V) == 0 else float("inf")
        bound = _least_distance(sparsity, Z) / (2 * s)
    scale = float(np.square(Z).sum()) / (2 * s) + bound
    return Certificate(
        "prox-minimises",
        "|V - Z|^2/2s + g(V) at V = prox(Z) is the minimum over V",
        "Beck 2017, Def. 6.1",
        measured,
        bound,
        allowance(scale, Z.size),
    )


def _penalised(sparsity: L0 | L1, V: Array, Z: Array, s: float) -> float:
    size = np.count_nonzero(V) if isinstance(sparsity, L0) else np.abs(V).sum()
    return float(np.square(V - Z).sum() / (2 * s) + sparsity.lam * size)


def _least_penalised(sparsity: L0 | L1, Z: Array, s: float) -> float:
    if isinstance(sparsity, L0):
        return float(np.minimum(np.square(Z) / (2 * s), sparsity.lam).sum())
    t = s * sparsity.lam  # the Moreau envelope of |.|_1 is Huber's function
    inside = np.abs(Z) <= t
    return float(np.where(inside, np.square(Z) / (2 * s), sparsity.lam * (np.abs(Z) - t / 2)).sum())


def _least_distance(sparsity: Budget, Z: Array) -> float:
    squares = np.sort(windows(sparsity, np.square(Z)), axis=-1)
    return float(squares[:, : squares.shape[1] - sparsity.keep].sum())
