"""The perspective relaxation of a row's best support: a lower bound on f over all supports, proved by its dual value.

One row: d = w - w0, q any vector, r its drift, windows of `width` inputs of which `keep` stay (a row is one window).

    H = A + D,  D = diag(d) > 0,  A = H - D proved positive semidefinite                               (1)
    f(w) >= -q'Aq/2 + a'(w - w0) + (w - w0)'D(w - w0)/2,  a = Aq + r,  for every q                     (2)
    least of (2):  b(q) = -q'Aq/2 - sum_j a_j^2/2d_j + sum of the least (d_j w0_j - a_j)^2/2d_j        (3)

In (3) every window gives up its width - keep least terms. At q = 0 it is the separable bound. Its maximum over q is the
minimum of the convex relaxation over w and 0 <= z <= 1, sum of z <= keep in every window,

    (w - w0)'A(w - w0)/2 + r'(w - w0) + sum_j d_j (w_j^2/z_j - 2 w_j w0_j + w0_j^2)/2                  (4)

of which accelerated proximal steps give q = w - w0, with lambda_max(A) <= t and nu such that the z of a window add up
to keep:

    u = w - (A(w - w0) + r - d w0)/t,  z = clip(nu |u| d^1/2 - d/t, 0, 1),  w <- t u z/(t z + d)      (5)

D = c diag(1/(H^-1)_jj) with the largest c of (1), then ascent: the slope of (4) in d_j is e_j = w_j^2 (1/z_j - 1)/2,

    d <- argmax e'd + m log det(H - D),  by Newton's method,  m falling                                (6)

stays inside (1). Whatever q and D are, b(q) is a bound: nothing here has to converge, and what is said to be proved is
b(q) less the rounding of its own evaluation.

A. Frangioni, C. Gentile. Perspective Cuts for a Class of Convex 0-1 Mixed Integer Programs. Math. Program. 2006.
H. Dong, K. Chen, J. Linderoth. Regularization vs. Relaxation: A Conic Optimization Perspective of Statistical Variable
    Selection. 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg

from solvers.linalg import cholesky, gamma, is_positive_definite, lambda_max_bound
from solvers.problem import LayerProblem
from solvers.sparsity import Array
from theory_checks.certificate import allowance

Counts = npt.NDArray[np.int64]
NEWTON = 6  # steps of (6)
SEARCH = 60  # of nu in (5), at most


class Bound(NamedTuple):
    """(rows,) dual values b(q) and what rounding may have added to each."""

    value: Array
    rounding: Array

    @property
    def proved(self) -> Array:
        """(rows,) what f cannot fall below on any support that is allowed."""
        return np.asarray(self.value - self.rounding)

    def or_better(self, other: Bound) -> Bound:
        """Row by row the one that proves more."""
        better = other.proved > self.proved
        return Bound(np.where(better, other.value, self.value), np.where(better, other.rounding, self.rounding))


class Relaxed(NamedTuple):
    """Rows after (5): the weights w and shares z (rows, in), and the best dual values met on the way."""

    w: Array
    z: Array
    bound: Bound


def windows_of(A: Array, keep: Counts) -> Array:
    """(rows, windows, width) of an array (rows, in), where keep is (rows, windows)."""
    return A.reshape(*keep.shape, -1)


def proved(H: Array, d: Array) -> Array:
    """The largest multiple of d below it for which H - D is positive semidefinite: (1), by a Cholesky factorisation.

    If the factorisation of A = H - D completes in floating point, then lambda_min(A) >= -g tr A with g = (n + 1) u /
    (1 - 2 (n + 1) u) [Rump 2006, sec. 2]. Twice as much is taken off every entry, for the rounding of A's diagonal and
    of its trace, and what is left is rounded down. No entry is positive where rounding leaves nothing.
    """
    n, margin = len(H), gamma(4 * (len(H) + 8))
    while margin < 1:
        less = (1 - margin) * d
        A = H - np.diag(less)
        if is_positive_definite(A):
            return np.asarray((1 - gamma(4)) * (less - gamma(2 * (n + 4)) * float(np.trace(A))))
        margin *= 4
    return np.zeros(n)


def equicorrelated(H: Array) -> Array:
    """c / (H^-1)_jj with the largest c that leaves H - D positive semidefinite, up to rounding."""
    factor = cholesky(H, "the Gram of the perspective bound")
    M = scipy.linalg.cho_solve(factor, np.eye(len(H)), check_finite=False)
    d = 1 / np.diag(M)
    root = np.sqrt(d)
    return np.asarray(d / float(scipy.linalg.eigvalsh(root[:, None] * M * root)[-1]))


def ascended(H: Array, d: Array, slope: Array, m: float) -> Array:
    """Newton steps (6) from d, each shortened until H - D is positive definite again.

    Where H - D is singular in float64, at the start or in a step, d stays where it is: any D of (1) gives a bound.
    """
    for _ in range(NEWTON):
        M = _inverse(H - np.diag(d))
        toward = None if M is None else _solved(m * M * M, slope - m * np.diag(M))
        if toward is None:
            return d
        length = 1.0
        while not ((d + length * toward > 0).all() and is_positive_definite(H - np.diag(d + length * toward))):
            length /= 2
            if length < gamma(len(H)):
                return d
        d = d + length * toward
    return d


def _inverse(A: Array) -> Array | None:
    return _solved(A, np.eye(len(A)))


def _solved(A: Array, B: Array) -> Array | None:
    """A^-1 B for a positive definite A; None where it is not in float64, or where the solution overflows."""
    if not (np.isfinite(A).all() and np.isfinite(B).all() and is_positive_definite(A)):
        return None
    X = np.asarray(scipy.linalg.cho_solve(scipy.linalg.cho_factor(A, lower=True), B))
    return X if np.isfinite(X).all() else None


def dual(problem: LayerProblem, d: Array, keep: Counts, q: Array) -> Bound:
    """b(q) of (3), row by row.

    Every term is a sum of products of entries of A, q, w0 and r; `allowance` is taken of the same terms in magnitudes.
    """
    A, W0 = problem.H - np.diag(d), problem.W0
    r = np.zeros_like(W0) if problem.R is None else problem.R
    a = q @ A + r
    given_up = np.sort(windows_of(np.square(d * W0 - a) / (2 * d), keep), axis=2).cumsum(axis=2)
    given_up = np.concatenate([np.zeros((*keep.shape, 1)), given_up], axis=2)
    least = np.take_along_axis(given_up, given_up.shape[2] - 1 - keep[:, :, None], axis=2).sum(axis=(1, 2))
    value = -((a - r) * q).sum(axis=1) / 2 - (np.square(a) / (2 * d)).sum(axis=1) + least
    size = np.abs(q) @ np.abs(A) + np.abs(r)
    terms = (size * np.abs(q)).sum(axis=1) + (np.square(size) + np.square(d * np.abs(W0) + size)) @ (1 / d)
    return Bound(value, allowance(1.0, len(d)) * terms)


def shares(u: Array, d: Array, t: float, keep: Counts, nu: Array | None = None) -> tuple[Array, Array]:
    """The z of (5), and the nu of every window, found from another nu by Newton's method inside a shrinking bracket.

    The sum of a window's z is piecewise linear in nu. An entry that is zero has z = 0, and where no more than keep are
    not, each of them has z = 1.
    """

    def cells(A: Array) -> Array:  # a window in every column, so that sums run over rows of memory
        return np.ascontiguousarray(np.broadcast_to(A, u.shape).reshape(-1, width).T)

    width, goal = u.size // keep.size, keep.ravel()
    rise, floor = cells(np.abs(u) * np.sqrt(d)), cells(d / t)
    live = rise > 0
    low = np.zeros(keep.size)
    high = np.divide(1 + floor, rise, out=np.zeros_like(rise), where=live).max(axis=0)
    open_, near = np.count_nonzero(live, axis=0) > goal, gamma(2 * width) * (width + floor.sum(axis=0))
    nu = (low + high) / 2 if nu is None else np.clip(nu, low, high)
    left = np.flatnonzero(open_)  # windows that still miss what they keep
    for n in range(SEARCH):
        r, v = rise[:, left], nu[left]
        z = np.clip(v * r - floor[:, left], 0.0, 1.0)
        missing = goal[left] - z.sum(axis=0)
        low[left], high[left] = np.where(missing >= 0, v, low[left]), np.where(missing <= 0, v, high[left])
        slope = np.where((z > 0) & (z < 1), r, 0.0).sum(axis=0)
        toward = v + np.divide(missing, slope, out=np.full_like(v, np.inf), where=slope > 0)
        inside = (low[left] < toward) & (toward < high[left]) & (n % 4 < 3)
        off = np.abs(missing) > near[left]
        nu[left] = np.where(off, np.where(inside, toward, (low[left] + high[left]) / 2), v)
        left = left[off]
        if not len(left):
            break
    return np.where(open_, np.clip(nu * rise - floor, 0.0, 1.0), live).T.reshape(u.shape), nu


def relax(problem: LayerProblem, d: Array, keep: Counts, iters: int, w: Array | None = None) -> Relaxed:
    """Accelerated steps (5) from w, restarted row by row where they turn back; b(q) of every tenth and of q = 0."""
    A, W0 = problem.H - np.diag(d), problem.W0
    t, pull = lambda_max_bound(A), (0.0 if problem.R is None else problem.R) - d * W0
    bound = dual(problem, d, keep, np.zeros_like(W0))
    x = y = W0 if w is None else w
    z, speed, nu = np.ones_like(W0), 1.0, None
    for n in range(1, iters + 1):
        u = y - ((y - W0) @ A + pull) / t
        z, nu = shares(u, d, t, keep, nu)
        last, x = x, t * u * z / (t * z + d)  # (5)
        speed, before = (1 + np.sqrt(1 + 4 * speed**2)) / 2, speed
        turned = ((y - x) * (x - last)).sum(axis=1, keepdims=True) > 0
        y = x + np.where(turned, 0.0, (before - 1) / speed) * (x - last)
        if n % 10 == 0 or n == iters:
            bound = bound.or_better(dual(problem, d, keep, x - W0))
    return Relaxed(x, z, bound)


def perspective_bound(
    problem: LayerProblem, keep: Counts, *, iters: int = 100, ascents: int = 0, sample: int = 16
) -> Bound:
    """Lower bounds on f of every row over all supports that keep as many inputs in every window.

    Parameters
    ----------
    problem : a layer, with drift or without; e0 is left out
    keep : (rows, windows) inputs that stay; a row of `in` inputs is cut into windows of equal width
    iters : proximal steps (5) for each D
    ascents : changes of D by (6), each for the mean slope of sampled rows; each costs a few factorisations of H
    sample : rows, spread evenly, on which D is chosen; the others meet only the best one

    Returns
    -------
    Bound
        The best dual value b(q) of each row with its rounding; -inf where rounding leaves no D of (1).

    Raises
    ------
    Refusal
        Where H is singular in float64.
    """
    H, rows = problem.H, len(problem.W0)
    at = np.unique(np.linspace(0, rows - 1, min(sample, rows)).astype(np.int64))
    part = problem.rows(at)
    best, most, chosen, w, inside = _nothing(len(at)), 0.0, None, None, equicorrelated(H)
    for n in range(ascents + 1):
        d = proved(H, inside)
        if not (d > 0).all():
            break
        found = relax(part, d, keep[at], iters, w)
        if chosen is None or found.bound.proved.sum() > most:
            most, chosen = found.bound.proved.sum(), d
        best, w = best.or_better(found.bound), found.w
        if n < ascents:
            slope = steepness(found).mean(axis=0)
            inside = ascended(H, 0.99 * d, slope, float(slope @ d) / len(d) / 4 ** (n + 1) or 1.0)
    if chosen is None:
        return _nothing(rows)
    return best if len(at) == rows else relax(problem, chosen, keep, iters).bound


def _nothing(rows: int) -> Bound:
    return Bound(np.full(rows, -np.inf), np.zeros(rows))


def steepness(k: Relaxed) -> Array:
    """e of (6) for every row, zero where w is."""
    return np.divide(np.square(k.w) * (1 - k.z), 2 * k.z, out=np.zeros_like(k.w), where=k.z > 0)
