"""The concave penalty that drives a relaxed mask to {0, 1}, and the weight from which on it loses nothing.

    f(s) = <s - 1, Q (s - 1)> / 2 + lam sum s,   Q = diag(w0) H diag(w0)                          (1)
    f(s) + rho sum s_i (1 - s_i)  over  [0, 1]^p, or over {s in [0, 1]^p : sum s = k}             (2)

(1) is the layer's error when input i keeps the share s_i of its weight, plus a price per input kept. Letters: s a
mask of one row, relaxed; e_i - e_j an edge direction of the slice sum s = k. Relaxations of this kind with a penalty
are how structured pruning is cast as a continuous problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from solvers.sparsity import Array
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check, Rng

MOST = 10  # inputs of which all masks are visited
SWEEPS = 12  # over all coordinates or edges; each is minimised exactly


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Problem (1), (2): Q (p, p) positive semidefinite, price lam >= 0, penalty rho >= 0."""

    Q: Array
    lam: float = 0.0
    rho: float = 0.0

    @property
    def B(self) -> Array:
        """(p, p) the Hessian of (2)."""
        return np.asarray(self.Q - 2 * self.rho * np.eye(len(self.Q)))

    def grad(self, s: Array) -> Array:
        """(starts, p) gradient of (2) at the rows of s."""
        return np.asarray((s - 1) @ self.Q + self.lam + self.rho * (1 - 2 * s))

    def value(self, s: Array) -> Array:
        """(starts,) the objective (2) at the rows of s."""
        return np.asarray((((s - 1) @ self.Q) * (s - 1) / 2 + self.lam * s + self.rho * s * (1 - s)).sum(axis=1))

    @property
    def scale(self) -> float:
        """Magnitudes that meet in (2)."""
        return float(np.abs(self.Q).sum()) + (self.lam + self.rho) * len(self.Q)


def box_threshold(Q: Array) -> float:
    """1/2 max Q_ii: (2) is then concave along every coordinate."""
    return float(np.diag(Q).max()) / 2


def edge_threshold(Q: Array) -> float:
    """1/4 max_{i != j} (Q_ii + Q_jj - 2 Q_ij): (2) is then concave along every e_i - e_j."""
    d = np.diag(Q)
    curvature = d[:, None] + d - 2 * Q
    return float(curvature[~np.eye(len(Q), dtype=bool)].max()) / 4


def _line(slope: Array, curvature: float, low: Array, high: Array) -> Array:
    """argmin of slope t + curvature t^2 / 2 over [low, high], row by row."""
    if curvature > 0:
        return np.clip(-slope / curvature, low, high)
    ends = [slope * t + curvature * t**2 / 2 for t in (low, high)]
    return np.where(ends[0] <= ends[1], low, high)


def descend_box(problem: Relaxed, s: Array) -> Array:
    """(starts, p) coordinate descent on (2) over the box from every row of s."""
    s, B = s.copy(), problem.B
    for _, i in product(range(SWEEPS), range(s.shape[1])):
        s[:, i] = np.clip(s[:, i] + _line(problem.grad(s)[:, i], float(B[i, i]), -s[:, i], 1 - s[:, i]), 0.0, 1.0)
    return s


def descend_edges(problem: Relaxed, s: Array) -> Array:
    """(starts, p) descent on (2) along all e_i - e_j: the sum of every row stays."""
    s, B = s.copy(), problem.B
    for _, (i, j) in product(range(SWEEPS), combinations(range(s.shape[1]), 2)):
        g = problem.grad(s)
        low, high = np.maximum(-s[:, i], s[:, j] - 1), np.minimum(1 - s[:, i], s[:, j])
        t = _line(g[:, i] - g[:, j], float(B[i, i] + B[j, j] - 2 * B[i, j]), low, high)
        s[:, i], s[:, j] = np.clip(s[:, i] + t, 0.0, 1.0), np.clip(s[:, j] - t, 0.0, 1.0)
    return s


def masks(p: int, sizes: range) -> Array:
    """(number, p) all 0-1 masks with one of the given counts."""
    rows = [np.isin(np.arange(p), kept) for k in sizes for kept in combinations(range(p), k)]
    return np.array(rows, dtype=np.float64)


