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
SUMMED = 4096  # products of a Gram that may have been added up in float32; longer sums are taken in float64


def gamma(m: int, u: float = u) -> float:
    """m u / (1 - m u), the rounding of m operations relative to the sum of their magnitudes [Higham 2002, eq. 3.5]."""
    return m * u / (1 - m * u)


def is_positive_definite(A: Array, *, overwrite: bool = False) -> bool:
    """Whether a floating-point Cholesky factorisation of A = A' runs to completion."""
    try:  # A' lies as LAPACK wants it: where it may be overwritten there is no copy
        scipy.linalg.cholesky(A.T, lower=True, overwrite_a=overwrite, check_finite=False)
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
        if c < safe and is_positive_definite(_shifted(-H, c), overwrite=True):
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


def _float32(H: Array) -> tuple[float, Array]:
    """g, d: what float32 rounded in a genuine Gram is at most g d_i d_j in entry (i, j).

    Of SUMMED products in whatever order, divided by their number, at most gamma_m |x_i|'|x_j| is lost, m = SUMMED + 2,
    and by Cauchy and Schwarz |x_i|'|x_j| <= d_i d_j / (1 - gamma_m) with d^2 the diagonal as it was computed. A square
    below the least normal number may have vanished.
    """
    diagonal, least = np.diag(H), float(np.finfo(np.float32).tiny)
    least = max(least * min(float(diagonal.max(initial=0.0)), 1.0), float(np.finfo(np.float64).tiny))
    lost = gamma(SUMMED + 2, float(np.finfo(np.float32).eps) / 2)
    return lost / (1 - lost), np.sqrt(np.maximum(diagonal, least))


def symmetric(H: Array) -> Array:
    """(H + H') / 2; a Gram that is further from it than rounding of float32 sums explains is refused."""
    if H.shape != H.T.shape or H.ndim != 2:
        return H
    gap = np.abs(H - H.T)
    g, d = _float32(H)
    if (gap > 2 * g * d * d[:, None]).any():
        raise Refusal(
            f"the Gram must be symmetric; it differs from its transpose by {gap.max():.3g}. Pass X.T @ X / tokens."
        )
    return (H + H.T) / 2


def require_positive_semidefinite(H: Array) -> None:
    """Refuse a Gram that is further from positive semidefinite than rounding of float32 sums explains.

    What is lost is judged on the unit diagonal, D = diag(d), where no loud input hides a quiet one: entries of at most
    g there are a matrix of norm at most g n, so that a genuine Gram has lambda_min(D^-1 H D^-1) >= -g n.
    """
    g, d = _float32(H)
    with np.errstate(over="ignore"):  # no factor of infinities is found
        judged = H / d
        judged /= d[:, None]
    if np.any(np.diag(H) < 0) or not is_positive_definite(_shifted(judged, g * len(H)), overwrite=True):
        lowest = float(scipy.linalg.eigvalsh(H)[0])
        raise Refusal(
            f"the Gram must be positive semidefinite; its smallest eigenvalue is {lowest:.3g}, its trace "
            f"{np.trace(H):.3g}. Usually it was not formed as X'X/T, was edited afterwards, or more than {SUMMED} "
            "tokens were added up in float32: add up their chunks in float64. No substitute was used."
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
    gradient on the support is below `tol` times the gradient at zero. One product with H per iteration. Where the
    gradients of rows at rest, found anew, are not that small, the rows go on from there.

    Parameters
    ----------
    W : (out, in) starting point supported on `mask`
    tol : relative residual of the normal equations, per row; 0 takes `iters` steps, wherever they lead

    Raises
    ------
    Refusal
        Where rounding does not explain that `tol` was not reached: on a support on which H is nearly singular, or
        indefinite by the rounding of float32 sums.
    """
    goal = tol * np.linalg.norm(np.where(mask, problem.grad(np.zeros_like(W)), 0.0), axis=1, keepdims=True)
    W, taken = _conjugate_gradients(problem, mask, W, goal, iters)
    while tol > 0 and (above := unreached(problem, mask, W, goal)).any():
        if taken == iters:
            raise stuck(above, tol)
        W, more = _conjugate_gradients(problem, mask, W, goal, iters - taken)
        taken += max(more, 1)
    return W


def unreached(problem: LayerProblem, mask: Mask, W: Array, goal: Array) -> Mask:
    """(out,) rows whose gradient on the support is not within the goal (out, 1) and its own rounding."""
    size = np.linalg.norm(np.where(mask, problem.grad(W), 0.0), axis=1)
    within: Mask = size <= goal[:, 0]
    if not within.all():
        terms = np.abs(W - problem.W0) @ np.abs(problem.H) + (0.0 if problem.R is None else np.abs(problem.R))
        within = size <= goal[:, 0] + gamma(4 * (W.shape[1] + 8)) * np.linalg.norm(terms, axis=1)
    return ~within


def stuck(above: Mask, tol: float) -> Refusal:
    """What a refit says that did not reach its residual."""
    return Refusal(
        f"the exact refit of row {int(above.argmax())}, one of {int(above.sum())} such rows, did not reach a relative "
        f"residual of {tol:g}. Usually the Gram is nearly singular on the support, or indefinite by "
        "the rounding of float32 sums. Use more tokens, a larger ridge refine_mu, or gradient steps. "
        "No substitute was used."
    )


def _conjugate_gradients(problem: LayerProblem, mask: Mask, W: Array, goal: Array, iters: int) -> tuple[Array, int]:
    """W after conjugate gradients until every row is at its goal by the recursion, and the steps taken."""
    diagonal = np.where(np.diag(problem.H) > 0, np.diag(problem.H), 1.0)
    residual = np.where(mask, -problem.grad(W), 0.0)
    scaled = residual / diagonal
    direction = scaled
    product = (residual * scaled).sum(axis=1, keepdims=True)
    for taken in range(iters):
        active = np.linalg.norm(residual, axis=1, keepdims=True) > goal
        if not active.any():
            return W, taken
        image = np.where(mask, direction @ problem.H, 0.0)
        curvature = (direction * image).sum(axis=1, keepdims=True)
        length = np.where(active, _divide(product, curvature), 0.0)
        W = W + length * direction
        residual = residual - length * image
        scaled = residual / diagonal
        product, previous = (residual * scaled).sum(axis=1, keepdims=True), product
        direction = scaled + _divide(product, previous) * direction
    return W, iters


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
