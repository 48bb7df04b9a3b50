"""Exchanges of many rows at once: one tableau for each row, one thin product for each exchange, few pairs looked at.

Letters as in `solvers.swaps`. The tableau of a row is T = [A; B'], (k + m, k); i is the kept input at place a, j the
removed one at place k + b; e_a, e_b have a one at those places. The gains (1) there are, where s_j > 0,

2 gain_ij = p_j^2 - (w_i + B_ij p_j / sqrt(s_j))^2 / (A_ii + B_ij^2 / s_j) <= p_j^2,   p_j = g_j / sqrt(s_j)      (1)

so that the removed inputs are tried in the order of p_j^2, until what was found is no less than what is left. The
exchange (2)-(4) there is one product: beta_a = 1 and alpha_a = 0 would clear row a, column a and row b, and what
belongs there is a combination of what is at hand.

T <- T - (T_:a + e_b) y' - ([B_:b; -C_j:'] - e_a) x',   y_a = 1 - B_ij / d,   x_a = A_ii / d                     (2)

and y, x equal to beta, alpha elsewhere. With t = (B_ij w_i - A_ii g_j) / d and v = (B_ij g_j + s_j w_i) / d

w_S <- w_S - B_:j t - A_:i v - A g_S,   w_j = t                                                                   (3)

where g_S = 0 but for the rounding of the step before, which (3) takes back: with a tableau in float32 the weights,
gradients and accepted gains are still those of float64. Supports of unlike sizes share a batch. A place that holds no
input holds number n, whose weight, gradient and Gram are zero; its A is zero, and it has no pair.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from solvers.array import Place, inverse, replace_rows, subtract_product, to_numpy
from solvers.linalg import cholesky, gamma
from solvers.problem import LayerProblem
from solvers.sparsity import Array

SHARE = 16  # the part of the removed inputs that is tried first: one of so many


class State(NamedTuple):
    """A batch of rows, each at the refit on its support, and the best exchange of each; float64 but for T and s."""

    places: Any  # (rows, k + m) the input at every place, kept ones first
    at: Any  # (rows, n + 1) the place of every input
    a: Any  # (rows, q) places of the q pairs that the budget allows, -1 where it allows less; q = 0 for all pairs
    b: Any
    w0: Any  # (rows, n + 1), as the drift r, the weight w and the gradient g
    r: Any
    w: Any
    g: Any
    T: Any  # (rows, k + m, k)
    s: Any  # (rows, m)
    best: Any  # (rows, 3) the gain of the best exchange by the tableau, its a and its b
    fresh_w: Any  # (rows, n + 1) w and g at the last fresh factorisation
    fresh_g: Any


class Tableau:
    """The Gram of a layer where the twin computes, padded by input n; at most `block` rows are started at once."""

    def __init__(self, problem: LayerProblem, place: Place, K: int, M: int, block: int) -> None:
        xp, n = place.xp, len(problem.H)
        H = np.zeros((n + 1, n + 1))
        H[:n, :n] = problem.H
        self.xp, self.device, self.K, self.M, self.n, self.block = xp, place.device, K, M, n, block
        self.dtype = getattr(xp, place.dtype)
        self.H, self.narrow = self.put(H), xp.reshape(place.put(H), (-1,))
        self.diagonal, self.norms = self.put(np.diag(H)), self.put(np.sqrt(np.diag(H)))
        self.order, self.inputs = self.put(np.arange(K + M)), self.put(np.arange(n + 1))

    def put(self, values: Any) -> Any:
        """A copy of NumPy values, on the device."""
        return self.xp.asarray(np.ascontiguousarray(values), device=self.device, copy=True)

    def pick(self, values: Any, places: Any) -> Any:
        """values[r, places[r, :]] for every row r of the batch; values may have more axes."""
        xp, (rows, width) = self.xp, values.shape[:2]
        flat = xp.reshape(places + xp.arange(0, rows * width, width, device=self.device)[:, None], (-1,))
        picked = xp.take(xp.reshape(values, (rows * width, *values.shape[2:])), flat, axis=0)
        return xp.reshape(picked, (*places.shape, *values.shape[2:]))

    def column(self, T: Any, a: Any) -> Any:
        """T[r, :, a[r, 0]] for every row r of the batch."""
        rows, width, K = T.shape
        return self.pick(self.xp.reshape(T, (rows, width * K)), a + K * self.order)

    def entries(self, H: Any, rows: Any, columns: Any) -> Any:
        """H[rows, columns] of a flat (n + 1, n + 1) matrix, with the shape that both broadcast to."""
        flat = rows * (self.n + 1) + columns
        return self.xp.reshape(self.xp.take(H, self.xp.reshape(flat, (-1,)), axis=0), flat.shape)

    def diagonal_at(self, places: Any) -> Any:
        """H_ii of the input i at every place."""
        return self.xp.reshape(self.xp.take(self.diagonal, self.xp.reshape(places, (-1,)), axis=0), places.shape)

    def gradient(self, w: Any, w0: Any, r: Any) -> Any:
        """(w - w0) H + r."""
        return self.xp.matmul(w - w0, self.H) + r


def start(L: Tableau, names: Any, places: Any, at: Any, a: Any, b: Any, w0: Any, r: Any) -> State:
    """The refit on the supports from a fresh factorisation in float64, and the best exchange by its gains in float64.

    `names` are the numbers of the rows in the layer, for the refusal of a singular Gram.
    """
    xp, K = L.xp, L.K
    kept, removed = places[:, :K], places[:, K:]
    H = L.entries(xp.reshape(L.H, (-1,)), places[:, :, None], kept[:, None, :])
    H_SS, cross, none = H[:, :K, :], H[:, K:, :], bool(xp.any(kept == L.n))
    if none:
        empty = xp.astype(kept == L.n, xp.float64)[:, :, None] * xp.eye(K, dtype=xp.float64, device=L.device)
        H_SS = H_SS + empty
    A, failed = inverse(H_SS)
    if failed:
        A = L.put(np.stack([_inverse_or_refusal(to_numpy(H_SS[q, :, :], "gram"), names[q]) for q in range(len(names))]))
    A = A - empty if none else A
    B = xp.matmul(cross, A)
    s = xp.clip(L.diagonal_at(removed) - xp.vecdot(cross, B), 0.0)
    shift = L.pick(w0, removed)[:, None, :]
    w_S = L.pick(w0, kept) + xp.matmul(shift, B)[:, 0, :] - xp.matmul(L.pick(r, kept)[:, None, :], A)[:, 0, :]
    w = L.pick(xp.concat([w_S, xp.zeros_like(s)], axis=1), at)
    g = L.gradient(w, w0, r)
    T = xp.concat([A, B], axis=1)
    best = best_pair(L, T, s, places, w_S, L.pick(g, removed), a, b)
    return State(places, at, a, b, w0, r, w, g, xp.astype(T, L.dtype), xp.astype(s, L.dtype), best, w, g)


def _inverse_or_refusal(H_SS: Array, name: int) -> Array:
    factor = cholesky(H_SS, f"the Gram on the support of row {name}")
    inverted: Array = scipy.linalg.cho_solve(factor, np.eye(len(H_SS)), check_finite=False)
    return inverted


def exchange(L: Tableau, k: State) -> tuple[State, Any]:
    """Every row after its best exchange, and (rows, 2) the decrease of f that it brings and what rounding may add.

    The tableau is written over.
    """
    xp, K, T = L.xp, L.K, k.T
    a, b = xp.astype(k.best[:, 1:2], xp.int64), xp.astype(k.best[:, 2:], xp.int64)
    both = xp.concat([a, K + b], axis=1)
    T_a, B_b = L.column(T, a), L.pick(T, K + b)[:, 0, :]
    pivot, inputs, s_b = L.pick(T_a, both), L.pick(k.places, both), L.pick(k.s, b)
    i, j, A_aa, B_ab = inputs[:, :1], inputs[:, 1:], pivot[:, :1], pivot[:, 1:]
    A_a, B_a, d = T_a[:, :K], T_a[:, K:], A_aa * s_b + B_ab * B_ab
    alpha, beta = (A_a * B_ab - A_aa * B_b) / d, (A_a * s_b + B_b * B_ab) / d
    h = L.entries(L.narrow, j, k.places)
    C = h[:, K:] - xp.matmul(T[:, K:, :], h[:, :K, None])[:, :, 0]
    at_a, at_b = L.order == a, L.order == K + b
    in_a, in_b = at_a[:, :K], at_b[:, K:]
    w, g, judged = _moved(L, k, (i, j), (A_a, B_b, in_b), (A_aa, B_ab, s_b, d))
    s = xp.clip(k.s + (s_b * B_a * B_a - (2 * B_ab * B_a + A_aa * C) * C) / d, 0.0)
    s = xp.where(in_b, s_b / d, s)
    down = xp.concat([B_b, xp.where(in_b, -s_b, -C)], axis=1)
    left = xp.stack([xp.where(at_b, T_a + 1, T_a), xp.where(at_a, down - 1, down)], axis=2)
    right = xp.stack([xp.where(in_a, 1 - B_ab / d, beta), xp.where(in_a, A_aa / d, alpha)], axis=1)
    T = subtract_product(T, left, right)  # (2)
    places = xp.where(at_a, j, xp.where(at_b, i, k.places))
    at = xp.where(L.inputs == i, K + b, xp.where(L.inputs == j, a, k.at))
    best = best_pair(L, T, s, places, L.pick(w, places[:, :K]), L.pick(g, places[:, K:]), k.a, k.b)
    return State(places, at, k.a, k.b, k.w0, k.r, w, g, T, s, best, k.fresh_w, k.fresh_g), judged


def _moved(L: Tableau, k: State, swapped: Any, sides: Any, scalars: Any) -> tuple[Any, Any, Any]:
    """Weights and gradients after the step (3), with the decrease of f and its rounding."""
    xp, K, (i, j), (A_a, B_b, in_b) = L.xp, L.K, swapped, sides
    A_aa, B_ab, s_b, d, A_a, B_b = (xp.astype(x, xp.float64) for x in (*scalars, A_a, B_b))
    w_i, g_j = L.pick(k.w, i), L.pick(k.g, j)
    t, v = (B_ab * w_i - A_aa * g_j) / d, (B_ab * g_j + s_b * w_i) / d
    g_S = xp.astype(L.pick(k.g, k.places[:, :K]), L.dtype)
    back = xp.astype(xp.matmul(k.T[:, :K, :], g_S[:, :, None])[:, :, 0], xp.float64)
    move = L.pick(xp.concat([-B_b * t - A_a * v - back, xp.where(in_b, t, 0.0)], axis=1), k.at)  # (3)
    move = xp.where(L.inputs == i, -k.w, move)
    w = k.w + move
    g = L.gradient(w, k.w0, k.r)
    return w, g, decrease(L, k, k.w, k.g, w, g)


def decrease(L: Tableau, k: State, w: Any, g: Any, v: Any, h: Any) -> Any:
    """(rows, 2) f(w) - f(v), gradients g and h, in the difference form of `solvers.swaps`, and its rounding."""
    xp, move = L.xp, v - w
    gain, size = -xp.sum((g + h) * move, axis=1) / 2, xp.abs(move)
    reach = xp.sum((xp.abs(w - k.w0) + xp.abs(v - k.w0)) * L.norms, axis=1)
    terms = reach * xp.sum(size * L.norms, axis=1) + 2 * xp.sum(xp.abs(k.r) * size, axis=1)
    return xp.stack([gain, gamma(4 * (L.n + 8)) * terms / 2], axis=1)


def best_pair(L: Tableau, T: Any, s: Any, places: Any, w: Any, g: Any, a: Any, b: Any) -> Any:
    """(rows, 3) the gain of the best pair that the budget allows, its a and its b.

    `w` are the weights at kept and `g` the gradients at removed places.
    """
    xp, K, unit = L.xp, L.K, float(L.xp.finfo(T.dtype).eps) / 2
    kept, removed = places[:, :K], places[:, K:]
    w, g, h = xp.astype(w, T.dtype), xp.astype(g, T.dtype), xp.astype(L.diagonal_at(removed), T.dtype)
    A = xp.linalg.diagonal(T[:, :K, :])
    near = s <= 4 * unit**0.5 * h  # a copy of kept inputs, or no input
    if a.shape[1] or xp.any(near & (removed != L.n)):
        return _best_of(L, T, s, h, unit, A, xp.where(kept == L.n, xp.inf, w), g, a, b)
    root = xp.where(near, 0.0, 1 / xp.sqrt(xp.where(near, 1.0, s)))
    rows = (T, root, g * root, xp.where(kept == L.n, 1.0, A), xp.where(kept == L.n, xp.inf, w))
    return best_in_order(L, *rows)


def best_in_order(L: Tableau, T: Any, root: Any, p: Any, A: Any, w: Any) -> Any:
    """The best pair by (1): the removed inputs of the largest p_j^2, then all whose p_j^2 exceeds what those gain."""
    xp, K, (rows, M), bound = L.xp, L.K, p.shape, p * p
    first = xp.argsort(bound, axis=1, descending=True, stable=False)[:, : max(1, M // SHARE)]
    gain = xp.full((rows * M,), -xp.inf, dtype=T.dtype, device=L.device)
    flat = xp.reshape(first + xp.arange(0, rows * M, M, device=L.device)[:, None], (-1,))
    _try(L, gain, flat, T, root, p, A, w)
    best = xp.max(xp.reshape(gain, (rows, M)), axis=1, keepdims=True)
    (flat,) = xp.nonzero(xp.reshape(bound > best, (-1,)) & (gain == -xp.inf))
    _try(L, gain, flat, T, root, p, A, w)
    gain = xp.reshape(gain, (rows, M))
    b = xp.argmax(gain, axis=1)[:, None]
    F = L.pick(T, K + b)[:, 0, :] * L.pick(root, b)
    a = xp.argmin((F * L.pick(p, b) + w) ** 2 / (F * F + A), axis=1)[:, None]
    return xp.concat([xp.astype(x, xp.float64) for x in (L.pick(gain, b) / 2, a, b)], axis=1)


def _try(L: Tableau, gain: Any, flat: Any, T: Any, root: Any, p: Any, A: Any, w: Any) -> None:
    """Twice the gains (1) of removed inputs, each with its best i, by their places in the flat (rows, m) `gain`."""
    xp, (_, width, K), M = L.xp, T.shape, p.shape[1]
    at_once = max(1, L.block * M // 2)
    for lo in range(0, flat.shape[0], at_once):
        part = flat[lo : min(lo + at_once, flat.shape[0])]
        row, j = part // M, part % M
        p_j = xp.take(xp.reshape(p, (-1,)), part, axis=0)
        B = xp.take(xp.reshape(T, (-1, K)), row * width + K + j, axis=0)
        B *= xp.take(xp.reshape(root, (-1,)), part, axis=0)[:, None]
        F = B * p_j[:, None]
        F += xp.take(w, row, axis=0)
        F *= F
        B *= B
        B += xp.take(A, row, axis=0)
        F /= B
        replace_rows(gain, part, p_j * p_j - xp.min(F, axis=1))


def _best_of(L: Tableau, T: Any, s: Any, h: Any, unit: float, A: Any, w: Any, g: Any, a: Any, b: Any) -> Any:
    """The best of listed pairs, or of all where some s_j is nearly 0, by gains over the common denominator."""
    xp, (rows, width, K) = L.xp, T.shape
    if not a.shape[1]:
        gain = pair_gains(
            xp, T[:, K:, :], s[:, :, None], h[:, :, None], unit, A[:, None, :], w[:, None, :], g[:, :, None]
        )
        gain = xp.reshape(gain, (rows, -1))
        at = xp.argmax(gain, axis=1)[:, None]
        chosen = (L.pick(gain, at), at % K, at // K)
    else:
        listed = a >= 0
        a, b = xp.where(listed, a, 0), xp.where(listed, b, 0)
        B = L.pick(xp.reshape(T, (rows, width * K)), (K + b) * K + a)
        gain = pair_gains(xp, B, L.pick(s, b), L.pick(h, b), unit, L.pick(A, a), L.pick(w, a), L.pick(g, b))
        gain = xp.where(listed, gain, -xp.inf)
        at = xp.argmax(gain, axis=1)[:, None]
        chosen = (L.pick(gain, at), L.pick(a, at), L.pick(b, at))
    return xp.concat([xp.astype(x, xp.float64) for x in chosen], axis=1)


def pair_gains(xp: Any, B: Any, s: Any, h: Any, unit: float, A: Any, w: Any, g: Any) -> Any:
    """The gains (1) of `solvers.swaps`; -inf where their denominator is rounding, and where w marks no input."""
    rounding, d = B.shape[-1] * unit, A * s + B * B
    possible = (d > rounding / (1 - rounding) * A * h) & (w < xp.inf)
    w = xp.where(w < xp.inf, w, 0.0)
    gain = A * (g * g) - 2 * B * (w * g) - s * (w * w)
    return xp.where(possible, gain / xp.where(possible, 2 * d, 1.0), -xp.inf)
