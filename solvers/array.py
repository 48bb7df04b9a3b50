"""Arrays of any supported library in, the same library out; the one reference file that may know torch or cupy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
import scipy.linalg

from solvers import rungs
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
    if isinstance(array, np.ndarray | np.generic):
        return np.array(array, dtype=np.float64)
    if array_api_compat.is_torch_array(array) and (array.is_meta or "strided" not in str(array.layout)):
        raise Refusal(
            f"{name} must hold every number in memory; got a tensor on {array.device}, layout {array.layout}. Usually "
            "the weights were not loaded yet, or are sparse: load them, or pass .to_dense()."
        )
    values = array.detach() if hasattr(array, "detach") else array
    values = xp.astype(values, xp.float64)
    if array_api_compat.is_torch_array(values) or array_api_compat.is_cupy_array(values):
        values = array_api_compat.to_device(values, "cpu")
    return np.array(np.from_dlpack(values))


def like(result: Array, template: Any) -> Any:
    """`result` as an array of the template's library, dtype and device; refused where that dtype cannot hold it."""
    xp = array_api_compat.array_namespace(template)
    if isinstance(template, np.ndarray):
        with np.errstate(over="ignore"):
            cast = result.astype(template.dtype)
    else:
        cast = xp.astype(xp.asarray(result, device=array_api_compat.device(template)), template.dtype)
    require_held(result, bool(xp.all(xp.isfinite(cast))), template.dtype)
    return cast


def require_held(weight: Array, finite: bool, dtype: Any) -> None:
    """Refuse finite weights that are not `finite` in the dtype to which they were cast."""
    if not finite:
        raise Refusal(
            f"the pruned weights reach {np.abs(weight).max():.3g}, beyond the range of {dtype}. Usually some make good "
            "for others on a nearly singular Gram: use a larger ridge, other calibration text, or float32 weights."
        )


class Place(NamedTuple):
    """Where a fast twin computes: an array namespace, a rung of `solvers.rungs`, and a device of the namespace.

    `finish` is the rung from the first step at the final budget on, after a schedule towards it.
    """

    xp: Any
    rung: str
    device: Any
    finish: str = "fp64"

    @classmethod
    def of(cls, array: Any, dtype: str, finish: str = "fp64") -> Place:
        """The library and device of an array, computing in `dtype`: ``float64``, ``float32``, a rung or ``auto``."""
        device = array_api_compat.device(array)
        rung, last = (rungs.resolve(name, device) for name in (dtype, finish))
        return cls(array_api_compat.array_namespace(array), rung, device, last)

    @property
    def dtype(self) -> str:
        """``float64`` or ``float32``, of the arrays."""
        return rungs.RUNGS[self.rung].dtype

    @property
    def precision(self) -> str:
        """What a trace says of rows that are taken here, and `theory_checks.allowance` reads."""
        return rungs.RUNGS[self.rung].precision

    @property
    def finished(self) -> Place:
        """The place of the steps at the final budget."""
        return self._replace(rung=self.finish)

    @property
    def on_host(self) -> Place:
        """NumPy's place instead of torch's on the CPU, whose products are slower and whose small calls cost twice."""
        torchs = array_api_compat.is_torch_namespace(self.xp) and "cpu" in str(self.device)
        return self._replace(xp=array_api_compat.array_namespace(np.zeros(0)), device="cpu") if torchs else self

    def put(self, values: Array) -> Any:
        """A copy of float64 NumPy values, rounded once."""
        return self.xp.asarray(values.astype(self.dtype), device=self.device, copy=True)


def into(function: Callable[..., Any], *arguments: Any, out: Any) -> Any:
    """function(*arguments), written over `out` where the library can; the standard itself has no ``out``."""
    return function(*arguments, out=out) if _takes_out(out) else function(*arguments)


