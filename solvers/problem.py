"""A layer as a quadratic around its dense weight.

    f(W) = 1/2 <(W - W0) H, W - W0> + <R, W - W0> + e0          W, W0, R: (out, in)    H: (in, in)

H is the mean Gram (1/T) sum x x' over the calibration tokens of the inputs that the pruned layer will see. Without
drift R = 0 and e0 = 0; with it R = W0 (X~ - X) X~'/T and e0 = |W0 (X~ - X)|^2 / 2T: f(W) = |W X~ - W0 X|^2 / 2T.
Always in this difference form: the expanded form <W H, W> - 2 <W H, W0> + ... loses all digits near W0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

from solvers.linalg import cholesky, lambda_max_bound
from solvers.refusal import Refusal
from solvers.sparsity import Array

PART = 256  # rows or columns of a product that are in memory at a time


def _parts(n: int, size: int = PART) -> Iterator[slice]:
    return (slice(k, k + size) for k in range(0, n, size))


@dataclass(frozen=True, eq=False)
class Gram:
    """The mean Gram H (in, in) of a site, shared by every layer that reads it.

    `ridge` is a number with H - ridge I positive semidefinite by construction; of a product with H, `part` rows or
    columns are in memory at a time.
    """

    H: Array
    ridge: float = 0.0
    part: ClassVar[int] = PART

    def __post_init__(self) -> None:
        if self.H.ndim != 2 or self.H.shape[0] != self.H.shape[1]:
            raise Refusal(f"a Gram is a square (in, in) matrix; got shape {self.H.shape}. Pass X.T @ X / tokens.")
        if not np.isfinite(self.H).all():
            raise Refusal(
                "the Gram holds NaN or infinity. Usually an activation overflowed; calibrate in float32 or bfloat16."
            )
        if not np.array_equal(self.H, self.H.T):
            raise Refusal(
                "the Gram must be exactly symmetric. Symmetrise the sum once, (H + H.T) / 2, before it is used."
            )

    @cached_property
    def lipschitz(self) -> float:
        """A proved upper bound on lambda_max(H), the Lipschitz constant of the gradient."""
        return lambda_max_bound(self.H)

    @cached_property
    def norms(self) -> Array:
        """Root mean square of every input, (in,): sqrt(diag H)."""
        return np.sqrt(np.maximum(np.diag(self.H), 0.0))

    @cached_property
    def eigen(self) -> tuple[Array, Array]:
        """Eigenvalues l (in,), increasing, and vectors Q (in, in) of H; the layers of a site share them."""
        values, vectors = scipy.linalg.eigh(self.H, driver="evd", check_finite=False)
        return values, vectors

    @cached_property
    def factors(self) -> dict[object, object]:
        """What the fast twins factored, by what it is and where it lies; the layers of a site share it."""
        return {}

    def normalised(self, mu: float) -> tuple[Gram, Array]:
        """(D^-1 H D^-1 + mu I, D) with D = diag(norms): unit diagonal plus the ridge.

        A dead input has norm zero; it is given a power of two far below every live norm, so that its weights are
        the first to go under a budget and come back bit for bit where they stay. The layers of a site share the
        result, one for each ridge that they use (search and refinement), for as long as the site's Gram lives.
        """
        if mu not in self._normalised:
            self._normalised[mu] = self._with_ridge(mu)
        return self._normalised[mu]

    @cached_property
    def _normalised(self) -> dict[float, tuple[Gram, Array]]:
        return {}

    def _with_ridge(self, mu: float) -> tuple[Gram, Array]:
        live = self.norms[self.norms > 0]
        dead = 2.0 ** (np.floor(np.log2(live.min())) - 40) if live.size else 1.0
        scale = np.where(self.norms > 0, self.norms, dead)
        H = self.H / scale
        H /= scale[:, None]
        for part in _parts(len(H)):
            mean = (H[part, part.start :] + H[part.start :, part].T) / 2
            H[part, part.start :], H[part.start :, part] = mean, mean.T
        H.flat[:: len(H) + 1] += mu
        return Gram(H, ridge=mu), scale


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """f and its derivatives for one layer.

    Parameters
    ----------
    W0 : (out, in) dense weight
    gram : the inputs' Gram; `LayerProblem.of` takes a plain (in, in) array
    R : (out, in) drift, or None
    e0 : value at W0
    scale : (in,) factors by which the inputs' coordinates were divided; None in the layer's own coordinates
    """

    W0: Array
    gram: Gram
    R: Array | None = None
    e0: float = 0.0
    scale: Array | None = None

    def __post_init__(self) -> None:
        if self.W0.ndim != 2 or self.W0.shape[1] != len(self.H):
            raise Refusal(
                f"a weight is (out, in) and its Gram (in, in); got {self.W0.shape} and {self.H.shape}. "
                "Usually the weight is transposed: y = W x, W of shape (outputs, inputs)."
            )
        if self.W0.size == 0:
            raise Refusal(f"a layer has at least one output and one input; got shape {self.W0.shape}.")
        if not np.isfinite(self.W0).all():
            raise Refusal(
                "the dense weight holds NaN or infinity. Usually the checkpoint is damaged; download it again."
            )
        reach = max(float(self.W0.max()), -float(self.W0.min())) * max(float(self.norms.max()), 1.0)
        if reach > np.sqrt(np.finfo(np.float64).max / self.W0.size) / 4:
            raise Refusal(
                f"weights times inputs reach {reach:.3g}, whose squares overflow. Divide either by a constant."
            )
        if self.R is not None and self.R.shape != self.W0.shape:
            raise Refusal(f"the drift R has the shape of the weight, {self.W0.shape}; got {self.R.shape}.")

    @classmethod
    def of(cls, W0: Array, H: Array) -> LayerProblem:
        """The problem of a dense weight (out, in) and a plain Gram array (in, in)."""
        return cls(W0, Gram(H))

    @property
    def H(self) -> Array:
        return self.gram.H

    @property
    def shape(self) -> tuple[int, int]:
        return self.W0.shape[0], self.W0.shape[1]

    @property
    def lipschitz(self) -> float:
        """A proved upper bound on lambda_max(H)."""
        return self.gram.lipschitz

    @property
    def norms(self) -> Array:
        """(in,) root mean square of every input; all that Wanda needs."""
        return self.gram.norms

    def value(self, W: Array) -> float:
        """f(W)."""
        quadratic, linear = 0.0, 0.0
        for part in _parts(len(W), self.gram.part):
            D = W[part] - self.W0[part]
            quadratic += float(np.vdot(D @ self.H, D))
            linear += 0.0 if self.R is None else float(np.vdot(self.R[part], D))
        return 0.5 * quadratic + linear + self.e0

    def grad(self, W: Array) -> Array:
        """The gradient (W - W0) H + R, (out, in)."""
        G = (W - self.W0) @ self.H
        return G if self.R is None else G + self.R

    def change(self, W: Array, V: Array) -> float:
        """f(V) - f(W) = <grad f(W), d> + 1/2 <d H, d>, d = V - W: accurate however small d is."""
        d = V - W
        return float(np.vdot(self.grad(W), d)) + 0.5 * float(np.vdot(d @ self.H, d))

    def magnitude(self, W: Array) -> float:
        """Sum of the absolute terms of f(W), the scale of its rounding error: 1/2 <|D| |H|, |D|> + ..."""
        quadratic, linear = 0.0, 0.0
        for part in _parts(len(W), self.gram.part):
            D = np.abs(W[part] - self.W0[part])
            columns = _parts(len(self.H), self.gram.part)
            quadratic += sum(float(np.vdot(D @ np.abs(self.H[:, k]), D[:, k])) for k in columns)
            linear += 0.0 if self.R is None else float(np.vdot(np.abs(self.R[part]), D))
        return 0.5 * quadratic + linear + abs(self.e0)

    def relative_error(self, W: Array) -> float:
        """f(W) / f(0): squared output error over squared dense output; nan where the dense output is zero."""
        output = self.value(np.broadcast_to(0.0, self.shape))
        return self.value(W) / output if output > 0 else float("nan")

    def normalised(self, mu: float = 0.1) -> LayerProblem:
        """The same layer with unit-diagonal Gram and a ridge mu centred at W0 (Wen, Zuo, Pan 2025: mu = 0.1).

        With D the inputs' root mean squares, V = W D turns f into f'(V) with H' = D^-1 H D^-1; adding mu I to H'
        adds mu/2 |V - W0 D|^2. `original` maps a weight back.
        """
        if not (isinstance(mu, Real) and 0 <= mu < float("inf")):
            raise Refusal(
                f"a ridge, mu or refine_mu, is a finite number of at least 0; got {mu!r}. The paper has mu = 0.1."
            )
        gram, scale = self.gram.normalised(float(mu))
        R = None if self.R is None else self.R / scale
        return LayerProblem(self.W0 * scale, gram, R, self.e0, scale)

    def recentred(self) -> LayerProblem:
        """The same f around W~ = W0 - R H^-1, its minimiser: a problem without drift, for solvers that know none.

        f(W) = f(W~) + 1/2 <(W - W~) H, W - W~>. Refuses a singular H; `normalised` adds a ridge.
        """
        if self.R is None:
            return self
        factor = cholesky(self.H, "the Gram of a layer whose inputs drifted")
        W = self.W0 - scipy.linalg.cho_solve(factor, self.R.T, check_finite=False).T
        return LayerProblem(W, self.gram, None, self.value(W), self.scale)

    def around(self, W: Array) -> LayerProblem:
        """The same f in the difference form around another weight: R and e0 become the gradient and value there."""
        return LayerProblem(W, self.gram, self.grad(W), self.value(W), self.scale)

    def rows(self, part: slice | npt.NDArray[np.int64]) -> LayerProblem:
        """The terms of f that belong to some outputs; e0, which is no output's, is left out."""
        return LayerProblem(self.W0[part], self.gram, None if self.R is None else self.R[part], 0.0, self.scale)

    def scaled(self, W: Array) -> Array:
        """A weight of the layer's own coordinates in those of this problem."""
        return W if self.scale is None else W * self.scale

    def original(self, W: Array) -> Array:
        """A weight of this problem in the layer's own coordinates."""
        return W if self.scale is None else W / self.scale
