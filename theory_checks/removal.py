"""Optimal brain surgeon (OBS): one input removed in closed form, many removed in any order.

Letters: H (in, in) positive definite, w a row, j an input.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from solvers.problem import LayerProblem
from solvers.sparsity import Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.restoration import Design, design_of
from theory_checks.synthetic import Case, Check


def remove(w: Array, inverse: Array, j: int) -> tuple[Array, Array]:
    """OBS: w without input j, all others compensated, and the inverse Gram of the inputs that remain."""
    column = inverse[:, j] / inverse[j, j]
    after = w - w[j] * column
    after[j] = 0.0
    return after, inverse - np.outer(column, inverse[j])


def obs_cost(problem: LayerProblem, design: Design, j: int) -> Certificate:
    """Removing input j from the dense optimum by OBS costs w_j^2 / (2 [H^-1]_jj), and no weight without j costs less.

    Measured: the costs of OBS and of lstsq on the other inputs, each against the closed form; summed over rows.
    Assumptions: lambda_min(H) > 0. Where: Hassibi, Stork 1993. Tight: bound 0.
    """
    inverse = np.linalg.inv(problem.H).astype(np.float64)
    W0, kept = design.W0, np.arange(len(inverse)) != j
    W = np.stack([remove(w, inverse, j)[0] for w in W0])
    closed = float(np.square(W0[:, j]).sum() / (2 * inverse[j, j]))
    best = design.value(design.fit(np.broadcast_to(kept, W0.shape)))
    measured = abs(design.value(W) - closed) + abs(best - closed) + float(np.abs(W[:, j]).sum())
    spectrum = design.spectrum()
    scale = 3 * closed * float(spectrum[-1] / spectrum[0]) + design.value(np.zeros_like(W0))
    claim = "f(w without j) = w_j^2 / (2 [H^-1]_jj) = min over all weights without j"
    name, where = "obs-cost", "Hassibi, Stork 1993"
    return Certificate(name, claim, where, measured, 0.0, allowance(scale, sum(design.A.shape)))


def obs_order(problem: LayerProblem, design: Design, order: npt.NDArray[np.int64]) -> Certificate:
    """OBS removals one after the other, in any order, end at the least-squares weight on what remains.

    Assumptions: lambda_min(H) > 0; the inverse is updated between removals (columnwise approximations are not equal).
    Why: each removal is a least squares on the remaining inputs, and minima over nested subspaces compose.
    Measured: Frobenius distance to lstsq. Where: derived here. Tight: bound 0.
    """
    rows, kept = [], np.ones(design.W0.shape, dtype=bool)
    kept[:, order] = False
    for w in design.W0:
        inverse = np.linalg.inv(problem.H).astype(np.float64)
        for j in order:
            w, inverse = remove(w, inverse, int(j))
        rows.append(np.where(kept[0], w, 0.0))
    reference = design.fit(kept)
    claim, where = "OBS removals in any order = least squares on what remains", "Hassibi, Stork 1993"
    spectrum = design.spectrum()
    slack = design.rounding(reference) * float(spectrum[-1] / spectrum[0]) * (1 + len(order))
    return Certificate("obs-order", claim, where, float(np.linalg.norm(rows - reference)), 0.0, slack)


def _cost(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for j in {0, int(case.rng(43).integers(case.inputs)), case.inputs - 1}:
        yield obs_cost(case.judge, design, j)


def _order(case: Case) -> Iterator[Certificate]:
    design, gone = design_of(case), case.inputs - round(case.keep * case.inputs)
    for purpose in (44, 45):
        yield obs_order(case.judge, design, case.rng(purpose).permutation(case.inputs)[:gone])


CHECKS: dict[str, Check] = {"obs-cost": _cost, "obs-order": _order}
