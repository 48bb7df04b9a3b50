"""Exchanges of one kept for one removed input, with exact refit, until none lowers f: 1-swap optimal supports.

One row: S its support, c the rest, w the refit on S, g = grad f(w), A = H_SS^-1, B = A H_Sc, s = diag(H_cc - H_cS B).
Adding j lowers the least value of f by g_j^2 / 2 s_j; dropping i then costs w_i^2 / 2 [(H_S+j,S+j)^-1]_ii with the
weights and the inverse after the addition. Over a common denominator, for all pairs at once,

gain_ij = (A_ii g_j^2 - 2 B_ij w_i g_j - s_j w_i^2) / 2 d_ij,   d_ij = A_ii s_j + B_ij^2                        (1)

d_ij = det H_S'S' / det H_SS: a copy of a kept input (s_j = 0) may take its place, and where d_ij is rounding no pair
exists. The exchange itself is a principal pivot on the pair; j takes the place of i in A, B and w, and i that of j:

alpha = (A_:i B_ij - A_ii B_:j) / d,   beta = (A_:i s_j + B_:j B_ij) / d,   C_j: = H_jc - H_jS B                 (2)
A <- A - beta A_i: - alpha B_:j',      A_:i <- alpha,    A_ii <- A_ii / d                                       (3)
B <- B - beta B_i: + alpha C_j:,       B_:j <- -beta,    B_i: <- (B_ij B_i: + A_ii C_j:) / d,   B_ij <- B_ij / d   (4)
s <- s + (s_j B_i:^2 - 2 B_ij B_i: C_j: - A_ii C_j:^2) / d,   s_j <- s_j / d                                    (5)
w_S <- w_S - alpha g_j - beta w_i,     w_j = (B_ij w_i - A_ii g_j) / d                                          (6)

An exchange is made only if f falls by more than rounding in the difference form, <g(w) + g(v), v - w> / 2, and a row
goes on from a fresh factorisation only if f fell since the last one. So f is monotone whatever the error of an inverse,
no refit returns, and the steps are finitely many.
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg

from solvers.linalg import cholesky, gamma
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import L0, Array, KeepNofM, KeepPerLayer, KeepPerRow, Mask, Sparsity

Places = npt.NDArray[np.int64]


class State(NamedTuple):
    """A row at the refit on its support; `kept` (k,) and `removed` (m,) name the inputs behind the places."""

    kept: Places
    removed: Places
    A: Array  # (k, k)
    B: Array  # (k, m)
    s: Array  # (m,)
    w: Array  # (in,)
    g: Array  # (in,)


def start(problem: LayerProblem, row: int, kept: Places, removed: Places) -> State:
    """The refit on a support, from a fresh factorisation: w_S = w0_S + B w0_c - A r_S."""
    H, w0, r = problem.H, problem.W0[row], _drift(problem, row)
    cross = H[np.ix_(kept, removed)]
    factor = cholesky(H[np.ix_(kept, kept)], f"the Gram on the support of row {row}")
    A = scipy.linalg.cho_solve(factor, np.eye(len(kept)), check_finite=False)
    B = scipy.linalg.cho_solve(factor, cross, check_finite=False)
    s = np.maximum(np.diag(H)[removed] - (cross * B).sum(axis=0), 0.0)
    w = np.zeros_like(w0)
    w[kept] = w0[kept] + B @ w0[removed] - A @ r[kept]
    return State(kept, removed, (A + A.T) / 2, B, s, w, (w - w0) @ H + r)


def pair_gains(problem: LayerProblem, k: State) -> Array:
    """(k, m) gains (1) of exchanging every kept for every removed input; -inf where d is rounding."""
    diagonal, w, g = np.diag(k.A)[:, None], k.w[k.kept][:, None], k.g[k.removed]
    d = diagonal * k.s + np.square(k.B)
    least = gamma(len(problem.H)) * diagonal * np.diag(problem.H)[k.removed]
    gain = diagonal * np.square(g) - 2 * k.B * (w * g) - k.s * np.square(w)  # (1)
    return np.divide(gain, 2 * d, out=np.full_like(d, -np.inf), where=d > least)


def step(problem: LayerProblem, row: int, k: State, a: int, b: int) -> State:
    """The row after the exchange of the kept input at place `a` for the removed one at place `b`."""
    i, j = k.kept[a], k.removed[b]
    A_a, B_a, B_b, A_aa, B_ab, s_b = k.A[:, a], k.B[a], k.B[:, b], k.A[a, a], k.B[a, b], k.s[b]
    d = A_aa * s_b + B_ab**2
    alpha, beta = (A_a * B_ab - A_aa * B_b) / d, (A_a * s_b + B_b * B_ab) / d  # (2)
    C = problem.H[j, k.removed] - problem.H[j, k.kept] @ k.B
    sides = np.stack([beta, alpha], axis=1)
    A, B = k.A - sides @ np.stack([A_a, B_b]), k.B - sides @ np.stack([B_a, -C])
    A[a], A[:, a], A[a, a] = alpha, alpha, A_aa / d  # (3)
    B[:, b], B[a], B[a, b] = -beta, (B_ab * B_a + A_aa * C) / d, B_ab / d  # (4)
    s = np.maximum(k.s + (s_b * B_a**2 - 2 * B_ab * B_a * C - A_aa * C**2) / d, 0.0)  # (5)
    s[b] = s_b / d
    w, kept, removed = k.w.copy(), k.kept.copy(), k.removed.copy()
    w[kept] -= alpha * k.g[j] + beta * k.w[i]  # (6)
    w[i], w[j] = 0.0, (B_ab * k.w[i] - A_aa * k.g[j]) / d
    kept[a], removed[b] = j, i
    return State(kept, removed, A, B, s, w, (w - problem.W0[row]) @ problem.H + _drift(problem, row))


def decrease(problem: LayerProblem, row: int, k: State, after: State) -> tuple[float, float]:
    """f(w) - f(v) in the difference form, and what rounding may add: |H_ij| <= sqrt(H_ii H_jj) bounds its terms."""
    d, norms = after.w - k.w, np.sqrt(np.diag(problem.H))
    reach = float((np.abs(k.w - problem.W0[row]) + np.abs(after.w - problem.W0[row])) @ norms)
    terms = reach * float(np.abs(d) @ norms) + 2 * float(np.abs(_drift(problem, row)) @ np.abs(d))
    return -float((k.g + after.g) @ d) / 2, gamma(4 * (len(d) + 8)) * terms / 2


def exchangeable(sparsity: Sparsity, k: State) -> Mask | bool:
    """Which pairs keep every count of the budget: any pair of a row, under n:m the pairs of one window."""
    if isinstance(sparsity, KeepNofM):
        same: Mask = k.kept[:, None] // sparsity.of == k.removed // sparsity.of
        return same
    return True


def swap_row(problem: LayerProblem, sparsity: Sparsity, row: int, S: Mask, most: int | None) -> tuple[Array, Array]:
    """The best exchange of a row, again and again; returns the refitted row (in,) and the gain of every exchange.

    The inverse is factorised afresh after as many exchanges as there are kept inputs, which at most doubles the cost
    of an exchange, and before the row is said to have no improving exchange or its weights are handed back.
    """
    kept, removed = np.flatnonzero(S), np.flatnonzero(~S)
    if not len(kept):
        return np.zeros(len(S)), np.zeros(0)
    k = fresh = start(problem, row, kept, removed)
    age, gains = 0, list[float]()
    while len(removed) and len(gains) != most:
        promised = np.where(exchangeable(sparsity, k), pair_gains(problem, k), -np.inf)
        a, b = np.unravel_index(int(promised.argmax()), promised.shape)
        if promised[a, b] > 0:
            after = step(problem, row, k, int(a), int(b))
            gain, rounding = decrease(problem, row, k, after)
            if gain > rounding:
                k, age = after, age + 1
                gains.append(gain)
                if age < len(kept):
                    continue
        if age == 0:
            break
        last, fresh, age = fresh, start(problem, row, k.kept, k.removed), 0
        k = fresh
        gain, rounding = decrease(problem, row, last, fresh)
        if gain <= rounding:  # the inverse is too inexact to tell which exchanges improve
            break
    return (start(problem, row, k.kept, k.removed) if age else k).w, np.array(gains)


def swaps(problem: LayerProblem, sparsity: Sparsity, W: Array, n: int | None) -> tuple[Array, list[Array]]:
    """Improve the support of every row by its best exchanges of one kept for one removed input.

    Parameters
    ----------
    sparsity : KeepPerRow, KeepPerLayer or L0, any pair of a row; KeepNofM, pairs within a window. A row keeps its
        count, so a layer keeps its own: under KeepPerLayer no count moves from one row to another.
    W : (out, in) weights whose support is improved; their values do not matter
    n : exchanges that a row may make; None for as many as there are

    Returns
    -------
    W : (out, in) the least-squares weight on the new support, +0.0 off it
    gains : for every row the decrease of f by each exchange, in order; their sum is what the row gained over the
        refit on its first support. A row with fewer than n gains is 1-swap optimal.

    Raises
    ------
    Refusal
        If H on a support is singular in float64 (a ridge of 0 and too few tokens), or for another kind of sparsity.

    Notes
    -----
    Theory O4; the exact gain of a swap from the Gram is in SparseSwaps, arXiv 2512.10922, there without refit.
    """
    if not isinstance(sparsity, KeepPerRow | KeepPerLayer | KeepNofM | L0):
        raise Refusal(f"swaps exchange single inputs under 50%, 50%/layer, 2:4 or L0; got {sparsity}. Use swaps=0.")
    rows = [swap_row(problem, sparsity, row, S, n) for row, S in enumerate(W != 0)]
    return np.stack([w for w, _ in rows]), [gains for _, gains in rows]


def most_of(swaps: int | str) -> int | None:
    """The exchanges that a row may make: a number, or None for ``all``; anything else is refused."""
    if swaps == "all":
        return None
    text = str(int(swaps)) if isinstance(swaps, Integral) and not isinstance(swaps, bool) else str(swaps)
    if not text.isdecimal():
        raise Refusal(f"swaps is the number of exchanges that a row may make, 0 or more, or all; got {swaps!r}.")
    return int(text)


def _drift(problem: LayerProblem, row: int) -> Array:
    return np.zeros(len(problem.H)) if problem.R is None else problem.R[row]
