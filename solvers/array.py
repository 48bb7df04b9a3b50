"""Arrays of any supported library in, the same library out; the one reference file that may know torch or cupy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from solvers.refusal import Refusal
from solvers.sparsity import Array


def to_numpy(array: Any, name: str) -> Array:
    """A float64 NumPy copy of a NumPy, torch, CuPy or array-API array of real numbers."""
    try:
        xp = array_api_compat.array_namespace(array)
    except TypeError as error:
        raise Refusal(f"{name} must be a NumPy, torch, CuPy or array-API array; got {type(array).__name__}.") from error
    if not xp.isdtype(array.dtype, "real floating"):
        raise Refusal(f"{name} must hold real floating-point numbers; got {array.dtype}. Convert it first.")
    if isinstance(array, np.ndarray):
        return np.array(array, dtype=np.float64)
    values = array.detach() if hasattr(array, "detach") else array
    values = xp.astype(values, xp.float64)
    if array_api_compat.is_torch_array(values) or array_api_compat.is_cupy_array(values):
        values = array_api_compat.to_device(values, "cpu")
    return np.array(np.from_dlpack(values))


def like(result: Array, template: Any) -> Any:
    """`result` as an array of the template's library, dtype and device."""
    if isinstance(template, np.ndarray):
        return result.astype(template.dtype)
    xp = array_api_compat.array_namespace(template)
    device = array_api_compat.device(template)
    return xp.astype(xp.asarray(result, device=device), template.dtype)


class Place(NamedTuple):
    """Where a fast twin computes: an array namespace, ``float64`` or ``float32``, and a device of the namespace."""

    xp: Any
    dtype: str
    device: Any

    @classmethod
    def of(cls, array: Any, dtype: str) -> Place:
        """The library and device of an array, computing in `dtype`."""
        if dtype not in ("float64", "float32"):
            raise Refusal(f"a fast twin computes in float64 or float32; got '{dtype}'. Leave the rounding to the end.")
        return cls(array_api_compat.array_namespace(array), dtype, array_api_compat.device(array))

    def put(self, values: Array) -> Any:
        """A copy of float64 NumPy values, rounded once."""
        return self.xp.asarray(values.astype(self.dtype), device=self.device, copy=True)


def into(function: Callable[..., Any], *arguments: Any, out: Any) -> Any:
    """function(*arguments), written over `out` where the library can; the standard itself has no ``out``."""
    return function(*arguments, out=out) if _takes_out(out) else function(*arguments)


def keep_only(values: Any, mask: Any) -> Any:
    """`values` where `mask` is true and +0.0 elsewhere, written over `values` where the library can; no -0.0 stays."""
    xp = array_api_compat.array_namespace(values)
    if not _takes_out(values):
        return xp.where(mask & (values != 0), values, xp.zeros_like(values))
    xp.multiply(values, mask, out=values)  # faster than `where`, which branches at every entry
    values += 0.0  # -0.0 + 0.0 = +0.0
    return values


def ordered_bits(scores: Any) -> tuple[Any, int]:
    """The bits of floats as signed integers in the order of the floats, and how many; -0.0 and 0.0 are one integer."""
    xp = array_api_compat.array_namespace(scores)
    width = 32 if scores.dtype == xp.float32 else 64
    plain = scores + 0.0  # -0.0 + 0.0 = +0.0
    if _takes_out(plain):
        bits = plain.view(getattr(xp, f"int{width}"))
    else:  # the standard itself has no view
        bits = xp.asarray(np.from_dlpack(plain).view(f"int{width}"))
    return bits ^ ((bits >> (width - 1)) & (2 ** (width - 1) - 1)), width


def neighbours(scores: Any, k: int, scratch: Any) -> tuple[Any, Any]:
    """The k-th smallest score along the last axis, counted from 0, and the largest before it; both (..., 1).

    `scratch` has the shape of `scores` and is overwritten. NumPy's partition serves torch on the CPU too, where it is
    several times faster than ``kthvalue`` and than passes over the bits (records of the benchmark ``kernel``).
    """
    host = _on_host(scratch)
    scratch[...] = scores
    host.partition(k, axis=-1)
    before = host[..., :k].max(axis=-1, keepdims=True)
    xp = array_api_compat.array_namespace(scores)
    return scratch[..., k : k + 1], before if isinstance(scratch, np.ndarray) else xp.asarray(before)


@contextmanager
def full_precision(xp: Any) -> Iterator[None]:
    """float32 products in float32: no TF32, no bfloat16. Restores what was set."""
    if not array_api_compat.is_torch_namespace(xp):
        yield
        return
    before = xp.get_float32_matmul_precision()
    xp.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        xp.set_float32_matmul_precision(before)


def _takes_out(array: Any) -> bool:
    known = (array_api_compat.is_numpy_array, array_api_compat.is_torch_array, array_api_compat.is_cupy_array)
    return any(is_of(array) for is_of in known)


def _on_host(array: Any) -> Any:
    """A NumPy view of an array in the host's memory, or None."""
    if isinstance(array, np.ndarray):
        return array
    if array_api_compat.is_torch_array(array) and array.device.type == "cpu":
        return array.numpy()
    return None


def hosted(array: Any) -> bool:
    """Whether an array lies in the host's memory, as NumPy's and torch's on the CPU, where LAPACK can be called."""
    return _on_host(array) is not None
