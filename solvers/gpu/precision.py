"""Products with the Gram on a rung of `solvers.rungs`: by tensor cores where torch has them, elsewhere by rounding.

Letters as in `solvers.rungs`; D = w - W0 the left factor, H the Gram, split once per layer; y a float32 number.

    fl(y) = (y + 2^(53-b) y) - 2^(53-b) y        in float64: to nearest, ties to even             (1)
    fp64, fp32:   P = D H                                                                         (2)
    tf32, bf16:   P = fl(D) fl(H)                                                                 (3)
    bf16x3:       P = l_D h_H + h_D l_H + h_D h_H, added in this order                            (4)

(1): the 24 bits of y end above the last place of the sum, so that y alone is rounded, to b bits. Products of two
numbers of at most 11 bits are exact in float32: rounding the factors and multiplying in float32 is what tensor cores
do, up to the order of the sums. Below 2^-126, where bfloat16 has fewer bits, nothing is lost here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from solvers.array import Place, has_tensor_cores, into, tensor_float, to_numpy
from solvers.rungs import AUTO, RUNGS, Rung, read, resolve

__all__ = ["AUTO", "RUNGS", "Rung", "kept_bits", "product", "read", "resolve", "rounded", "split"]

CROSS = ((1, 0), (0, 1), (0, 0))  # parts of D and H whose products are added, the small ones first: (4)


def rounded(array: Any, bits: int) -> Any:
    """fl: the nearest numbers of `bits` significant bits to those of a float32 array, ties to even."""
    xp = array_api_compat.array_namespace(array)
    wide = xp.astype(array, xp.float64)
    shift = wide * 2.0 ** (53 - bits)
    return xp.astype((wide + shift) - shift, array.dtype)  # (1)


def split(array: Any, rung: Rung) -> tuple[Any, ...]:
    """A factor as the rung multiplies it: itself, rounded, or high and low part."""
    if not rung.unit:
        return (array,)
    xp = array_api_compat.array_namespace(array)
    high = _narrowed(array, rung)
    return (high,) if rung.parts == 1 else (high, _narrowed(array - xp.astype(high, array.dtype), rung))


def product(left: Any, right: tuple[Any, ...], rung: Rung, out: Any) -> Any:
    """left times a factor that `split` made, written over `out` where the library can."""
    if not rung.unit:
        return into(array_api_compat.array_namespace(left).matmul, left, right[0], out=out)  # (2)
    if rung.name == "tf32" and has_tensor_cores(left):
        with tensor_float(array_api_compat.array_namespace(left)):
            return into(array_api_compat.array_namespace(left).matmul, left, right[0], out=out)  # (3)
    parts = split(left, rung)
    if rung.parts == 1:
        return _times(parts[0], right[0], out)  # (3)
    (i, j), *others = CROSS
    total = _times(parts[i], right[j], out)
    for i, j in others:
        total += _times(parts[i], right[j], None)  # (4)
    return total


def _narrowed(array: Any, rung: Rung) -> Any:
    if rung.bits == RUNGS["bf16"].bits and has_tensor_cores(array):
        xp = array_api_compat.array_namespace(array)
        return xp.astype(array, xp.bfloat16)
    return rounded(array, rung.bits)


def _times(left: Any, right: Any, out: Any) -> Any:
    xp = array_api_compat.array_namespace(left)
    if has_tensor_cores(left) and left.dtype == xp.bfloat16:
        return xp.mm(left, right, out_dtype=xp.float32, **({} if out is None else {"out": out}))
    return xp.matmul(left, right) if out is None else into(xp.matmul, left, right, out=out)


def kept_bits(multiply: Callable[[Any, Any], Any], place: Place, size: int = 256) -> int:
    """How many significant bits of either factor and of the sums a matrix product keeps, found from its values.

    Three products that are exact in the dtype of the place however they are summed: diagonals of numbers with
    1, 2, ... bits times ones, from the left and from the right, and sums of a power of two and a one.

    Parameters
    ----------
    multiply : (left, right) -> product of two (size, size) arrays of the place
    size : a power of two large enough that the library takes its usual kernel

    Returns
    -------
    int
        53 for float64, 24 for float32, 11 where factors were rounded to TF32, 8 for bfloat16, and fewer than 20 for
        two parts of bfloat16.
    """
    most = RUNGS["fp64" if place.dtype == "float64" else "fp32"].bits
    n = np.minimum(np.arange(size), most - 1)  # row n holds a number of n + 1 bits
    alternating = np.floor(2.0**n * 4 / 3)
    alternating = np.floor(2.0**n * 4 / 3)
    values = (alternating + (alternating + 1) % 2) / 2.0**n  # 1.0101...1: both parts of such a number are long
    ones, steps = np.ones((size, size)), np.zeros((size, size))
    steps[:, 0], steps[:, -1] = 2.0**n, 1.0
    steps[0, 0] = 0.0  # one bit: a single one
    exact = (
        (np.diag(values), ones, np.tile(values[:, None], size)),
        (ones, np.diag(values), np.tile(values, (size, 1))),
        (steps, ones, np.tile(steps.sum(axis=1)[:, None], size)),
    )
    right = [_same(multiply(place.put(A), place.put(B)), place.put(C)) for A, B, C in exact]
    found = right[0].all(axis=1) & right[1].all(axis=0) & right[2].all(axis=1)
    return most if found.all() else int(np.argmin(found))


def _same(array: Any, other: Any) -> Any:
    return to_numpy(array, "product") == to_numpy(other, "product")
