"""Regression with a planted truth: y = X w + eps with a sparse w that is known, so that risks can be measured.

Letters: n observations, p inputs, S the support of w with k entries, sigma noise level. Columns of X have norm sqrt(n),
hence H = X'X / n has unit diagonal, and the layer's f is |y - X w|^2 / 2n up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from solvers.problem import LayerProblem
from solvers.sparsity import Array
from theory_checks.synthetic import Rng

Index = npt.NDArray[np.intp]

SPREAD = 0.02  # distance of near-duplicate columns, in units of their norm


def gaussian(rng: Rng, n: int, p: int) -> Array:
    """Independent normal entries."""
    return rng.standard_normal((n, p))


def orthonormal(rng: Rng, n: int, p: int) -> Array:
    """H = I: every weight competes by magnitude alone. Needs n >= p."""
    return np.linalg.qr(rng.standard_normal((n, p)))[0]


def near_duplicate(rng: Rng, n: int, p: int) -> Array:
    """The second half of the columns nearly copies the first."""
    X = rng.standard_normal((n, p))
    half = p // 2
    X[:, p - half :] = X[:, :half] + SPREAD * X[:, p - half :]
    return X


DESIGNS: dict[str, Callable[[Rng, int, int], Array]] = {f.__name__: f for f in (gaussian, orthonormal, near_duplicate)}


@dataclass(frozen=True)
class Planted:
    """One regression with a known truth; every draw comes from the seed and is made once.

    Parameters
    ----------
    design : a name of `DESIGNS`
    n, p, k : observations, inputs, nonzeros of the truth
    sigma : standard deviation of the noise
    height : size of the nonzeros, which are uniform in height * [0.5, 1.5] with random signs
    noise : ``normal``; ``twin``, which moves y from the first column just past the bisector towards its near copy;
        ``level``, under which every column has the same inner product with eps; ``against``, -X w / 3; ``opposed``,
        under which every column has the inner product -w_0 / 6 with eps / n
    seed : seed of every draw
    """

    design: str = "gaussian"
    n: int = 24
    p: int = 8
    k: int = 2
    sigma: float = 0.5
    height: float = 1.0
    noise: str = "normal"
    seed: int = 0

    def rng(self, purpose: int) -> Rng:
        return np.random.default_rng([self.seed, 77, purpose])

    @cached_property
    def X(self) -> Array:
        X = DESIGNS[self.design](self.rng(0), self.n, self.p)
        scaled: Array = X * (np.sqrt(self.n) / np.linalg.norm(X, axis=0))
        return scaled

    @cached_property
    def support(self) -> Index:
        """(k,) sorted indices of the nonzeros; the first column for the noises that are built around it."""
        if self.noise != "normal":
            return np.arange(self.k, dtype=np.intp)
        return np.sort(self.rng(1).permutation(self.p)[: self.k]).astype(np.intp)

    @cached_property
    def w(self) -> Array:
        """(p,) the truth."""
        w = np.zeros(self.p)
        sizes = self.rng(2).uniform(0.5, 1.5, self.k) * self.rng(3).choice([-1.0, 1.0], self.k)
        w[self.support] = self.height * sizes
        return w

    @cached_property
    def eps(self) -> Array:
        """(n,) the noise."""
        if self.noise == "level":
            return np.asarray(self.sigma * np.linalg.lstsq(self.X.T, np.sqrt(self.n) * np.ones(self.p))[0])
        if self.noise == "opposed":
            return np.asarray(np.linalg.lstsq(self.X.T, -self.n * self.w[0] / 6 * np.ones(self.p))[0])
        if self.noise == "against":
            return -self.signal / 3
        if self.noise == "twin":
            return self._past_the_bisector()
        return self.sigma * self.rng(4).standard_normal(self.n)

    def _past_the_bisector(self) -> Array:
        first, twin = self.X[:, 0] * self.w[0], self.X[:, self.p - self.p // 2] * self.w[0]
        along = first + twin
        foot = along * float(along @ first) / float(along @ along)
        return np.asarray((foot - first) * (1 + SPREAD / 10))

    @cached_property
    def signal(self) -> Array:
        """(n,) X w."""
        return self.X @ self.w

    @cached_property
    def y(self) -> Array:
        return self.signal + self.eps

    @cached_property
    def problem(self) -> LayerProblem:
        """The layer of one row with f(w) = |y - X w|^2 / 2n - const: W0 is the least-squares solution, H = X'X / n.

        With n < p the solution of least norm serves: X'(y - X W0) = 0 is all that the identity needs.
        """
        H = self.X.T @ self.X / self.n
        W0 = np.asarray(np.linalg.lstsq(self.X, self.y)[0], dtype=np.float64)
        return LayerProblem.of(W0[None, :], (H + H.T) / 2)

    def risk(self, w: Array) -> float:
        """|X (w - truth)|^2, the squared error of prediction summed over observations."""
        return float(np.square(self.X @ (w - self.w)).sum())

    @property
    def scale(self) -> float:
        """The magnitudes that meet in a squared error: |X w|^2 and |eps|^2."""
        return float(np.square(np.abs(self.X) @ np.abs(self.w)).sum() + np.square(self.eps).sum())

    @property
    def size(self) -> int:
        return self.n * self.p


def planted(seed: int, purpose: int = 0, designs: tuple[str, ...] = tuple(DESIGNS)) -> Planted:
    """A small regression from the mixture: any design, 2 p <= n <= 40, strong or weak noise.

    Examples
    --------
    >>> planted(3) == planted(3)
    True
    """
    rng = np.random.default_rng([seed, 78, purpose])
    p = int(rng.integers(2, 9))
    return Planted(
        design=str(rng.choice(list(designs))),
        n=int(rng.integers(2 * p, 41)),
        p=p,
        k=int(rng.integers(1, max(2, p // 2 + 1))),
        sigma=float(10 ** rng.uniform(-1.5, 0.5)),
        height=float(10 ** rng.uniform(-0.5, 0.5)),
        seed=seed,
    )


def twins(seed: int) -> Planted:
    """The worst case of best-subset selection: two near-duplicate columns, and noise that just exchanges them."""
    return Planted("near_duplicate", n=12, p=6, k=1, sigma=SPREAD / float(np.sqrt(8)), noise="twin", seed=seed)


def level(seed: int) -> Planted:
    """Orthonormal columns that all see the same noise: the worst case of inequalities through |X'eps|_inf."""
    return Planted("orthonormal", n=16, p=6, k=1, sigma=0.3, noise="level", seed=seed)


def against(seed: int) -> Planted:
    """Noise that takes a third of the only spike away: the worst case of a penalty that then drops the spike."""
    return Planted("orthonormal", n=16, p=6, k=1, sigma=0.3, noise="against", seed=seed)


def opposed(seed: int) -> Planted:
    """Orthonormal columns, noise that opposes the only spike in all of them: the worst case of the basic inequality.

    At lam = 2 |X'eps|_inf / n = |w_0| / 3 the estimate 0 has the Lasso objective of the truth.
    """
    return Planted("orthonormal", n=16, p=6, k=1, noise="opposed", seed=seed)


def along_the_cone(problem: Planted) -> Array:
    """An `opposed` truth moved by nu towards the noise, |nu off S|_1 just below 3 |nu on S|_1, nu short beside lam."""
    share = np.where(problem.w != 0, 1.0, (3 - 2.0**-9) / (problem.p - 1))
    return np.asarray(problem.w - problem.w[0] * 2.0**-14 * share)
