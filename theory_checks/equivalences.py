"""Two texts of one quantity: tokens against Gram, raw against normalised, first step against Wanda."""

from __future__ import annotations

import numpy as np

from solvers import maiht
from solvers.problem import LayerProblem
from solvers.sparsity import Array, Budget
from theory_checks.certificate import Certificate, allowance


def token_form(X: Array, problem: LayerProblem, W: Array) -> Certificate:
    """f(W) = |X (W - W0)'|^2 / 2T: the quadratic is the mean squared output error, and grad f its derivative.

    Assumptions: `problem` was built from the rows of X (T, in) without drift. Measured: |f - token form| plus the
    directional derivative's error along W - W0, which for a quadratic is 2 f(W). Tight: bound 0. Where: derived here.
    """
    D = W - problem.W0
    tokens = float(np.square(X @ D.T).sum()) / (2 * len(X))
    along = float(np.vdot(problem.grad(W), D))
    measured = abs(problem.value(W) - tokens) + abs(along - 2 * tokens)
    absolute = float(np.square(np.abs(X) @ np.abs(D).T).sum()) / len(X)
    claim = "f(W) = |X (W - W0)'|^2 / 2T and <grad f(W), W - W0> = 2 f(W)"
    return Certificate(
        "token-form", claim, "definition of f", measured, 0.0, allowance(3 * absolute, len(X) + X.shape[1])
    )


def normalisation(problem: LayerProblem, mu: float, W: Array) -> Certificate:
    """f_normalised(W D) = f(W) + mu/2 |(W - W0) D|^2 with D the inputs' root mean squares.

    Assumptions: none. Measured: the difference. Tight: bound 0. Where: derived here.
    """
    judge = problem.normalised(mu)
    norms = np.sqrt(np.diag(problem.H))
    ridge = mu / 2 * float(np.square((W - problem.W0) * norms).sum())
    measured = abs(judge.value(judge.scaled(W)) - problem.value(W) - ridge)
    scale = problem.magnitude(W) + judge.magnitude(judge.scaled(W)) + ridge
    dead = float(np.square((judge.scaled(W) - judge.W0)[:, norms == 0]).sum())
    claim = "f_normalised(W D) = f(W) + mu/2 |(W - W0) D|^2"
    return Certificate(
        "normalisation", claim, "change of variables", measured, mu / 2 * dead, allowance(scale, 2 * W.shape[1])
    )


def first_step_is_wanda(problem: LayerProblem, budget: Budget, mu: float) -> Certificate:
    """From the dense weight the first step of mAIHT under a fixed per-row budget is Wanda's pruned weight.

    Assumptions: no drift, no two equal scores at the cut. Why: grad f(W0) = 0 and the normalised magnitude is Wanda's
    score. Measured: entries whose support differs. Tight: bound 0. Where: derived here.
    """
    name, claim = "first-step-is-wanda", "supp of mAIHT's first iterate = supp of Wanda"
    judge = problem.normalised(mu)
    scores = np.sort(np.abs(problem.W0) * np.sqrt(np.diag(problem.H)), axis=1)[:, ::-1]
    keep = budget.keep
    if 0 < keep < scores.shape[1] and np.any(scores[:, keep - 1] - scores[:, keep] <= allowance(1.0, 1) * scores[:, 0]):
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies="two scores tie at the cut")
    first = maiht.step(judge, budget, 0.95 / judge.lipschitz, maiht.start(judge)).x
    order = np.argsort(-np.abs(problem.W0) * np.sqrt(np.diag(problem.H)), axis=1, kind="stable")[:, :keep]
    kept = np.zeros(first.shape, dtype=bool)
    np.put_along_axis(kept, order, True, axis=1)
    differing = np.count_nonzero((first != 0) != (kept & (judge.W0 != 0)))
    return Certificate(name, claim, "derived here", float(differing), 0.0)
