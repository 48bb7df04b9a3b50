"""Refinement with its products in float32 where asked, and its answer as good as in float64.

Letters as in `solvers.refine` and `solvers.linalg`; S the mask; d the correction to W in the precision of the place.

    G   = S * grad f(W),  in float64                                                              (1)
    W  <- W + d,          in float64                                                              (2)
    d  <- d - s S * (G + d H),  s = 0.95/L                                    gradient:N          (3)
    conjugate gradients on S * (d H) = -G, every row scaled by |G|, until a row is below the residual asked for
    or below sqrt(eps) of what it began with; then (2), and (1) anew                exact         (4)

What rounding does to d is small beside d, not beside W: a few corrections reach a residual that float32 alone cannot.
On every rung below float32 the products are float32's all the same: with factors that lose e, a correction turns away
from the residual where e cond(H_SS) > 1, and the residual asked for is not reached.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from solvers.array import Place, full_precision, into, keep_only, to_numpy
from solvers.gpu import factor
from solvers.gpu.layer import require_representable
from solvers.linalg import RESIDUAL, stuck, unreached
from solvers.problem import LayerProblem
from solvers.refine import steps_of
from solvers.sparsity import Array, Mask


class Support(NamedTuple):
    """A layer on a mask: W0, R and H in float64, H and its diagonal once more in the precision of the steps."""

    xp: Any
    dtype: Any
    W0: Any
    R: Any
    H64: Any
    H: Any
    diagonal: Any
    mask: Any

    @classmethod
    def of(cls, problem: LayerProblem, mask: Mask, place: Place) -> Support:
        """The arrays on the place."""
        exact = factor.exact(place)
        H64 = exact.put(problem.H)
        diagonal = np.diag(problem.H)
        return cls(
            place.xp,
            getattr(place.xp, place.dtype),
            exact.put(problem.W0),
            None if problem.R is None else exact.put(problem.R),
            H64,
            H64 if place.dtype == "float64" else place.put(problem.H),
            place.put(np.where(diagonal > 0, diagonal, 1.0)),
            place.xp.asarray(mask, device=place.device),
        )

    def gradient(self, W: Any) -> Any:
        """G of (1)."""
        G = self.xp.matmul(W - self.W0, self.H64)
        if self.R is not None:
            G += self.R
        return keep_only(G, self.mask)

    def rounded(self, values: Any) -> Any:
        return self.xp.astype(values, self.dtype)

    def image(self, d: Any, out: Any) -> Any:
        """S * (d H), the product of a step."""
        return keep_only(into(self.xp.matmul, d, self.H, out=out), self.mask)

    def norms(self, A: Any) -> Any:
        """The Euclidean norm of every row, (out, 1)."""
        return self.xp.sqrt(self.xp.sum(A * A, axis=1, keepdims=True))

    def corrected(self, W: Any, d: Any) -> Any:
        """(2)."""
        return W + self.xp.astype(d, self.xp.float64)


def refine(problem: LayerProblem, mask: Mask, W: Array, how: str, place: Place) -> Array:
    """The fast twin of `solvers.refine.refine`: lower f on a fixed support.

    Parameters
    ----------
    mask, W, how : as in the reference, NumPy arrays, as the result is
    place : library, precision and device of the computation
    """
    if how == "exact":
        return conjugate_gradients(problem, mask, W, place)
    return gradient_steps(problem, mask, W, steps, place) if (steps := steps_of(how)) else W


def gradient_steps(problem: LayerProblem, mask: Mask, W: Array, steps: int, place: Place) -> Array:
    """(3), as the sum of its corrections."""
    require_representable(problem, place)
    if not problem.H.any():  # f does not depend on W, and 1/L is no step
        return np.where(mask, W, 0.0)
    on, s = Support.of(problem, mask, place), 0.95 / problem.lipschitz
    there = factor.exact(place).put(W)
    with full_precision(place.xp):
        G = on.rounded(on.gradient(there))
        d, product = -s * G, place.xp.empty_like(G)
        for _ in range(steps - 1):
            product = on.image(d, product)
            product += G
            product *= s
            d -= product  # (3)
    return to_numpy(on.corrected(there, d), "weight")


def conjugate_gradients(
    problem: LayerProblem, mask: Mask, W: Array, place: Place, *, tol: float = RESIDUAL, iters: int = 500
) -> Array:
    """argmin of f over weights supported on `mask` (4), the twin of `solvers.linalg.least_squares_pcg`.

    Parameters
    ----------
    W, tol : as in the reference
    iters : conjugate gradient steps in all

    Raises
    ------
    Refusal
        As the reference does.
    """
    on, there = Support.of(problem, mask, place), factor.exact(place).put(W)
    least = float(np.sqrt(np.finfo(place.dtype).eps))
    with full_precision(place.xp):
        goal = tol * on.norms(on.gradient(0 * there))
        while True:
            G = on.gradient(there)
            size = on.norms(G)
            if iters <= 0 or bool(place.xp.all(size <= goal)):
                break
            unit = place.xp.where(size > 0, size, place.xp.ones_like(size))
            rest = place.xp.where(
                size > goal, place.xp.clip(goal / unit / 2, least, None), 2 * place.xp.ones_like(size)
            )
            G /= -unit
            d, taken = correction(on, on.rounded(G), on.rounded(rest), iters)
            there, iters = on.corrected(there, place.xp.astype(d, there.dtype) * unit), iters - max(taken, 1)
        found = to_numpy(there, "weight")
    if iters <= 0 and tol > 0 and (above := unreached(problem, mask, found, to_numpy(goal, "goal"))).any():
        raise stuck(above, tol)
    return found


def correction(on: Support, residual: Any, asked: Any, iters: int) -> tuple[Any, int]:
    """The correction from zero by preconditioned conjugate gradients, and the steps taken.

    Parameters
    ----------
    residual : right side, its rows of norm one; overwritten where the library can
    asked : (out, 1) norm of the residual at which a row rests
    """
    xp, d, towards = on.xp, on.xp.zeros_like(residual), 1 / on.diagonal
    image, scratch = xp.empty_like(residual), xp.empty_like(residual)
    scaled = residual * towards
    direction, product = xp.asarray(scaled, copy=True), _rows(xp, residual, scaled, scratch)
    for taken in range(iters):
        active = xp.sqrt(_rows(xp, residual, residual, scratch)) > asked
        if not bool(xp.any(active)):
            return d, taken
        image = on.image(direction, image)
        length = xp.where(active, _ratio(xp, product, _rows(xp, direction, image, scratch)), xp.zeros_like(product))
        d += into(xp.multiply, direction, length, out=scratch)
        image *= length
        residual -= image
        scaled = into(xp.multiply, residual, towards, out=scaled)
        product, before = _rows(xp, residual, scaled, scratch), product
        direction *= _ratio(xp, product, before)
        direction += scaled
    return d, iters


def _rows(xp: Any, a: Any, b: Any, scratch: Any) -> Any:
    """<a, b> of every row, (out, 1)."""
    return xp.sum(into(xp.multiply, a, b, out=scratch), axis=1, keepdims=True)


def _ratio(xp: Any, a: Any, b: Any) -> Any:
    """a / b where b is positive, 0 elsewhere."""
    return xp.where(b > 0, a / xp.where(b > 0, b, xp.ones_like(b)), xp.zeros_like(a))
