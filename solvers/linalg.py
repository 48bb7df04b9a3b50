"""Dense linear algebra with a proof attached: eigenvalue bounds, Cholesky that refuses, least squares on a support.

Letters: H (n, n) symmetric positive semidefinite; u unit roundoff; W, W0 (out, n); S a row's support.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from solvers.refusal import Refusal
from solvers.sparsity import Array, Mask

if TYPE_CHECKING:
    from solvers.problem import LayerProblem

u = float(np.finfo(np.float64).eps) / 2
RESIDUAL = 1e-6  # of the normal equations on a support, relative, where nothing else is asked for


def gamma(m: int) -> float:
    """m u / (1 - m u), the rounding of m operations relative to the sum of their magnitudes [Higham 2002, eq. 3.5]."""
    return m * u / (1 - m * u)


def is_positive_definite(A: Array) -> bool:
    """Whether a floating-point Cholesky factorisation of A = A' runs to completion; A is overwritten."""
    try:  # A' lies as LAPACK wants it: no copy
        scipy.linalg.cholesky(A.T, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return False
    return True


def lambda_max_bound(H: Array) -> float:
    """A number proved to be at least lambda_max(H), usually within 0.1 % of it.

    A Lanczos value theta only ever approaches lambda_max from below. So c = theta (1 + 1e-3) is *tried*: if the
    Cholesky factorisation of c I - H completes in floating point, then lambda_max(H) <= c + g tr(c I - H) with
    g = (n + 1) u / (1 - (n + 1) u) [Rump 2006, Verification of positive definiteness, sec. 2]; the second term
    also covers the rounding of the diagonal. A margin that fails grows tenfold; min(trace, row sum) ends it.
    Never zero, so that a step 1/L exists.
    """
    n = len(H)
    g = gamma(n + 2)
    safe = max(min(float(np.trace(H)), float(np.abs(H).sum(axis=1).max())) * (1 + g), float(np.finfo(np.float64).tiny))
    theta = _lambda_max_estimate(H)
    for margin in (1e-3, 1e-2, 1e-1):
        c = theta * (1 + margin)
        if c < safe and is_positive_definite(_shifted(-H, c)):
            return min(safe, c + g * (n * c - float(np.trace(H))))
    return safe


def _shifted(A: Array, c: float) -> Array:
    """A + c I, written over A."""
    A.flat[:: len(A) + 1] += c
    return A


def _lambda_max_estimate(H: Array) -> float:
    n = len(H)
    if n <= 64:
        return float(scipy.linalg.eigvalsh(H)[-1])
    start = np.random.default_rng(0).standard_normal(n)
    return float(scipy.sparse.linalg.eigsh(H, k=1, which="LA", v0=start, tol=1e-4, return_eigenvectors=False)[0])


def symmetric(H: Array) -> Array:
    """(H + H') / 2; a Gram that is further from it than rounding of float32 products explains is refused."""
    if H.shape != H.T.shape:
        return H
    gap = float(np.abs(H - H.T).max(initial=0.0))
    if gap > float(np.finfo(np.float32).eps) * float(np.abs(np.diag(H)).sum()):
        raise Refusal(f"the Gram must be symmetric; it differs from its transpose by {gap:.3g}. Pass X.T @ X / tokens.")
    return (H + H.T) / 2


def require_positive_semidefinite(H: Array) -> None:
    """Refuse a Gram with an eigenvalue below what rounding of float32 products can explain.

    Products accumulated in float32 err by at most eps32 |X|'|X|, whose norm is below eps32 tr(H).
    """
    shift = float(np.finfo(np.float32).eps) * float(np.trace(H)) + float(np.finfo(np.float64).tiny)
    if np.any(np.diag(H) < 0) or not is_positive_definite(_shifted(H.copy(), shift)):
        lowest = float(scipy.linalg.eigvalsh(H)[0])
        raise Refusal(
            f"the Gram must be positive semidefinite; its smallest eigenvalue is {lowest:.3g}, "
            f"its trace {np.trace(H):.3g}. Usually it was not formed as X'X/T, or was edited afterwards. "
            "No substitute was used."
        )


def cholesky(A: Array, what: str) -> tuple[Array, bool]:
    """Cholesky factor in SciPy's (c, lower) form; refuses by name instead of substituting."""
    try:
        c, lower = scipy.linalg.cho_factor(A, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError as error:
        raise Refusal(
            f"{what} is not positive definite in float64 ({error}). Usually fewer calibration tokens than inputs, "
            "or inputs that are copies of each other. Use more tokens or a larger ridge mu. No substitute was used."
        ) from error
    return c, bool(lower)


def least_squares_exact(problem: LayerProblem, mask: Mask) -> Array:
    """argmin of f over weights supported on `mask`, row by row: H_SS w_S = (w0 H - r)_S.

    One Cholesky factorisation of |S|^3/3 per row: the oracle for `least_squares_pcg`.
    """
    target = problem.W0 @ problem.H - (0.0 if problem.R is None else problem.R)
    W = np.zeros_like(problem.W0)
    for row, S in enumerate(mask):
        if S.any():
            factor = cholesky(problem.H[np.ix_(S, S)], f"the Gram on the support of row {row}")
            W[row, S] = scipy.linalg.cho_solve(factor, target[row, S], check_finite=False)
    return W


def least_squares_pcg(problem: LayerProblem, mask: Mask, W: Array, *, tol: float = RESIDUAL, iters: int = 500) -> Array:
    """argmin of f over weights supported on `mask` by preconditioned conjugate gradients, all rows at once.

    Every row runs its own recursion on H_SS with the diagonal of H as preconditioner; a row rests as soon as its
    gradient on the support is below `tol` times the gradient at zero. One product with H per iteration.

    Parameters
    ----------
    W : (out, in) starting point supported on `mask`
    tol : relative residual of the normal equations, per row
    """
    diagonal = np.where(np.diag(problem.H) > 0, np.diag(problem.H), 1.0)
    goal = tol * np.linalg.norm(np.where(mask, problem.grad(np.zeros_like(W)), 0.0), axis=1, keepdims=True)
    residual = np.where(mask, -problem.grad(W), 0.0)
    scaled = residual / diagonal
    direction = scaled
    product = (residual * scaled).sum(axis=1, keepdims=True)
    for _ in range(iters):
        active = np.linalg.norm(residual, axis=1, keepdims=True) > goal
        if not active.any():
            break
        image = np.where(mask, direction @ problem.H, 0.0)
        curvature = (direction * image).sum(axis=1, keepdims=True)
        length = np.where(active, _divide(product, curvature), 0.0)
        W = W + length * direction
        residual = residual - length * image
        scaled = residual / diagonal
        product, previous = (residual * scaled).sum(axis=1, keepdims=True), product
        direction = scaled + _divide(product, previous) * direction
    return W


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
