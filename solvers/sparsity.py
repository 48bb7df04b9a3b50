"""What "sparse" means: a penalty or an exact budget, each with its proximal operator.

Letters: Z, W (out, in) weights; s step size; lam penalty; keep entries kept, always *kept*.
Counts are exact, ties go to the lower index, removed entries are +0.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import inf, sqrt

import numpy as np
import numpy.typing as npt

from solvers.refusal import Refusal

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def largest(scores: Array, keep: int) -> Mask:
    """Mark the `keep` largest scores along the last axis; of equal scores the lower index wins.

    Parameters
    ----------
    scores : (..., n) array without NaN
    keep : int in 0..n
    """
    n = scores.shape[-1]
    if keep <= 0 or keep >= n:
        return np.full(scores.shape, keep >= n)
    kth = np.partition(scores, n - keep, axis=-1)[..., n - keep, None].copy()
    above, tied = scores > kth, scores == kth
    room = keep - above.sum(axis=-1, keepdims=True)
    if (tied.sum(axis=-1, keepdims=True) > room).any():
        tied &= tied.cumsum(axis=-1) <= room
    marked: Mask = above | tied
    return marked


@dataclass(frozen=True)
class L0:
    """Penalty lam * |W|_0, the number of nonzeros."""

    lam: float

    def prox(self, Z: Array, s: float) -> Array:
        """argmin_V |V - Z|^2 / 2s + lam |V|_0: hard threshold at sqrt(2 lam s) [Blumensath, Davies 2008]."""
        return np.where(np.abs(Z) > sqrt(2 * self.lam * s), Z, 0.0)

    def value(self, W: Array) -> float:
        return self.lam * self.count(W)

    def count(self, W: Array) -> int:
        return int(np.count_nonzero(W))

    @property
    def level(self) -> float:
        return self.lam


@dataclass(frozen=True)
class L1:
    """Penalty lam * |W|_1, the sum of magnitudes."""

    lam: float

    def prox(self, Z: Array, s: float) -> Array:
        """argmin_V |V - Z|^2 / 2s + lam |V|_1: soft threshold at lam s."""
        return np.where(np.abs(Z) > self.lam * s, Z - np.sign(Z) * (self.lam * s), 0.0)

    def value(self, W: Array) -> float:
        return self.lam * float(np.abs(W).sum())

    def count(self, W: Array) -> int:
        return int(np.count_nonzero(W))

    @property
    def level(self) -> float:
        return self.lam


@dataclass(frozen=True)
class Budget:
    """A constraint set {W : pattern holds}; its prox is the projection, whatever the step size."""

    keep: int

    def windows(self, A: Array) -> Array:
        """A as (windows, width): every row is one window in which exactly `keep` entries stay."""
        raise TypeError(f"{type(self).__name__} does not say in which windows it keeps")

    def most(self, shape: tuple[int, int]) -> int:
        """The `keep` that removes nothing from a layer of this shape."""
        raise TypeError(f"{type(self).__name__} does not say how much it could keep")

    def mask(self, scores: Array) -> Mask:
        """The pattern that keeps the largest scores, with the exact count."""
        return largest(self.windows(scores), self.keep).reshape(scores.shape)

    def prox(self, Z: Array, s: float = 1.0) -> Array:
        """The nearest point of the pattern: the largest magnitudes stay, the rest becomes +0.0."""
        return np.where(self.mask(np.abs(Z)), Z, 0.0)

    def value(self, W: Array) -> float:
        return 0.0 if self.allows(W) else inf

    def count(self, W: Array) -> int:
        return int(np.count_nonzero(W))

    def allows(self, W: Array) -> bool:
        """Whether no window holds more nonzeros than it may."""
        return bool((np.count_nonzero(self.windows(W), axis=1) <= self.keep).all())

    @property
    def level(self) -> float:
        return self.keep


@dataclass(frozen=True)
class KeepPerRow(Budget):
    """Exactly `keep` inputs stay in every output row."""

    def windows(self, A: Array) -> Array:
        return A

    def most(self, shape: tuple[int, int]) -> int:
        return shape[1]


@dataclass(frozen=True)
class KeepPerLayer(Budget):
    """Exactly `keep` entries stay in the whole matrix."""

    def windows(self, A: Array) -> Array:
        return A.reshape(1, -1)

    def most(self, shape: tuple[int, int]) -> int:
        return shape[0] * shape[1]


@dataclass(frozen=True)
class KeepNofM(Budget):
    """Exactly `keep` of every `of` consecutive inputs stay: KeepNofM(keep=2, of=4) is written 2:4."""

    of: int

    def windows(self, A: Array) -> Array:
        if self.of < 1 or A.shape[1] % self.of:
            raise Refusal(
                f"{self.keep}:{self.of} needs an input dimension divisible by {self.of}; this layer has {A.shape[1]}. "
                "Usually the model was cut structurally before. Padding is not supported; use 50% (per row)."
            )
        return A.reshape(-1, self.of)

    def most(self, shape: tuple[int, int]) -> int:
        return self.of


@dataclass(frozen=True)
class OnTheWay(Budget):
    """Between dense and n:m: the `keep` of every `of` consecutive inputs, and `extra` more of a row wherever they are.

    The set {W : sum over the windows of a row of max(nonzeros - keep, 0) <= extra} is a matroid in every row, so that
    the projection is greedy: the largest of every window first, then the largest of what is left of the row.
    """

    of: int
    extra: int

    @property
    def goal(self) -> KeepNofM:
        """The pattern with nothing extra."""
        return KeepNofM(self.keep, self.of)

    def mask(self, scores: Array) -> Mask:
        safe = self.goal.mask(scores)
        return safe | largest(np.where(safe, 0.0, scores), self.extra)

    def allows(self, W: Array) -> bool:
        counts = np.count_nonzero(self.goal.windows(W), axis=1).reshape(len(W), -1)
        return bool((np.maximum(counts - self.keep, 0).sum(axis=1) <= self.extra).all())

    @property
    def level(self) -> float:
        return self.keep + self.extra


@dataclass(frozen=True)
class KeepGroups(Budget):
    """Exactly `keep` whole groups of inputs stay; `groups[j]` is the group of input j, groups rank by norm."""

    groups: tuple[int, ...]

    def windows(self, A: Array) -> Array:
        squares = np.bincount(self.groups, weights=np.square(A).sum(axis=0))
        return squares.astype(np.float64)[None, :]

    def most(self, shape: tuple[int, int]) -> int:
        return max(self.groups) + 1

    def mask(self, scores: Array) -> Mask:
        kept = largest(self.windows(scores), self.keep)[0, list(self.groups)]
        return np.broadcast_to(kept, scores.shape).copy()


Sparsity = L0 | L1 | Budget


@dataclass(frozen=True)
class Target:
    """A budget as it is typed, before the shape of a layer is known; `str` gives the text back."""

    text: str
    share: Fraction | None = None
    scope: str = "row"
    pattern: KeepNofM | None = None

    def on(self, shape: tuple[int, int]) -> Budget:
        """The exact budget on a layer (out, in): floor(share * size) entries are removed."""
        if self.pattern is not None:
            self.pattern.windows(np.zeros((1, shape[1])))
            return self.pattern
        assert self.share is not None
        size = shape[1] if self.scope == "row" else shape[0] * shape[1]
        keep = size - int(self.share * size)
        return KeepPerRow(keep) if self.scope == "row" else KeepPerLayer(keep)

    def __str__(self) -> str:
        return self.text


GRAMMAR = "50% (per output row), 50%/layer (whole matrix), 2:4 or 4:8 (n kept of every m inputs)"


def parse(text: str) -> Target:
    """Read a sparsity: ``50%`` per output row, ``50%/layer``, ``2:4``.

    >>> parse("2:4").on((8, 16))
    KeepNofM(keep=2, of=4)
    >>> parse("62.5%").on((8, 16))
    KeepPerRow(keep=6)
    """
    text = text.strip()
    if share := re.fullmatch(r"(\d+(?:\.\d+)?)%(/layer)?", text):
        return _share(text, Fraction(share[1]) / 100, "layer" if share[2] else "row")
    if window := re.fullmatch(r"(\d+):(\d+)", text):
        return _window(text, int(window[1]), int(window[2]))
    if re.match(r"(heads|channels|blocks):", text):
        raise Refusal(
            f"sparsity '{text}' removes whole heads, channels or blocks, and every method here removes single weights. "
            f"Use {GRAMMAR}."
        )
    raise Refusal(f"sparsity must be one of {GRAMMAR}; got '{text}'. A share needs its percent sign: 50%, not 0.5.")


def _share(text: str, share: Fraction, scope: str) -> Target:
    if share > 1:
        raise Refusal(f"the share to remove must lie between 0% and 100%; got '{text}'. 50% removes half of every row.")
    return Target(text, share=share, scope=scope)


def _window(text: str, keep: int, of: int) -> Target:
    if of < 1 or keep > of:
        swapped = f" Did you mean {of}:{keep}?" if of else ""
        raise Refusal(f"n:m keeps n of every m inputs, n at most m and m at least 1; got '{text}'.{swapped}")
    return Target(text, pattern=KeepNofM(keep, of))
