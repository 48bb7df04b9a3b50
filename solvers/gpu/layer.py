"""A layer's quadratic where a twin computes it: one product with the Gram each, and everything else from that product.

Letters as in `solvers.problem`; P_w = (w - W0) H; u(w) = w - s grad f(w), the forward step.

    grad f(w)     = P_w + R                                                                       (1)
    f(w)          = <P_w/2 + R, w - W0> + e0                                                      (2)
    f(z) - f(v)   = <(P_z + P_v)/2 + R, z - v>                                                    (3)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from solvers.array import Place, into, row_products
from solvers.gpu import precision, rows, select
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import L0, KeepPerLayer, Sparsity


class Layer:
    """f of a `LayerProblem` on a `Place`, with buffers that are lent again once no state holds them.

    Sums are taken row by row in the precision of the place and added up in float64. Where `kernels_for` finds Triton
    kernels, `candidate` and `compared` are theirs; everywhere else the array text of the same two methods.
    """

    def __init__(self, problem: LayerProblem, place: Place, buffers: int) -> None:
        require_representable(problem, place)
        self.xp, self.dtype, self.e0 = place.xp, place.dtype, problem.e0
        self.W0, self.H = place.put(problem.W0), place.put(problem.H)
        self.rung = precision.RUNGS[place.rung]
        self.split = precision.split(self.H, self.rung) if self.rung.unit else None
        self.R = None if problem.R is None else place.put(problem.R)
        self.buffers = [self.xp.empty_like(self.W0) for _ in range(buffers)]
        self.scratch = (self.xp.empty_like(self.W0), self.xp.empty_like(self.W0))
        self.kernels = select.kernels_for(self.W0)
        self.counts: dict[int, Any] = {}  # nonzeros that a kernel counted, by the buffer that it wrote

    def lend(self, count: int, held: Iterable[Any]) -> list[Any]:
        """Buffers that are none of the arrays `held`."""
        busy = {id(array) for array in held}
        lent = [buffer for buffer in self.buffers if id(buffer) not in busy][:count]
        for buffer in lent:
            self.counts.pop(id(buffer), None)
        return lent

    def candidate(self, sparsity: Sparsity, terms: list[tuple[float, Any]], s: float, out: Any) -> tuple[Any, float]:
        """prox_{sg} of the sum of coefficients times arrays, written over `out`, and g of it."""
        if self.kernels and self.kernels.serves(sparsity, out):
            V, counts = self.kernels.candidate(sparsity, terms, s, out)
            self.counts[id(V)] = counts
            return V, sparsity.lam * self.nonzeros(V) if isinstance(sparsity, L0) else 0.0
        V = self._selected(sparsity, terms, s, out)
        return V, select.penalty(sparsity, V)

    def nonzeros(self, V: Any) -> int:
        """|V|_0, counted when V was written where a kernel wrote it."""
        counts = self.counts.get(id(V))
        if counts is None:
            return int(rows.each(lambda V: (V, int(self.xp.count_nonzero(V))), V)[1])
        return int(self.kernels.total(counts))

    def prox(self, sparsity: Sparsity, Z: Any, s: float) -> Any:
        """prox_{sg}(Z), written over Z."""
        return self._selected(sparsity, [], s, Z)

    def combined(self, terms: Iterable[tuple[float, Any]], out: Any) -> Any:
        """The sum of coefficients times arrays."""
        coefficients, arrays = zip(*terms, strict=True)
        return rows.each(lambda *a: (self._sum(coefficients, *a),), out, self.scratch[0], *arrays)[0]

    def _selected(self, sparsity: Sparsity, terms: list[tuple[float, Any]], s: float, out: Any) -> Any:
        """prox_{sg} of the sum of terms, or where there are none of `out`, written over `out`."""
        if isinstance(sparsity, KeepPerLayer):  # which no block of rows can decide
            return select.prox(sparsity, self.combined(terms, out) if terms else out, s, self.scratch)
        coefficients = [c for c, _ in terms]

        def act(Z: Any, a: Any, b: Any, *arrays: Any) -> tuple[Any]:
            return (select.prox(sparsity, self._sum(coefficients, Z, a, *arrays), s, (a, b)),)

        return rows.each(act, out, *self.scratch, *(array for _, array in terms))[0]

    def _sum(self, coefficients: Iterable[float], out: Any, scratch: Any, *arrays: Any) -> Any:
        for n, (c, array) in enumerate(zip(coefficients, arrays, strict=True)):
            term = into(self.xp.multiply, array, c, out=scratch if n else out)
            if n == 0:
                out = term
            else:
                out += term
        return out

    def product(self, w: Any, out: Any) -> Any:
        """P_w: on the rung of the place."""
        (d,) = rows.each(lambda d, w, W0: (into(self.xp.subtract, w, W0, out=d),), self.scratch[0], w, self.W0)
        return self.times(d, self.factors, out)

    @property
    def factors(self) -> tuple[Any, ...]:
        """H as the rung multiplies it."""
        return self.split or (self.H,)

    def times(self, A: Any, M: tuple[Any, ...], out: Any) -> Any:
        """A M on the rung of the place, M (in, in) a factor of H that `precision.split` made, or `factors`."""
        return precision.product(A, M, self.rung, out)

    def value(self, w: Any, P: Any) -> float:
        """f(w) from its product."""
        return float(rows.each(self._value, P, w, self.W0, self.R, *self.scratch)[1]) + self.e0

    def change(self, z: Any, Pz: Any, v: Any, Pv: Any) -> float:
        """f(z) - f(v) from both products, accurate however near z is to v."""
        return float(rows.each(self._change, Pz, z, v, Pv, self.R, *self.scratch)[1])

    def compared(self, z: Any, Pz: Any, v: Any, Pv: Any, s: float) -> tuple[float, float, Any]:
        """f(v), f(z) - f(v), and u(z) written over P_z."""
        if self.kernels:
            value, gain = self.kernels.compared(z, Pz, v, Pv, self.W0, self.R, s)  # (2), (3)
            return value + self.e0, gain, Pz

        same = z is v

        def act(Pz: Any, z: Any, v: Any, Pv: Any, W0: Any, R: Any, a: Any, b: Any) -> tuple[Any, float, float]:
            change = 0.0 if same else self._change(Pz, z, v, Pv, R, a, b)[1]
            value = self._value(Pv, v, W0, R, a, b)[1]
            return self._forward(Pz, z, R, s), value, change

        u, value, change = rows.each(act, Pz, z, v, Pv, self.W0, self.R, *self.scratch)
        return value + self.e0, change, u

    def forward(self, w: Any, P: Any, s: float) -> Any:
        """u(w), written over its product."""
        return rows.each(lambda P, w, R: (self._forward(P, w, R, s),), P, w, self.R)[0]

    def resumed(self, s: float, points: Iterable[Any]) -> list[tuple[Any, Any]]:
        """Points of another precision in this one, each with its forward step; one that comes twice is taken once."""
        points, taken = list(points), {}
        for w in points:
            if id(w) not in taken:
                v = self.xp.astype(w, self.W0.dtype)
                taken[id(w)] = v, self.forward(v, self.product(v, self.xp.empty_like(v)), s)
        return [taken[id(w)] for w in points]

    def square(self, w: Any, v: Any) -> float:
        """|w - v|^2."""

        def act(d: Any, b: Any, w: Any, v: Any) -> tuple[Any, float]:
            d = into(self.xp.subtract, w, v, out=d)
            return d, self._inner(d, d, b)

        return float(rows.each(act, *self.scratch, w, v)[1])

    def inner(self, a: Any, b: Any) -> float:
        """<a, b>."""
        return float(rows.each(lambda out, a, b: (out, self._inner(a, b, out)), self.scratch[1], a, b)[1])

    # Of rows: each takes what it writes first and returns it first, as `rows.each` asks.

    def _inner(self, a: Any, b: Any, scratch: Any) -> float:
        return float(self.xp.sum(row_products(a, b, scratch), dtype=self.xp.float64))

    def _value(self, P: Any, w: Any, W0: Any, R: Any, a: Any, b: Any) -> tuple[Any, float]:
        d = into(self.xp.subtract, w, W0, out=a)
        return P, self._inner(P, d, b) / 2 + (0.0 if R is None else self._inner(R, d, b))  # (2)

    def _change(self, Pz: Any, z: Any, v: Any, Pv: Any, R: Any, a: Any, b: Any) -> tuple[Any, float]:
        d, P = into(self.xp.subtract, z, v, out=a), into(self.xp.add, Pz, Pv, out=b)
        return Pz, self._inner(P, d, P) / 2 + (0.0 if R is None else self._inner(R, d, b))  # (3)

    def _forward(self, P: Any, w: Any, R: Any, s: float) -> Any:
        if R is not None:
            P += R  # (1)
        P *= -s
        P += w
        return P


def require_representable(problem: LayerProblem, place: Place) -> None:
    """Refuse a layer whose numbers, or whose sums of squares, leave the range of the place's precision."""
    limits, reach = np.finfo(place.dtype), float(np.abs(problem.W0).max())
    root = float(np.sqrt(problem.H.max(initial=0.0)))
    least, most = float(np.sqrt(limits.tiny)), float(np.sqrt(limits.max / problem.W0.size)) / 4
    used = reach > 0 and root > 0  # where nothing is, nothing is lost
    if place.dtype == "float32" and used and not least < reach * min(root, 1.0) <= reach * max(root, 1.0) < most:
        raise Refusal(
            f"weights up to {reach:.3g} on a Gram up to {root**2:.3g} leave the range of float32. Use the reference "
            "solver, or float64."
        )
