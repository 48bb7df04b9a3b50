"""SparseGPT: what its errors add up to, what its weights minimise, and what its scores cost.

Letters: A (m, in) the tokens with the damping below them, A'A = H_d; W the pruned weight, E its errors, W0 = W + E U.
The references are `numpy.linalg.lstsq` on A: they form neither H_d nor its inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from solvers import sparsegpt
from solvers.problem import LayerProblem
from solvers.sparsity import Array, Budget, KeepNofM
from theory_checks.certificate import Certificate, allowance
from theory_checks.restoration import Design
from theory_checks.support import windows
from theory_checks.synthetic import Case, Check

DAMPING = 0.01
WHERE = "Frantar, Alistarh 2023"


def damped_design(case: Case) -> Design:
    """The layer in its own coordinates as tokens, the damping as further ones; 1 for a dead input."""
    X = case.X / np.sqrt(len(case.X))
    power = np.square(X).sum(axis=0)
    extra = np.where(power > 0, DAMPING * power.mean(), 1.0)
    return Design(np.vstack([X, np.diag(np.sqrt(extra))]), case.W0)


def pruned(problem: LayerProblem, budget: Budget, blocksize: int) -> tuple[Array, Array]:
    """W and E of one pass."""
    return sparsegpt.prune(problem, budget, sparsegpt.upper_factor(sparsegpt.damped(problem.H, DAMPING)), blocksize)


def identity(problem: LayerProblem, design: Design, budget: Budget, blocksize: int) -> Certificate:
    """The squared errors of all removals add up to the output error: sum E^2 = tr((W - W0) H_d (W - W0)').

    Assumptions: H_d positive definite, no drift. Why: W0 - W = E U and U H_d U' = I. Measured: the difference, with
    the right side from tokens. Where: derived here; the release prints half of the left side. Tight: bound 0.
    """
    W, E = pruned(problem, budget, blocksize)
    spectrum = design.spectrum()
    terms = float(np.square(E).sum())
    scale = terms * float(spectrum[-1] / spectrum[0]) + design.terms(W)
    claim = "sum of squared errors = tr((W - W0) H_d (W - W0)')"
    measured = abs(terms - 2 * design.value(W))
    return Certificate("sparsegpt-identity", claim, WHERE, measured, 0.0, allowance(scale, sum(design.A.shape)))


def best_given_left(design: Design, W: Array, j: int) -> Array:
    """The columns j, j+1, ... of the weight that minimises the damped error, those left of j held as in W."""
    pull = design.A[:, :j] @ (W - design.W0)[:, :j].T
    moved: Array = design.W0[:, j:] - np.linalg.lstsq(design.A[:, j:], pull, rcond=None)[0].T
    return moved


def conditional(problem: LayerProblem, design: Design, budget: Budget, blocksize: int) -> Certificate:
    """Every kept weight is the best one given the final weights to its left, all to its right being free.

    Assumptions: H_d positive definite, no drift. Why: each elimination minimises over the columns to its right, and
    minima over nested subspaces compose. Measured: Frobenius distance to lstsq, over the kept entries. Where: derived
    here; Frantar, Alistarh 2023, sec. 3.2, freezes columns for this reason. Tight: bound 0.
    """
    W, _ = pruned(problem, budget, blocksize)
    reference = np.stack([best_given_left(design, W, j)[:, 0] for j in range(W.shape[1])], axis=1)
    distance = float(np.linalg.norm(np.where(W != 0, W - reference, 0.0)))
    claim = "a kept weight minimises the damped error given the weights to its left"
    slack = design.rounding(np.abs(W) + np.abs(reference))
    return Certificate("sparsegpt-conditional", claim, WHERE, distance, 0.0, slack)


def cost_root(A: Array, j: int) -> float:
    """sqrt(1 / [(H_d on j, j+1, ...)^-1]_jj): the distance of column j of A from the span of those to its right."""
    if j + 1 == A.shape[1]:
        return float(np.linalg.norm(A[:, j]))
    fit = np.linalg.lstsq(A[:, j + 1 :], A[:, j], rcond=None)[0]
    return float(np.linalg.norm(A[:, j] - A[:, j + 1 :] @ fit))


def scores(problem: LayerProblem, design: Design, budget: Budget, blocksize: int) -> Certificate:
    """In every block the removed entries are those whose removal costs least, the weights to their left frozen.

    The cost of entry j is w_j^2 / [(H_d on j, j+1, ...)^-1]_jj on the weights as they stand when the block is reached.
    Assumptions: H_d positive definite, no drift; dead inputs cost nothing. Measured: the largest excess of a removed
    root cost over a kept one in the same window. Where: Frantar, Alistarh 2023, sec. 3.2. Tight where costs tie.
    """
    W, _ = pruned(problem, budget, blocksize)
    n, width = W.shape[1], budget.of if isinstance(budget, KeepNofM) else blocksize
    roots = np.array([cost_root(design.A, j) for j in range(n)]) * (problem.norms > 0)
    worst, reach = 0.0, 0.0
    for start in range(0, n, width):
        block = slice(start, min(start + width, n))
        now = best_given_left(design, W, start)[:, : block.stop - start]
        cost = np.abs(now) * roots[block]
        kept = W[:, block] != 0
        removed, least = windows(budget, np.where(kept, 0.0, cost)), windows(budget, np.where(kept, cost, np.inf))
        worst = max(worst, float((removed.max(axis=1) - least.min(axis=1)).max()))
        reach = max(reach, float(np.abs(now).max()) * float(roots[block].max()))
    spectrum = design.spectrum()
    slack = float(roots.max()) * design.rounding(W) + allowance(reach * float(spectrum[-1] / spectrum[0]), n)
    claim = "removed |w_j| / U_jj <= kept |w_j| / U_jj in a block, U_jj^2 = [(H_d on j, j+1, ...)^-1]_jj"
    return Certificate("sparsegpt-scores", claim, WHERE, worst, 0.0, slack)


def _on_blocks(claim: Callable[[LayerProblem, Design, Budget, int], Certificate]) -> Check:
    def check(case: Case) -> Iterator[Certificate]:
        design = damped_design(case)
        for budget in case.budgets:
            for blocksize in (3, 128):
                yield claim(case.problem, design, budget, blocksize)

    return check


CHECKS: dict[str, Check] = {
    "sparsegpt-identity": _on_blocks(identity),
    "sparsegpt-conditional": _on_blocks(conditional),
    "sparsegpt-scores": _on_blocks(scores),
}