def _judged(name: str, claim: str, problem: Relaxed, corners: Array, found: Array) -> Certificate:
    """min over masks <= min over relaxed points; the best mask is one of them, so both are equal where it holds."""
    least = float(problem.value(corners).min())
    reached = min(float(problem.value(found).min()), least)
    rounding = allowance(problem.scale, problem.Q.size)
    return Certificate(name, claim, "derived here", least, reached, rounding)


def binary_penalty_box(problem: Relaxed, starts: Array) -> Certificate:
    """With rho >= 1/2 max Q_ii no s in [0, 1]^p has a smaller penalised objective than the best s in {0, 1}^p.

    Assumptions: that rho, p <= 10. Why: along a coordinate the objective is concave, so one of the two ends is no
    worse. Measured: the least value over {0, 1}^p. Bound: the least found by coordinate descent from the rows of
    `starts` (starts, p). Where: derived here. Tight: p = 1, lam = Q / 2, where the objective is constant.
    """
    name, claim = "binary-penalty-box", "min over {0,1}^p <= f + rho sum s(1-s) on [0,1]^p, rho >= 1/2 max Q_ii"
    if reason := _outside(problem, box_threshold(problem.Q), len(problem.Q)):
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=reason)
    corners = masks(len(problem.Q), range(len(problem.Q) + 1))
    return _judged(name, claim, problem, corners, descend_box(problem, starts))


def binary_penalty_edge(problem: Relaxed, k: int, starts: Array) -> Certificate:
    """With sum s = k, rho >= 1/4 max_{i != j} (Q_ii + Q_jj - 2 Q_ij) makes the penalty exact in the same sense.

    Assumptions: that rho, 2 <= p <= 10. Why: along e_i - e_j the objective is concave, and a point with a fractional
    entry has two. The threshold is at most that of the box when no Q_ij is negative. `starts` sum to k. Where:
    derived here. Tight: p = 2, k = 1, Q = I.
    """
    name = "binary-penalty-edge"
    claim = "min over {0,1}^p, sum k <= f + rho sum s(1-s), rho >= 1/4 max (Q_ii+Q_jj-2Q_ij)"
    p = len(problem.Q)
    if reason := f"inputs = {p} < 2" if p < 2 else _outside(problem, edge_threshold(problem.Q), p):
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=reason)
    return _judged(name, claim, problem, masks(p, range(k, k + 1)), descend_edges(problem, starts))


def _outside(problem: Relaxed, threshold: float, p: int) -> str:
    if p > MOST:
        return f"inputs = {p} > {MOST}"
    if problem.rho < threshold:
        return f"rho = {problem.rho:.6g} < {threshold:.6g}"
    return ""


def mask_problem(case: Case) -> Relaxed:
    """(1) of the layer's first row and at most eight inputs; one input more or less is about worth its price."""
    w0, p = case.judge.W0[0, :8], min(case.inputs, 8)
    Q = case.judge.H[:p, :p] * w0 * w0[:, None]
    return Relaxed((Q + Q.T) / 2, lam=float(np.diag(Q).mean()) / 2)


def on_slice(rng: Rng, p: int, k: int, count: int) -> Array:
    """(count, p) means of three masks of k inputs: fractional points with sum k."""
    ranks = rng.random((count, 3, p)).argsort(axis=2).argsort(axis=2)
    return np.asarray((ranks < k).mean(axis=1))


def _box(case: Case) -> Iterator[Certificate]:
    one = Relaxed(np.eye(1), lam=0.5)
    yield binary_penalty_box(replace(one, rho=box_threshold(one.Q)), np.array([[0.5]]))
    problem = mask_problem(case)
    starts = np.vstack([case.rng(66).random((16, len(problem.Q))), np.full((1, len(problem.Q)), 0.5)])
    for factor in (1.0, 2.0):
        yield binary_penalty_box(replace(problem, rho=factor * box_threshold(problem.Q)), starts)


def _edge(case: Case) -> Iterator[Certificate]:
    pair = Relaxed(np.eye(2))
    yield binary_penalty_edge(replace(pair, rho=edge_threshold(pair.Q)), 1, np.array([[0.5, 0.5]]))
    problem = mask_problem(case)
    p = len(problem.Q)
    if p > 1:
        k = min(max(1, round(case.keep * p)), p - 1)
        for factor in (1.0, 2.0):
            there = replace(problem, rho=factor * edge_threshold(problem.Q))
            yield binary_penalty_edge(there, k, on_slice(case.rng(67), p, k, 8))


CHECKS: dict[str, Check] = {"binary-penalty-box": _box, "binary-penalty-edge": _edge}
