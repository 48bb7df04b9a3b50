"""Arrays of any supported library in, the same library out; the one reference file that may know torch or cupy."""

from __future__ import annotations

from typing import Any

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
