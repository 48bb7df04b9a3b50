"""Weights restored on a fixed mask: least squares, ADMM, a change of scale, and the dominance over Wanda.

Letters: X (T, in) tokens, H = X'X/T + mu I, S a row's support, w a row. The reference is `numpy.linalg.lstsq` on the
augmented system [X / sqrt(T); sqrt(mu) I]: it never forms H.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from solvers import admm, linalg, refine
from solvers.problem import LayerProblem
from solvers.sparsity import Array, Mask
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check


class Design(NamedTuple):
    """A layer before its Gram is formed: `A` (m, in) with A'A = H, and W0 (out, in)."""

    A: Array
    W0: Array

    def value(self, W: Array) -> float:
        """|A (W - W0)'|^2 / 2."""
        return float(np.square(self.A @ (W - self.W0).T).sum()) / 2

    def terms(self, W: Array) -> float:
        """Sum of the absolute terms of `value`, twice: the scale of its rounding."""
        return float(np.square(np.abs(self.A) @ (np.abs(W) + np.abs(self.W0)).T).sum())

    def fit(self, mask: Mask) -> Array:
        """The least-squares weight on the support of every row."""
        W = np.zeros_like(self.W0)
        for row, S in enumerate(mask):
            if S.any():
                W[row, S] = np.linalg.lstsq(self.A[:, S], self.A @ self.W0[row], rcond=None)[0]
        return W

    def spectrum(self) -> Array:
        """Eigenvalues of H, ascending: squared singular values of A."""
        return np.asarray(np.square(np.linalg.svd(self.A, compute_uv=False))[::-1], dtype=np.float64)

    def rounding(self, W: Array) -> float:
        """What a backward stable solve on any support may be off by, in the Frobenius norm: its residual / lambda_min.

        The residual of a stable solve, and that of a perturbed H, are sums of products of |A|'|A| with |W| + |W0|.
        """
        size = np.abs(W) + np.abs(self.W0)
        residual = np.linalg.norm(size @ (np.abs(self.A).T @ np.abs(self.A)))
        return allowance(float(2 * residual / self.spectrum()[0]), len(self.A) + self.A.shape[1])


def design_of(case: Case, mu: float = 0.1) -> Design:
    """The normalised layer as tokens: its Gram is that of `case.judge`."""
    X = case.judge.original(case.X) / np.sqrt(len(case.X))
    return Design(np.vstack([X, np.sqrt(mu) * np.eye(case.inputs)]), case.judge.W0)


def least_squares(problem: LayerProblem, design: Design, mask: Mask) -> Certificate:
    """The normal equations H_SS w_S = (H w0)_S and lstsq on the augmented system give the same weight.

    Assumptions: lambda_min(H) > 0, given by the ridge. Measured: Frobenius distance. Where: ALPS,
    Meng et al. 2024, eq. (6). Tight: bound 0, and the condition number is in the allowance.
    """
    W, reference = linalg.least_squares_exact(problem, mask), design.fit(mask)
    claim, where = "H_SS w_S = (H w0)_S gives the weight of lstsq on [X; sqrt(mu) I]", "normal equations"
    distance = float(np.linalg.norm(W - reference))
    return Certificate("restoration", claim, where, distance, 0.0, design.rounding(reference))


def orthogonal_residual(problem: LayerProblem, design: Design, mask: Mask) -> Certificate:
    """The residual of the restored weight is orthogonal to the kept inputs: X_S'(Xw - Xw0)/T + mu (w - w0)_S = 0.

    Assumptions: none. Measured: the largest entry, evaluated from tokens, 0 off the support. Tight: bound 0.
    """
    W = linalg.least_squares_exact(problem, mask)
    residual = np.where(mask, (W - design.W0) @ design.A.T @ design.A, W)
    size = (np.abs(W) + np.abs(design.W0)) @ np.abs(design.A).T @ np.abs(design.A)
    claim = "X_S'(Xw - Xw0)/T + mu (w - w0)_S = 0 on the support, w = 0 off it"
    measured = float(np.abs(residual).max())
    rounding = allowance(float(np.linalg.norm(size, axis=1).max()), sum(design.A.shape))
    return Certificate("orthogonal-residual", claim, "normal equations", measured, 0.0, rounding)


