"""Recovery: IHT with the right number of nonzeros contracts towards the truth at the golden ratio's rate.

Letters: w the truth with s nonzeros, eps noise, H = X'X / n; m and L the extreme eigenvalues of H restricted to 3s
columns; golden = (1 + sqrt 5) / 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np

from solvers import iht
from solvers.problem import LayerProblem
from solvers.sparsity import Array, KeepPerRow
from theory_checks.certificate import Certificate, allowance
from theory_checks.planted import Planted
from theory_checks.risk import BRUTE, subsets
from theory_checks.synthetic import Case, Check

GOLDEN = (1 + sqrt(5)) / 2
EXPANSION = GOLDEN  # how much farther from an s-sparse point the s largest entries of z may lie than z itself


def restricted_eigenvalues(H: Array, size: int) -> tuple[float, float]:
    """The extreme eigenvalues of all principal blocks of `size` columns, by visiting them."""
    T = subsets(len(H), min(size, len(H)))
    eigenvalues = np.linalg.eigvalsh(H[T[:, :, None], T[:, None, :]])
    return float(eigenvalues[:, 0].min()), float(eigenvalues[:, -1].max())


@dataclass(frozen=True, eq=False)
class Recovery:
    """An s-sparse truth seen through H = X'X / n and the noise X'eps / n, and where IHT starts.

    Parameters
    ----------
    H : (p, p) Gram
    w, start : (p,) truth and first iterate, both s-sparse
    noise : (p,) X'eps / n
    """

    H: Array
    w: Array
    start: Array
    noise: Array

    @property
    def s(self) -> int:
        return int(np.count_nonzero(self.w))

    @cached_property
    def extremes(self) -> tuple[float, float]:
        return restricted_eigenvalues(self.H, 3 * self.s)

    @property
    def step(self) -> float:
        """2 / (L + m)."""
        return 2 / sum(self.extremes)

    @property
    def spread(self) -> float:
        """(L - m) / (L + m), the contraction of a gradient step on any 3s columns."""
        m, L = self.extremes
        return (L - m) / (L + m)

    @cached_property
    def problem(self) -> LayerProblem:
        """The layer with gradient H (x - w) - X'eps / n: centred at the truth, the noise as drift."""
        gram = LayerProblem.of(self.w[None, :], self.H).gram
        return LayerProblem(self.w[None, :], gram, R=-self.noise[None, :])

    def iterates(self, count: int) -> Iterator[Array]:
        """x_0, x_1, ... of IHT with step 2 / (L + m) and s nonzeros."""
        x = self.start[None, :]
        budget = KeepPerRow(self.s)
        for _ in range(count):
            yield x[0]
            x = iht.step(self.problem, budget, self.step, iht.State(x, x)).x


def of_planted(problem: Planted) -> Recovery:
    """The recovery of a planted truth from the start 0."""
    noise = problem.X.T @ problem.eps / problem.n
    return Recovery(problem.problem.H, problem.w, np.zeros(problem.p), noise)


def tight(m: float = 1.0, blocks: int = 2) -> Recovery:
    """One step of IHT that uses the golden ratio up: after it the error is rho times the first, to rounding.

    On columns of curvature m a gradient step leaves the share d = 1/golden^2 of the error. The truth is e1, the start
    golden (1 + tiny) e2: after the gradient step the entries are 1 - d and d golden = 1 - d, and the wrong one is kept.
    The pair stands once for each of s `blocks`; the remaining columns have the curvature L that makes d the spread.
    """
    d = GOLDEN**-2
    L = m * (1 + d) / (1 - d)
    p = 5 * blocks
    H = np.diag(np.where(np.arange(p) < 2 * blocks, m, L))
    w, start = np.zeros(p), np.zeros(p)
    w[: 2 * blocks : 2] = 1.0
    start[1 : 2 * blocks : 2] = GOLDEN * (1 + allowance(1.0, p))
    return Recovery(H, w, start, np.zeros(p))


def ill_conditioned(ratio: float = 100.0) -> Recovery:
    """No noise, one nonzero, and still no recovery: spread near 1, so that IHT rests on a wrong column.

    The second column has the curvature that the first sees through it: from e2's best fit no step leads back.
    """
    c = sqrt(1 - 1 / ratio)
    return Recovery(np.array([[1.0, c], [c, 1.0]]), np.array([1.0, 0.0]), np.array([0.0, c]), np.zeros(2))


def golden_ratio_recovery(problem: Recovery, iters: int = 12) -> Certificate:
    """|x_t - w| <= rho^t |x_0 - w| + golden step max_{|U| <= 3s} |(X'eps / n)_U| / (1 - rho) for every t >= 1.

    rho = golden (L - m) / (L + m), step 2 / (L + m). Assumptions: s-sparse truth and start, p <= 10 (restricted
    eigenvalues by brute force), rho < 1, in RIP form delta_3s < 0.618. Why: the tight bound of hard thresholding on
    U = S + S_t + S_{t+1}, where the gradient step contracts by rho / golden. Measured: the t with the least room.
    Where: Shen, Li 2017, Thm 1 (constant). Tight: `tight` uses it up in one step.
    """
    name = "golden-ratio-recovery"
    claim = "|x_t - w| <= rho^t |x_0 - w| + golden step max_U |X_U'eps / n| / (1 - rho), rho = golden (L-m)/(L+m)"
    where = "Shen, Li 2017"
    p, s = len(problem.H), problem.s
    if p > BRUTE:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"inputs = {p} > {BRUTE}")
    if np.count_nonzero(problem.start) > s:
        found = np.count_nonzero(problem.start)
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"the start has {found} > s = {s} nonzeros")
    rho = EXPANSION * problem.spread
    if rho >= 1:
        return Certificate(name, claim, where, 0.0, 0.0, applies=f"rho = {rho:.3g} >= 1")
    loudest = float(np.sqrt(np.sort(np.square(problem.noise))[-3 * s :].sum()))
    floor = EXPANSION * problem.step * loudest / (1 - rho)
    errors = np.array([np.linalg.norm(x - problem.w) for x in problem.iterates(iters + 1)])
    bounds = rho ** np.arange(iters + 1) * errors[0] + floor
    worst = 1 + int(np.argmax((errors - bounds)[1:]))
    rounding = allowance(float(np.linalg.norm(problem.w)) + float(errors[0]) + floor, p * iters)
    return Certificate(name, claim, where, float(errors[worst]), float(bounds[worst]), rounding)


def _recovery(case: Case) -> Iterator[Certificate]:
    rng = case.rng(22)
    sigma = float(rng.choice([0.0, 0.1, 1.0]))
    for design in ("gaussian", "orthonormal"):
        yield golden_ratio_recovery(of_planted(Planted(design, n=400, p=10, k=2, sigma=sigma, seed=case.seed)))
    yield golden_ratio_recovery(tight(m=float(10 ** rng.uniform(-2, 2)), blocks=int(rng.integers(1, 3))))


CHECKS: dict[str, Check] = {"golden-ratio-recovery": _recovery}