def row_products(a: Any, b: Any, scratch: Any) -> Any:
    """<a, b> of every row, (rows,); `scratch` may be overwritten. NumPy forms no products to sum."""
    xp = array_api_compat.array_namespace(a)
    if isinstance(a, np.ndarray):
        return np.vecdot(a, b)
    return xp.sum(into(xp.multiply, a, b, out=scratch), axis=-1)


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

    `scratch` has the shape of `scores` and may be overwritten. NumPy's partition serves torch on the CPU too, where it
    is several times faster than ``kthvalue`` and than passes over the bits (records of the benchmark ``kernel``).
    """
    xp, host = array_api_compat.array_namespace(scores), _on_host(scratch)
    if host is None:  # the standard itself has no partition
        ordered = xp.sort(scores, axis=-1)
        return ordered[..., k : k + 1], ordered[..., k - 1 : k]
    scratch[...] = scores
    host.partition(k, axis=-1)
    before = host[..., :k].max(axis=-1, keepdims=True)
    return scratch[..., k : k + 1], before if isinstance(scratch, np.ndarray) else xp.asarray(before)


def replace_rows(array: Any, rows: Any, values: Any) -> None:
    """array[rows] = values, in place; the standard itself has no assignment by an array of numbers."""
    if _takes_out(array):
        array[rows] = values
        return
    for place in range(rows.shape[0]):
        array[int(rows[place]), ...] = values[place, ...]


def subtract_product(T: Any, left: Any, right: Any) -> Any:
    """T - left @ right for a batch (count, m, n) and thin factors, written over T.

    The host's BLAS adds a thin product to a matrix in one pass over it; a product and a difference take two.
    """
    if array_api_compat.is_torch_array(T):
        return T.baddbmm_(left, right, alpha=-1)
    if not isinstance(T, np.ndarray):
        T -= array_api_compat.array_namespace(T).matmul(left, right)
        return T
    (gemm,) = scipy.linalg.blas.get_blas_funcs(("gemm",), (T,))
    for matrix, thin, wide in zip(T, left, right, strict=True):
        gemm(-1.0, wide.T, thin.T, beta=1.0, c=matrix.T, overwrite_c=1)
    return T


def inverse(A: Any) -> tuple[Any, list[int]]:
    """Inverses of positive definite (count, n, n), by Cholesky, and the numbers of those that are not; then of none.

    LAPACK serves the host's memory one matrix at a time, in half the time of ``inv``.
    """
    xp, host = array_api_compat.array_namespace(A), _on_host(A)
    if host is None and array_api_compat.is_torch_array(A):
        factor, flaws = xp.linalg.cholesky_ex(A)
        return xp.cholesky_inverse(factor), np.flatnonzero(flaws.cpu().numpy()).tolist()
    if host is None:
        failed = [q for q in range(A.shape[0]) if not _is_positive_definite(xp, A[q, ...])]
        return A if failed else xp.linalg.inv(A), failed
    lapack, wide = scipy.linalg.lapack, host.dtype == np.float64
    potrf, potri = (lapack.dpotrf, lapack.dpotri) if wide else (lapack.spotrf, lapack.spotri)
    found, failed = np.empty_like(host), []
    for q, matrix in enumerate(host):
        factor, flaw = potrf(matrix.T, lower=1, clean=1)
        half = potri(factor, lower=1, overwrite_c=1)[0]
        np.add(half, half.T, out=found[q])
        np.fill_diagonal(found[q], np.diag(half))
        if flaw:
            failed.append(q)
    return found if isinstance(A, np.ndarray) else xp.asarray(found), failed


def full_precision(xp: Any) -> AbstractContextManager[None]:
    """float32 products in float32: no TF32, no bfloat16. Restores what was set."""
    return _float32_products(xp, "highest")


def tensor_float(xp: Any) -> AbstractContextManager[None]:
    """float32 products by TF32 tensor cores, where torch has them. Restores what was set."""
    return _float32_products(xp, "high")


@contextmanager
def _float32_products(xp: Any, how: str) -> Iterator[None]:
    if not array_api_compat.is_torch_namespace(xp):
        yield
        return
    before = xp.get_float32_matmul_precision()
    xp.set_float32_matmul_precision(how)
    try:
        yield
    finally:
        xp.set_float32_matmul_precision(before)


def has_tensor_cores(array: Any) -> bool:
    """Whether products of an array can be left to tensor cores: torch on CUDA; all else emulates them."""
    return bool(array_api_compat.is_torch_array(array)) and array.device.type == "cuda"


def _is_positive_definite(xp: Any, A: Any) -> bool:
    try:
        return bool(xp.all(xp.isfinite(xp.linalg.cholesky(A))))  # CuPy returns nan where others raise
    except np.linalg.LinAlgError:
        return False


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


def on_device(array: Any) -> bool:
    """Whether an array of torch or CuPy lies on a device, where what branches or sorts is slow and passes are fast."""
    return _takes_out(array) and not hosted(array)


def hosted(array: Any) -> bool:
    """Whether an array lies in the host's memory, as NumPy's and torch's on the CPU, where LAPACK can be called."""
    return _on_host(array) is not None
