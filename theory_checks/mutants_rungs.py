"""Planted defects in the rungs of precision and in the change from one to another; see `theory_checks.mutants`."""

from __future__ import annotations

from typing import Any

import array_api_compat

from solvers.array import Place
from solvers.gpu import iterate, layer, precision
from solvers.gpu import maiht as fast_maiht
from solvers.solution import Trace
from theory_checks.mutant import Mutant, Patch

_rounded, _turn, _change_to = precision.rounded, iterate._turn, Trace.change_to
_resumed = layer.Layer.resumed


def _cut(array: Any, bits: int) -> Any:
    """Towards zero instead of to nearest."""
    xp = array_api_compat.array_namespace(array)
    near = _rounded(array, bits)
    return xp.where(xp.abs(near) > xp.abs(array), _rounded(array * (1 - 2.0 ** (1 - bits)), bits), near)


def _one_bit_less(array: Any, bits: int) -> Any:
    return _rounded(array, bits - 1)


def _steps_kept(quadratic: Any, s: float, k: Any, x_prev: Any) -> Any:
    """The forward steps of the lower rung are only cast."""
    (x, _), (_, _), (z, _) = quadratic.resumed(s, (k.x, x_prev, k.z))
    ux, u_prev, uz = (quadratic.xp.astype(u, quadratic.W0.dtype) for u in (k.ux, k.u_prev, k.uz))
    return fast_maiht.State(x, z, x, ux, u_prev, uz, k.t, k.t_prev)


def _stale_points(quadratic: Any, s: float, points: Any) -> Any:
    """Points are cast, and their products taken on the rung that they come from."""
    rung, quadratic.rung = quadratic.rung, precision.RUNGS["bf16"]
    quadratic.split = precision.split(quadratic.H, quadratic.rung)
    found = _resumed(quadratic, s, points)
    quadratic.rung, quadratic.split = rung, None
    return found


def _one_late(goal: Any, place: Any, iters: int, ramp: float) -> int:
    return _turn(goal, place, iters, ramp) + 1


def _not_said(trace: Trace, dtype: str) -> None:
    _change_to(trace, dtype)
    trace.ramp_dtype = dtype


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), tuple(by.split()))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("rung: factors cut, not rounded", precision, "rounded", _cut, "rung-product"),
    _mutant("rung: a bit less", precision, "rounded", _one_bit_less, "rung-product rung-loss"),
    _mutant("rung: h l is left out of bf16x3", precision, "CROSS", ((1, 0), (0, 0)), "rung-product rung-loss"),
    _mutant("rung: l l instead of l h", precision, "CROSS", ((1, 1), (0, 1), (0, 0)), "rung-product rung-loss"),
    _mutant("finish: the products of the ramp", layer.Layer, "resumed", _stale_points, "twin-finish"),
    _mutant("finish: forward steps of the ramp", fast_maiht, "resume", _steps_kept, "twin-finish"),
    _mutant("finish: never", Place, "finished", property(lambda place: place), "twin-finish"),
    _mutant("finish: one step late", iterate, "_turn", _one_late, "twin-finish"),
    _mutant("finish: the trace forgets the rung", Trace, "change_to", _not_said, "twin-finish"),
)
