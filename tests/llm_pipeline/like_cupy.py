"""An array that behaves as CuPy's do, without a device: what refuses there refuses here, what answers answers.

It takes no NumPy array into an operation, becomes none unasked, gives arrays of no dimension where NumPy gives numbers,
and knows the functions, methods and arguments that CuPy 14.2 has, of those that the claims use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

UFUNCS = (
    *("absolute", "add", "divide", "maximum", "minimum", "multiply", "negative", "sign", "sqrt", "square", "subtract"),
    *("equal", "greater", "greater_equal", "isfinite", "less", "less_equal", "not_equal", "signbit", "matmul"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "invert", "power"),
)
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "numpy.any": ("a", "axis", "out", "keepdims"),
    "numpy.array_equal": ("a1", "a2", "equal_nan"),
    "numpy.broadcast_to": ("array", "shape"),
    "numpy.count_nonzero": ("a", "axis"),
    "numpy.diag": ("v", "k"),
    "numpy.mean": ("a", "axis", "dtype", "out", "keepdims"),
    "numpy.vdot": ("a", "b"),
    "numpy.where": ("condition", "x", "y"),
    "numpy.zeros_like": ("a", "dtype", "order", "subok", "shape"),
    "numpy.linalg.eigvalsh": ("a", "UPLO"),
    "numpy.linalg.norm": ("x", "ord", "axis", "keepdims"),
}
METHODS: dict[str, tuple[str, ...]] = {
    "all": ("axis", "out", "keepdims"),
    "any": ("axis", "out", "keepdims"),
    "argmax": ("axis", "out", "dtype", "keepdims"),
    "astype": ("dtype", "order", "casting", "subok", "copy"),
    "copy": ("order",),
    "cumsum": ("axis", "dtype", "out"),
    "max": ("axis", "out", "keepdims"),
    "mean": ("axis", "dtype", "out", "keepdims"),
    "min": ("axis", "out", "keepdims"),
    "ravel": ("order",),
    "reshape": ("shape", "order", "copy"),
    "sum": ("axis", "dtype", "out", "keepdims"),
}


class Unlike(TypeError):
    """What CuPy would not do either."""


class Array(NDArrayOperatorsMixin):
    """An array on a device that is not there."""

    __array_priority__ = 100

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise Unlike("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            return NotImplemented
        if "out" in options:
            options["out"] = tuple(map(_plain, options["out"]))
            ufunc(*map(_plain, inputs), **options)
            return self
        return Array(ufunc(*map(_plain, inputs), **options))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        known = FUNCTIONS.get(f"{function.__module__}.{function.__name__}")
        if known is None or set(options) - set(known):
            return NotImplemented
        if not isinstance(args[0], Array):  # the first argument is an array in every one of them
            raise Unlike(f"{function.__name__} of {type(args[0]).__name__}")
        return Array(function(*map(_plain, args), **{key: _plain(value) for key, value in options.items()}))

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(f"an array on a device has no {name} here; look it up, then add it")

        def call(*args: Any, **options: Any) -> Array:
            if set(options) - set(METHODS[name]):
                raise Unlike(f"{name}({', '.join(options)})")
            return Array(getattr(self._values, name)(*args, **options))

        return call

    def sort(self, axis: int = -1) -> None:
        if not self._values.flags.c_contiguous:
            raise NotImplementedError("Sorting non-contiguous array is not supported.")
        self._values.sort(axis=axis)

    def __getitem__(self, key: Any) -> Array:
        return Array(self._values[tuple(map(_plain, key)) if isinstance(key, tuple) else _plain(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[tuple(map(_plain, key)) if isinstance(key, tuple) else _plain(key)] = _plain(value)

    def __len__(self) -> int:
        return len(self._values)

    def __float__(self) -> float:
        return float(self._values)

    def __int__(self) -> int:
        return int(self._values)

    def __bool__(self) -> bool:
        return bool(self._values)

    shape = property(lambda self: self._values.shape)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    dtype = property(lambda self: self._values.dtype)
    T = property(lambda self: Array(self._values.T))


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return value._values
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim):
        raise Unlike(f"Unsupported type {type(value)}")
    return value


def put(values: np.ndarray) -> Array:
    """A copy there."""
    return Array(np.array(values))
