"""Exchanges of many rows at once: one tableau for each row, one rank-two update for each exchange.

Letters as in `solvers.swaps`. The tableau of a row is T = [A | B], (k, k + m); i is the kept input at place a, j the
removed one at place k + b; e_a, e_b have a one at those places. The gains (1) there are, where s_j > 0,

2 gain_ij = p_j^2 - (w_i + B_ij p_j / sqrt(s_j))^2 / (A_ii + B_ij^2 / s_j),   p_j = g_j / sqrt(s_j)                (1)

so that the best i for a j is where the fraction is least. The exchange (2)-(4) there is one product: beta_a = 1 and
alpha_a = 0 would clear row a and both columns, and what belongs there is a combination of what is at hand.

T <- T - beta' (T_a: + e_b') - alpha' ([B_:b' | -C_j:] - e_a'),   beta'_a = 1 - B_ij / d,  alpha'_a = A_ii / d     (2)

and beta', alpha' equal to beta, alpha elsewhere. With t = (B_ij w_i - A_ii g_j) / d and v = (B_ij g_j + s_j w_i) / d

w_S <- w_S - B_:j t - A_:i v - A g_S,   w_j = t                                                                    (3)

where g_S = 0 but for the rounding of the step before, which (3) takes back: with a tableau in float32 the weights,
gradients and accepted gains are still those of float64. Supports of unlike sizes share a batch. A place that holds no
input holds number n, whose weight, gradient and Gram are zero; its A is zero, and it has no pair.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from solvers.array import Place, inverse, into, to_numpy
from solvers.linalg import cholesky, gamma
from solvers.problem import LayerProblem


class State(NamedTuple):
    """A batch of rows, each at the refit on its support, and the best exchange of each; float64 but for T and s."""

    places: Any  # (rows, k + m) the input at every place, kept ones first
    at: Any  # (rows, n + 1) the place of every input
    a: Any  # (rows, q) places of the q pairs that the budget allows, -1 where it allows less; q = 0 for all pairs
    b: Any
    T: Any  # (rows, k, k + m)
    s: Any  # (rows, m)
    w: Any  # (rows, n + 1), as w0, the drift r and the gradient g
    g: Any
    w0: Any
    r: Any
    best: Any  # (rows, 3) the gain of the best exchange by the tableau, its a and its b


class Tableau:
    """The Gram of a layer where the twin computes, padded by input n, with scratch for `block` rows of a batch."""

    def __init__(self, problem: LayerProblem, place: Place, K: int, M: int, block: int) -> None:
        xp, n = place.xp, len(problem.H)
        H = np.zeros((n + 1, n + 1))
        H[:n, :n] = problem.H
        self.xp, self.device, self.K, self.n, self.block = xp, place.device, K, n, block
        self.dtype, self.unit = getattr(xp, place.dtype), float(np.finfo(place.dtype).eps) / 2
        self.H, self.narrow = self.put(H), xp.reshape(place.put(H), (-1,))
        self.diagonal, self.norms = self.put(np.diag(H)), self.put(np.sqrt(np.diag(H)))
        self.order, self.inputs = self.put(np.arange(K + M)), self.put(np.arange(n + 1))
        self.scratch = xp.empty((block, K, K + M), dtype=self.dtype, device=self.device)
        self.columns = [xp.empty((block, K, M), dtype=self.dtype, device=self.device) for _ in range(2)]

    def put(self, values: Any) -> Any:
        """A copy of NumPy values, on the device."""
        return self.xp.asarray(np.ascontiguousarray(values), device=self.device, copy=True)

    def pick(self, values: Any, places: Any) -> Any:
        """values[r, places[r, ...]] for every row r of the batch."""
        xp, (rows, width) = self.xp, values.shape
        first = xp.arange(rows, device=self.device) * width
        flat = places + (first if places.ndim == 1 else first[:, None])
        return xp.reshape(xp.take(xp.reshape(values, (-1,)), xp.reshape(flat, (-1,)), axis=0), places.shape)

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
    H = L.entries(xp.reshape(L.H, (-1,)), kept[:, :, None], places[:, None, :])
    empty = xp.astype(kept == L.n, xp.float64)[:, :, None] * xp.eye(K, dtype=xp.float64, device=L.device)
    H_SS, cross = H[:, :, :K] + empty, H[:, :, K:]
    A, failed = inverse(H_SS)
    for q in failed:
        cholesky(to_numpy(H_SS[q, :, :], "gram"), f"the Gram on the support of row {names[q]}")
    A = A - empty
    B = xp.matmul(A, cross)
    s = xp.clip(L.diagonal_at(removed) - xp.sum(cross * B, axis=1), 0.0)
    w_S = L.pick(w0, kept) + _times(xp, B, L.pick(w0, removed)) - _times(xp, A, L.pick(r, kept))
    w = L.pick(xp.concat([w_S, xp.zeros_like(s)], axis=1), at)
    g = L.gradient(w, w0, r)
    T = xp.concat([A, B], axis=2)
    best = best_pair(L, T, s, places, L.pick(w, kept), L.pick(g, removed), a, b)
    return State(places, at, a, b, xp.astype(T, L.dtype), xp.astype(s, L.dtype), w, g, w0, r, best)


def exchange(L: Tableau, k: State) -> tuple[State, Any]:
    """Every row after its best exchange, and (rows, 2) the decrease of f that it brings and what rounding may add."""
    xp, K, rows = L.xp, L.K, k.places.shape[0]
    a, b = xp.astype(k.best[:, 1], xp.int64), xp.astype(k.best[:, 2], xp.int64)
    A, B, (_, _, width) = k.T[:, :, :K], k.T[:, :, K:], k.T.shape
    first = xp.arange(rows, device=L.device)
    T_a = xp.take(xp.reshape(k.T, (-1, width)), first * K + a, axis=0)
    down = (first[:, None] * K + L.order[None, :K]) * width + (K + b)[:, None]
    B_b = xp.reshape(xp.take(xp.reshape(k.T, (-1,)), xp.reshape(down, (-1,)), axis=0), (rows, K))
    i, j = L.pick(k.places, a), L.pick(k.places, K + b)
    A_aa, B_ab, s_b = (x[:, None] for x in (L.pick(T_a, a), L.pick(T_a, K + b), L.pick(k.s, b)))
    A_a, B_a, d = T_a[:, :K], T_a[:, K:], A_aa * s_b + B_ab**2
    alpha, beta = (A_a * B_ab - A_aa * B_b) / d, (A_a * s_b + B_b * B_ab) / d
    h = L.entries(L.narrow, j[:, None], k.places)
    C = h[:, K:] - xp.matmul(h[:, None, :K], B)[:, 0, :]
    at_a, at_b = L.order[None, :] == a[:, None], L.order[None, :] == (K + b)[:, None]
    s = xp.clip(k.s + (s_b * B_a**2 - 2 * B_ab * B_a * C - A_aa * C**2) / d, 0.0)
    s = xp.where(at_b[:, K:], s_b / d, s)
    w, g, judged = _moved(L, k, (i, j), (A, A_a, B_b, at_b), (A_aa, B_ab, s_b, d))
    places = xp.where(at_a, j[:, None], xp.where(at_b, i[:, None], k.places))
    at_i, at_j = (L.inputs[None, :] == x[:, None] for x in (i, j))
    at = xp.where(at_i, (K + b)[:, None], xp.where(at_j, a[:, None], k.at))
    down = xp.concat([B_b, xp.where(at_b[:, K:], -s_b, -C)], axis=1)
    left = xp.stack([xp.where(at_a[:, :K], 1 - B_ab / d, beta), xp.where(at_a[:, :K], A_aa / d, alpha)], axis=2)
    right = xp.stack([xp.where(at_b, T_a + 1, T_a), xp.where(at_a, down - 1, down)], axis=1)
    w_S, g_c = L.pick(w, places[:, :K]), L.pick(g, places[:, K:])
    best = update(L, k.T, left, right, (s, places, w_S, g_c, k.a, k.b))
    return State(places, at, k.a, k.b, k.T, s, w, g, k.w0, k.r, best), judged


def update(L: Tableau, T: Any, left: Any, right: Any, row: tuple[Any, ...]) -> Any:
    """The exchange (2), written over T, and the best pairs after it: block by block, while a block is in the cache."""
    found = []
    for lo in range(0, T.shape[0], L.block):
        hi = min(lo + L.block, T.shape[0])
        T[lo:hi, ...] -= into(L.xp.matmul, left[lo:hi, ...], right[lo:hi, ...], out=L.scratch[: hi - lo, ...])  # (2)
        found.append(best_pair(L, T[lo:hi, ...], *(x[lo:hi, ...] for x in row)))
    return L.xp.concat(found, axis=0)


def _moved(L: Tableau, k: State, swapped: Any, sides: Any, scalars: Any) -> tuple[Any, Any, Any]:
    """Weights and gradients after the step (3), with the decrease of f in the difference form of `solvers.swaps`."""
    xp, K, (i, j), (A, A_a, B_b, at_b) = L.xp, L.K, swapped, sides
    A_aa, B_ab, s_b, d = (xp.astype(x, xp.float64) for x in scalars)
    w_i, g_j = L.pick(k.w, i)[:, None], L.pick(k.g, j)[:, None]
    t, v = (B_ab * w_i - A_aa * g_j) / d, (B_ab * g_j + s_b * w_i) / d
    back = _times(xp, A, xp.astype(L.pick(k.g, k.places[:, :K]), L.dtype))
    step = xp.astype(B_b, xp.float64) * t + xp.astype(A_a, xp.float64) * v + xp.astype(back, xp.float64)
    move = L.pick(xp.concat([-step, xp.where(at_b[:, K:], t, xp.zeros_like(t))], axis=1), k.at)  # (3)
    move = xp.where(L.inputs[None, :] == i[:, None], -k.w, move)
    w = k.w + move
    g = L.gradient(w, k.w0, k.r)
    gain = -xp.sum((k.g + g) * move, axis=1) / 2
    size = xp.abs(move)
    reach = xp.sum((xp.abs(k.w - k.w0) + xp.abs(w - k.w0)) * L.norms, axis=1)
    terms = reach * xp.sum(size * L.norms, axis=1) + 2 * xp.sum(xp.abs(k.r) * size, axis=1)
    return w, g, xp.stack([gain, gamma(4 * (L.n + 8)) * terms / 2], axis=1)


def best_pair(L: Tableau, T: Any, s: Any, places: Any, w_S: Any, g_c: Any, a: Any, b: Any) -> Any:
    """(rows, 3) the largest gain of a pair that the budget allows, its a and its b."""
    xp, K = L.xp, L.K
    removed = places[:, K:]
    w, g = xp.astype(w_S, T.dtype), xp.astype(g_c, T.dtype)
    diagonal = xp.linalg.diagonal(T[:, :, :K])
    if a.shape[1]:
        gain = _gains_of(L, T, s, places, diagonal, w, g, a, b)
        at = xp.argmax(gain, axis=1)
        chosen = (L.pick(gain, at), L.pick(a, at), L.pick(b, at))
        return xp.stack([xp.astype(x, xp.float64) for x in chosen], axis=1)
    h = xp.astype(L.diagonal_at(removed), T.dtype)
    nearly = s <= 4 * L.unit**0.5 * h
    if T.dtype == L.dtype and not xp.any(nearly & (removed != L.n)):
        return _by_columns(L, T, xp.where(nearly, xp.zeros_like(s), 1 / xp.sqrt(s)), places, diagonal, w, g)
    gain = pair_gains(L, T[:, :, K:], s[:, None, :], h[:, None, :], diagonal[:, :, None], w[:, :, None], g[:, None, :])
    return _largest(L, xp.where((places[:, :K] == L.n)[:, :, None], -xp.inf, gain))


def pair_gains(L: Tableau, B: Any, s: Any, h: Any, diagonal: Any, w: Any, g: Any) -> Any:
    """The gains (1) of `solvers.swaps` over the common denominator; -inf where that is rounding."""
    xp, unit = L.xp, float(np.finfo(np.float64).eps) / 2 if B.dtype == L.xp.float64 else L.unit
    d = diagonal * s + B * B
    gain = diagonal * (g * g) - 2 * B * (w * g) - s * (w * w)
    possible = d > L.n * unit / (1 - L.n * unit) * diagonal * h
    return xp.where(possible, gain / xp.where(possible, 2 * d, xp.ones_like(d)), -xp.inf)


def _gains_of(L: Tableau, T: Any, s: Any, places: Any, diagonal: Any, w: Any, g: Any, a: Any, b: Any) -> Any:
    xp, (rows, K, width) = L.xp, T.shape
    listed = a >= 0
    a, b = xp.where(listed, a, 0), xp.where(listed, b, 0)
    flat = (xp.arange(rows, device=L.device)[:, None] * K + a) * width + K + b
    B = xp.reshape(xp.take(xp.reshape(T, (-1,)), xp.reshape(flat, (-1,)), axis=0), a.shape)
    h = xp.astype(L.diagonal_at(L.pick(places, K + b)), T.dtype)
    gain = pair_gains(L, B, L.pick(s, b), h, L.pick(diagonal, a), L.pick(w, a), L.pick(g, b))
    return xp.where(listed, gain, -xp.inf)


def _by_columns(L: Tableau, T: Any, root: Any, places: Any, diagonal: Any, w: Any, g: Any) -> Any:
    """The best pair by (1); `root` is 1 / sqrt(s), and 0 where there is no input."""
    xp, K, (rows, _, width) = L.xp, L.K, T.shape
    empty, p = places[:, :K] == L.n, g * root
    w = xp.where(empty, xp.inf, w)
    F, D = (x[:rows, ...] for x in L.columns)
    F = into(xp.multiply, T[:, :, K:], root[:, None, :], out=F)
    D = into(xp.multiply, F, F, out=D)
    D += xp.where(empty, xp.ones_like(diagonal), diagonal)[:, :, None]
    F *= p[:, None, :]
    F += w[:, :, None]
    F *= F
    F /= D
    gain = p * p - xp.min(F, axis=1)  # (1)
    b = xp.argmax(gain, axis=1)
    down = xp.arange(rows * K, device=L.device) * (width - K) + xp.reshape(
        xp.broadcast_to(b[:, None], (rows, K)), (-1,)
    )
    a = xp.argmin(xp.reshape(xp.take(xp.reshape(F, (-1,)), down, axis=0), (rows, K)), axis=1)
    return xp.stack([xp.astype(x, xp.float64) for x in (L.pick(gain, b) / 2, a, b)], axis=1)


def _largest(L: Tableau, gain: Any) -> Any:
    xp, (rows, _, M) = L.xp, gain.shape
    flat = xp.reshape(gain, (rows, -1))
    at = xp.argmax(flat, axis=1)
    return xp.stack([xp.astype(x, xp.float64) for x in (L.pick(flat, at), at // M, at % M)], axis=1)


def _times(xp: Any, A: Any, x: Any) -> Any:
    """A_r x_r for every row r of the batch."""
    return xp.matmul(A, x[:, :, None])[:, :, 0]
