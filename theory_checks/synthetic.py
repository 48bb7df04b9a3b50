"""Small layers with a known construction: the families that random draws meet, and those that they never do.

Letters: X (T, in) tokens, W0 (out, in) dense weight, H = X'X/T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

import solvers
from solvers.door import Run
from solvers.maiht import State
from solvers.problem import LayerProblem
from solvers.sparsity import L0, L1, Array, Budget, KeepNofM, KeepPerLayer, KeepPerRow, Sparsity
from theory_checks.certificate import Certificate

Rng = np.random.Generator


def iid(rng: Rng, T: int, n: int) -> Array:
    """D0: independent standard normal inputs."""
    return rng.standard_normal((T, n))


def scaled(rng: Rng, T: int, n: int) -> Array:
    """D1: input scales over two decades."""
    return rng.standard_normal((T, n)) * 10 ** rng.uniform(-1, 1, n)


def autoregressive(rng: Rng, T: int, n: int) -> Array:
    """D2: neighbouring inputs correlate with 0.9."""
    X = rng.standard_normal((T, n))
    for j in range(1, n):
        X[:, j] = 0.9 * X[:, j - 1] + np.sqrt(1 - 0.81) * X[:, j]
    return X


def duplicated(rng: Rng, T: int, n: int) -> Array:
    """D3: the second half of the inputs nearly copies the first."""
    X = rng.standard_normal((T, n))
    half = n // 2
    X[:, n - half :] = X[:, :half] + 1e-3 * X[:, n - half :]
    return X


def language_like(rng: Rng, T: int, n: int) -> Array:
    """D4: power-law spectrum, log-normal scales, one outlier channel."""
    spectrum = np.arange(1, n + 1) ** -0.4
    X: Array = (rng.standard_normal((T, n)) * spectrum) @ rng.standard_normal((n, n))
    X *= np.exp(rng.standard_normal(n))
    X[:, rng.integers(n)] *= 30
    return X


def rank_deficient(rng: Rng, T: int, n: int) -> Array:
    """D5: fewer tokens than inputs."""
    return rng.standard_normal((max(1, n // 2), n))


def dead(rng: Rng, T: int, n: int) -> Array:
    """D6: one input is always zero."""
    X = rng.standard_normal((T, n))
    X[:, rng.integers(n)] = 0.0
    return X


def orthogonal(rng: Rng, T: int, n: int) -> Array:
    """D7: H = I exactly, so that every weight competes by magnitude alone."""
    return np.eye(n) * float(np.sqrt(n))


FAMILIES: dict[str, Callable[[Rng, int, int], Array]] = {
    f.__name__: f for f in (iid, scaled, autoregressive, duplicated, language_like, rank_deficient, dead, orthogonal)
}


@dataclass(frozen=True)
class Case:
    """One synthetic layer and everything random that a claim may need, all from one seed.

    Parameters
    ----------
    family : a name of `FAMILIES`
    rows, inputs : shape of the weight
    seed : seed of every draw
    tied : weights are small integers, so that magnitudes tie
    keep : share of the inputs that a budget keeps
    strength : lam as a multiple of half the mean squared normalised weight
    """

    family: str = "iid"
    rows: int = 3
    inputs: int = 8
    seed: int = 0
    tied: bool = False
    keep: float = 0.5
    strength: float = 0.3

    @classmethod
    def draw(cls, rng: Rng) -> Case:
        """A case from the mixture that `python -m theory_checks` walks through."""
        return cls(
            family=str(rng.choice(list(FAMILIES))),
            rows=int(rng.integers(1, 6)),
            inputs=int(rng.choice([1, 2, 3, 4, 5, 8, 12])),
            seed=int(rng.integers(2**31)),
            tied=bool(rng.random() < 0.2),
            keep=float(rng.choice([0.0, 0.3, 0.5, 0.7, 1.0], p=[0.05, 0.3, 0.3, 0.3, 0.05])),
            strength=float(rng.choice([0.0, 10 ** rng.uniform(-2, 1), 100.0], p=[0.05, 0.9, 0.05])),
        )

    def rng(self, purpose: int) -> Rng:
        return np.random.default_rng([self.seed, purpose])

    @cached_property
    def X(self) -> Array:
        return FAMILIES[self.family](self.rng(0), 4 * self.inputs + 8, self.inputs)

    @cached_property
    def W0(self) -> Array:
        W = self.rng(1).standard_normal((self.rows, self.inputs))
        return np.round(2 * W) if self.tied else W

    @cached_property
    def problem(self) -> LayerProblem:
        H = self.X.T @ self.X / len(self.X)
        return LayerProblem.of(self.W0, (H + H.T) / 2)

    @cached_property
    def judge(self) -> LayerProblem:
        """The normalised problem, mu = 0.1."""
        return self.problem.normalised(0.1)

    @property
    def penalty(self) -> L0:
        return L0(self.strength * float(np.square(self.judge.W0).mean()) / 2)

    @property
    def absolute(self) -> L1:
        return L1(self.strength * float(np.abs(self.judge.W0).mean()))

    @property
    def budgets(self) -> list[Budget]:
        """Per row, per layer, and n:m where the width allows it."""
        size = self.rows * self.inputs
        budgets: list[Budget] = [KeepPerRow(round(self.keep * self.inputs)), KeepPerLayer(round(self.keep * size))]
        return budgets + [KeepNofM(2, 4)] * (self.inputs % 4 == 0)

    @property
    def sparsities(self) -> list[Sparsity]:
        """The penalty and every budget."""
        return [self.penalty, *self.budgets]

    def some_weight(self, purpose: int = 2) -> Array:
        """A weight that has nothing to do with W0."""
        return self.rng(purpose).standard_normal(self.W0.shape) * float(np.sqrt(np.square(self.judge.W0).mean()))

    def state(self, sparsity: Sparsity) -> State:
        """A feasible but otherwise arbitrary mAIHT state, far from where the solver would be."""
        x, x_prev, z = (sparsity.prox(self.some_weight(i), 1e-3) for i in (3, 4, 5))
        t_prev = float(self.rng(6).uniform(1, 20))
        return State(x, x_prev, z, x, (1 + np.sqrt(1 + 4 * t_prev**2)) / 2, t_prev)

    def run(self, method: str, sparsity: Sparsity, refine: str = "none", **options: Any) -> Run:
        """A method on this layer; claims that ask for the same run share it."""
        key = (method, sparsity, refine, *options.items())
        if key not in self._runs:
            self._runs[key] = solvers.run(solvers.find(method), self.problem, sparsity, refine=refine, **options)
        return self._runs[key]

    @cached_property
    def _runs(self) -> dict[tuple[object, ...], Run]:
        return {}


Check = Callable[[Case], Iterator[Certificate]]
"""A claim with the synthetic layers' worth of certificates that it draws from one case."""