def admm_rate(problem: LayerProblem, design: Design, mask: Mask, rho: float, iters: int) -> Certificate:
    """|Z_k - w*| <= ((1 + d)/2)^k |Z_0 - w* + grad f(w*) / rho|, d = max_i |rho - lambda_i| / (rho + lambda_i).

    Assumptions: lambda_min(H) > 0, no drift. Why: Z + U follows Douglas-Rachford, the mean of the identity and of a
    reflection in a subspace after a contraction by d; its fixed point is w* - grad f(w*) / rho, and Z its projection.
    Where: Giselsson, Boyd 2017. Upper bound.
    """
    name, claim = "admm-rate", "|Z_k - w*| <= ((1 + d)/2)^k |Z_0 - w* + grad f(w*)/rho|, d = max |rho - l|/(rho + l)"
    where = "Giselsson, Boyd 2017, linear convergence of ADMM"
    best, spectrum = design.fit(mask), design.spectrum()
    Z = admm.fixed_mask_admm(problem, mask, rho=rho, iters=iters).weight
    d = float((np.abs(rho - spectrum) / (rho + spectrum)).max())
    pull = (best - design.W0) @ design.A.T @ design.A
    first = np.linalg.norm(np.where(mask, design.W0, 0.0) - best + np.where(mask, 0.0, pull) / rho)
    bound = ((1 + d) / 2) ** iters * float(first)
    slack = design.rounding(best) * (1 + rho / float(spectrum[-1])) * 2 / (1 - d)
    return Certificate(name, claim, where, float(np.linalg.norm(Z - best)), bound, slack)


def change_inputs(problem: LayerProblem, d: Array) -> LayerProblem:
    """The layer with its inputs divided by d and its weights multiplied by it: the same outputs."""
    H = problem.H / d / d[:, None]
    return LayerProblem.of(problem.W0 * d, (H + H.T) / 2)


def scaling_equivariant(problem: LayerProblem, design: Design, mask: Mask, d: Array) -> Certificate:
    """Restoring after X -> X D^-1, W0 -> W0 D and mapping back gives lstsq of the layer as it was.

    Assumptions: lambda_min(H) > 0, d > 0; the mask stays. IHT's supports and the ridge are not equivariant, see the
    tests for an example. Why: f is the same function of W; the backward error of Cholesky is unchanged by a diagonal
    scaling [Higham 2002, ch. 10]. Measured: Frobenius distance. Where: derived here. Tight: bound 0.
    """
    W = linalg.least_squares_exact(change_inputs(problem, d), mask) / d
    reference = design.fit(mask)
    claim = "least squares on a mask after X -> X D^-1, W -> W D is the same weight times D"
    name, where = "scaling-equivariant", "change of variables"
    distance = float(np.linalg.norm(W - reference))
    return Certificate(name, claim, where, distance, 0.0, 2 * design.rounding(reference))


def no_worse(design: Design, before: Array, after: Array, who: str) -> Certificate:
    """f(after) <= f(before), both from tokens: mAIHT with a fixed budget against Wanda, refined against found.

    Assumptions: `after` is mAIHT's weight from the dense start with the budget fixed from the first step, `before`
    Wanda's on the same Gram; or a refinement and what it started from. Why: mAIHT's first iterate is Wanda's weight
    (grad f(W0) = 0), and every later step descends. Where: derived here. Upper bound, reached where no step improves.
    """
    claim = f"f({who}), ridge included"
    rounding = allowance(design.terms(before) + design.terms(after), sum(design.A.shape))
    where = "first-step-is-wanda and sufficient decrease"
    return Certificate("dominates-wanda", claim, where, design.value(after), design.value(before), rounding)


def masks_of(case: Case) -> Iterator[Mask]:
    """Wanda's mask, one that has nothing to do with the weights, and one of every row's own size."""
    budget = case.budgets[0]
    yield budget.mask(np.abs(case.judge.W0))
    yield budget.mask(case.rng(40).random(case.W0.shape))
    yield case.rng(41).random(case.W0.shape) < max(case.keep, 1 / case.inputs)


def _least_squares(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for mask in masks_of(case):
        yield least_squares(case.judge, design, mask)


def _orthogonal(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for mask in masks_of(case):
        yield orthogonal_residual(case.judge, design, mask)


def _admm(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    spectrum = design.spectrum()
    best = float(np.sqrt(spectrum[0] * spectrum[-1]))
    for mask in list(masks_of(case))[:2]:
        for rho, iters in ((best, 1), (best, 10), (best, 60), (1.0, 5), (10 * best, 20)):
            yield admm_rate(case.judge, design, mask, rho, iters)


def _scaling(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for mask in masks_of(case):
        yield scaling_equivariant(case.judge, design, mask, 10 ** case.rng(42).uniform(-1, 1, case.inputs))


def _dominance(case: Case) -> Iterator[Certificate]:
    design = design_of(case)
    for budget in case.budgets:
        first, found = case.run("wanda", budget).found, case.run("maiht", budget, ramp=0.0).found
        yield no_worse(design, first.weight, found.weight, "mAIHT at a fixed budget) <= f(Wanda")
        for how in ("gradient:30", "exact"):
            refined = refine.refine(case.judge, found.weight != 0, found.weight, how)
            yield no_worse(design, found.weight, refined, "refined) <= f(found")


CHECKS: dict[str, Check] = {
    "restoration": _least_squares,
    "orthogonal-residual": _orthogonal,
    "admm-rate": _admm,
    "scaling-equivariant": _scaling,
    "dominates-wanda": _dominance,
}
