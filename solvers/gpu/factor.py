"""Factors of a Gram for the twins: once per site, in float64 on the device where they serve, rounded by their user.

Letters: A = H + a diagonal shift, positive definite; J the exchange matrix that reverses the order of the inputs.

    A = L L',            A^-1 = L'^-1 L^-1                                                        (1)
    J A J = L L',        U = J L^-1 J is upper triangular and A^-1 = U'U                          (2)
    H = Q diag(l) Q'                                                                              (3)

In the host's memory LAPACK inverts the triangle in place; elsewhere the library's own solver does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from solvers.array import Place, hosted
from solvers.linalg import cholesky
from solvers.problem import Gram
from solvers.refusal import Refusal
from solvers.sparsity import Array


def inverse(gram: Gram, rho: float, place: Place) -> Any:
    """(H + rho I)^-1 (1) in float64, or a Refusal."""
    return _shared(gram, ("inverse", rho), place, lambda: _inverse(gram.H + rho * np.eye(len(gram.H)), place))


def upper(gram: Gram, lifted: Array, name: object, place: Place) -> Any:
    """U (2) of the lifted Gram in float64, or a Refusal; `name` tells one lift from another."""
    return _shared(gram, ("upper", name), place, lambda: _upper(lifted, place))


def eigen(gram: Gram, place: Place) -> tuple[Any, Any]:
    """l and Q (3) in float64."""
    found: tuple[Any, Any] = _shared(gram, "eigen", place, lambda: _eigen(gram, place))
    return found


def _inverse(A: Array, place: Place) -> Any:
    if hosted(place.put(np.zeros(1))):
        M, _ = scipy.linalg.lapack.dpotri(cholesky(A, "the Gram plus rho")[0], lower=1, overwrite_c=1)
        low = np.tril(M)
        return _there(low + np.tril(low, -1).T, place)
    L = _triangle(A, "the Gram plus rho", place)
    T = place.xp.linalg.inv(L)
    return place.xp.matmul(T.T, T)


def _upper(A: Array, place: Place) -> Any:
    if hosted(place.put(np.zeros(1))):
        L = np.tril(cholesky(A[::-1, ::-1], "the damped Gram")[0])
        T, _ = scipy.linalg.lapack.dtrtri(L, lower=1, overwrite_c=1)
        return _there(np.ascontiguousarray(T[::-1, ::-1]), place)
    T = place.xp.linalg.inv(_triangle(A[::-1, ::-1], "the damped Gram", place))
    return place.xp.flip(place.xp.tril(T))


def _eigen(gram: Gram, place: Place) -> tuple[Any, Any]:
    if hosted(place.put(np.zeros(1))):
        values, vectors = gram.eigen
        return _there(values, place), _there(vectors, place)
    found = place.xp.linalg.eigh(_there(gram.H, place))
    return found[0], found[1]


def _triangle(A: Array, what: str, place: Place) -> Any:
    """L of a Cholesky factorisation by the library, refused in words where it breaks down, loudly or in NaN."""
    try:
        L = place.xp.linalg.cholesky(_there(A, place))
        broken = not bool(place.xp.all(place.xp.isfinite(L)))
    except (np.linalg.LinAlgError, RuntimeError):
        broken = True
    if broken:
        cholesky(A, what)  # says why, in the words of the reference
        raise Refusal(f"{what} could not be factored on {place.device} in float64. Use the reference solver.")
    return L


def _shared(gram: Gram, name: object, place: Place, make: Callable[[], Any]) -> Any:
    key = (name, place.xp.__name__, str(place.device))
    if key not in gram.factors:
        gram.factors[key] = make()
    return gram.factors[key]


def exact(place: Place) -> Place:
    """The same place in float64."""
    return Place.of(place.put(np.zeros(1)), "float64")


def _there(values: Array, place: Place) -> Any:
    return exact(place).put(values)
