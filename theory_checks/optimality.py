"""How far from optimal at most: lower bounds on the global optimum of a layer.

Letters: W0 dense weight, D a diagonal matrix with H - D positive semidefinite, k entries kept in a window.
"""

from __future__ import annotations

import numpy as np

from solvers.problem import LayerProblem
from solvers.sparsity import L0, Array, Budget, KeepGroups, KeepPerLayer, Sparsity
from theory_checks.certificate import Certificate, allowance
from theory_checks.support import windows


def separable_bound(problem: LayerProblem, sparsity: Sparsity) -> float:
    """min over all W that obey the sparsity of 1/2 <(W - W0) D, W - W0>, D = ridge I: a lower bound on F.

    Under a budget the sum of the smallest d w0^2 / 2 of every window, with a penalty sum min(lam, d w0^2 / 2).
    """
    W0 = problem.W0
    whole = isinstance(sparsity, KeepPerLayer | KeepGroups)  # other windows end with their row
    rows = len(W0) if whole else problem.gram.part
    return sum(_cheapest(problem, sparsity, W0[k : k + rows]) for k in range(0, len(W0), rows))


def _cheapest(problem: LayerProblem, sparsity: Sparsity, W0: Array) -> float:
    """The bound's share of some rows."""
    cost = 0.5 * problem.gram.ridge * np.square(W0)
    if isinstance(sparsity, L0):
        return float(np.minimum(cost, sparsity.lam).sum())
    cheap = windows(sparsity, cost)
    cheap.sort(axis=1)
    return float(cheap[:, : cheap.shape[1] - int(sparsity.level)].sum())


def lower_bound(problem: LayerProblem, sparsity: Sparsity, W: Array, *, own: bool = False) -> Certificate:
    """The separable lower bound does not exceed F(W); their ratio bounds the distance to the global optimum.

    With `own` W is given in the layer's own coordinates, and brought into those of the problem a few rows at a time.
    Assumptions: no drift, H - ridge I positive semidefinite (by construction of `normalised`), W obeys the sparsity.
    Why: f(W) >= 1/2 <(W - W0) D, W - W0>, minimise the right side. Where: derived here. Upper bound, never tight for
    correlated inputs; `slack` is the certified optimality gap.
    """
    name, claim, where = "lower-bound", "sum of the cheapest ridge w0^2 / 2 <= F(W)", "separable relaxation"
    reason = ""
    if problem.R is not None:
        reason = "the problem has drift"
    elif problem.gram.ridge <= 0:
        reason = "ridge = 0 gives the bound 0"
    elif isinstance(sparsity, KeepGroups) or not isinstance(sparsity, Budget | L0):
        reason = f"no separable bound for {type(sparsity).__name__}"
    if reason:
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    F, reach = problem.e0 + sparsity.value(W), abs(problem.e0)
    for k in range(0, len(W), rows := problem.gram.part):
        some, V = problem.rows(slice(k, k + rows)), W[k : k + rows]
        V = problem.scaled(V) if own else V
        F, reach = F + some.value(V), reach + some.magnitude(V)
    return Certificate(
        name,
        claim,
        where,
        problem.e0 + separable_bound(problem, sparsity),
        F,
        allowance(reach + abs(F), W.size),
    )


def lipschitz_bound(problem: LayerProblem) -> Certificate:
    """lambda_max(H) <= L, the bound from which every step size comes.

    Assumptions: at most 512 inputs (a full eigendecomposition is the other side). Where: Rump 2006, sec. 2.
    """
    n = len(problem.H)
    name, claim, where = "lipschitz-bound", "lambda_max(H) <= the L behind every step size", "Rump 2006, sec. 2"
    if n > 512:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"inputs = {n} > 512")
    top = float(np.linalg.eigvalsh(problem.H)[-1])
    return Certificate(name, claim, where, top, problem.lipschitz, allowance(abs(top), n))