def cases(count: int, seed: int) -> Iterator[Case]:
    """`count` cases: first the constructed ones that random draws rarely meet, then draws from the mixture."""
    yield from (replace(case) for case in CONSTRUCTED[:count])  # fresh: a case remembers its runs
    rng = np.random.default_rng(seed)
    for _ in range(count - len(CONSTRUCTED)):
        yield Case.draw(rng)


CONSTRUCTED = (
    Case("iid", rows=1, inputs=1),
    Case("dead", rows=4, inputs=5, tied=True, keep=0.7),
    Case("dead", rows=5, inputs=4, keep=0.3),
    Case("orthogonal", rows=3, inputs=8, tied=True),
    Case("language_like", rows=3, inputs=8),
    Case("rank_deficient", rows=2, inputs=12),
    Case("duplicated", rows=1, inputs=8, strength=0.0),
)


def ascent_problem(s_times_L: float) -> tuple[LayerProblem, L0, Array]:
    """Theory D3 in one dimension: f = (x - 1)^2 / 2, x = 0, and a penalty for which any step above 1/L ascends."""
    lam = (max(0.0, 0.5 - 0.5 * (s_times_L - 1) ** 2) + s_times_L / 2) / 2
    return LayerProblem.of(np.array([[1.0]]), np.array([[1.0]])), L0(lam), np.array([[0.0]])
