"""Planted defects for the claims about rates, identification and minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from solvers import aiht, fista, iht, linalg, maiht, sparsity
from solvers.problem import LayerProblem
from solvers.sparsity import L1, Array
from theory_checks import identification, local, minima, paths
from theory_checks.mutant import Mutant, Patch

_iht, _fista, _mfista, _maiht = iht.step, fista.step, fista.monotone_step, maiht.step
_yang_yu, _momentum = aiht.step, aiht.momentum
_curvature, _ball, _reach = paths.curvature, identification.ball, minima.reach


def _stretched(step: Callable[..., Any], factor: float) -> Callable[..., Any]:
    return lambda problem, penalty, s, k, **options: step(problem, penalty, factor * s, k, **options)


def _counting(problem: LayerProblem, penalty: Any, s: float, k: fista.State, **options: bool) -> fista.State:
    """FISTA with t_k+1 = t_k + 1."""
    after = _fista(problem, penalty, s, k, **options)
    t = k.t + 1
    return after._replace(t=t, y=after.x + (k.t - 1) / t * (after.x - k.x))


def _against_z(problem: LayerProblem, penalty: Any, s: float, k: fista.State) -> fista.State:
    """MFISTA that compares z_k+1 with z_k instead of x_k."""
    last = problem.value(k.v) + penalty.value(k.v)
    return _mfista(problem, penalty, s, k._replace(Fx=last))


def _no_memory(problem: LayerProblem, penalty: Any, s: float, k: fista.State) -> fista.State:
    """MFISTA that forgets its momentum and takes a tenth of the step."""
    after = _mfista(problem, penalty, 0.1 * s, k)
    return after._replace(y=after.x, t=1.0)


def _slow_maiht(problem: LayerProblem, penalty: Any, s: float, k: maiht.State) -> maiht.State:
    """mAIHT whose every branch takes a tenth of the step."""
    return _maiht(problem, penalty, 0.1 * s, k._replace(t=1.0, t_prev=1.0, z=k.x, x_prev=k.x))


def _unguarded(problem: LayerProblem, penalty: Any, s: float, k: maiht.State) -> maiht.State:
    after = _maiht(problem, penalty, s, k)
    return after._replace(x=after.z)


def _plain_yang_yu(problem: LayerProblem, penalty: Any, s: float, k: aiht.State, **options: bool) -> aiht.State:
    """Yang and Yu's forms whose t never grows: no acceleration."""
    return _yang_yu(problem, penalty, s, k._replace(t=1.0, t_prev=0.0 if k.t_prev == 0 else 1.0), **options)


def _unprojected(problem: LayerProblem, penalty: Any, s: float, k: aiht.State, monotone: bool = True) -> aiht.State:
    """Yang and Yu's forms without (3): w = u."""
    u = _momentum(k)
    z = penalty.prox(u - s * problem.grad(u), s)
    Fz = problem.value(z) + penalty.value(z)
    x, Fx = (z, Fz) if not monotone or Fz <= k.Fx else (k.x, k.Fx)
    return aiht.State(x, k.x, z, z, (1 + np.sqrt(1 + 4 * k.t**2)) / 2, k.t, Fx, Fz)


def _after_the_step(problem: LayerProblem, penalty: Any, s: float, k: iht.State) -> iht.State:
    """IHT that thresholds before the gradient step."""
    x = penalty.prox(k.x, s)
    x = x - s * np.where(x != 0, problem.grad(x), 0.0)
    Fx = problem.value(x) + penalty.value(x)
    return iht.State(x, x, Fx, Fx)


def _dense_curvature(H: Array, S: Any) -> float:
    return _curvature(H)


def _no_cross_terms(problem: LayerProblem, mask: Any) -> Array:
    """Restoration with H_SS w0_S on the right side: it restores nothing."""
    return np.where(mask, problem.W0, 0.0)


def _hard(self: L1, Z: Array, s: float) -> Array:
    return np.where(np.abs(Z) > self.lam * s, Z, 0.0)


def _mutant(name: str, *patches: Patch, by: tuple[str, ...]) -> Mutant:
    return Mutant(name, patches, by)


def _step(name: str, owner: Any, replacement: Any, by: tuple[str, ...], attribute: str = "step") -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), by)


MUTANTS: tuple[Mutant, ...] = (
    _step("iht: a tenth of the reported step", iht, _stretched(_iht, 0.1), ("ista-rate", "ista-tight", "linear-rate")),
    _step("iht: 1.9 times the reported step", iht, _stretched(_iht, 1.9), ("support-changes", "global-minimum-rests")),
    _step("iht: 3 times the reported step", iht, _stretched(_iht, 3), ("finite-length", "convex-step", "frozen-rate")),
    _step("iht: thresholds before the gradient step", iht, _after_the_step, ("magnitude-floor",)),
    _step("fista: t_k+1 = t_k + 1", fista, _counting, ("fista-lyapunov",)),
    _step("fista: step 1.5/L, reported as 1/L", fista, _stretched(_fista, 1.5), ("fista-rate", "fista-lyapunov")),
    _step("mfista: compares with z_k", fista, _against_z, ("mfista-monotone",), "monotone_step"),
    _step("mfista: a tenth of the step, no momentum", fista, _no_memory, ("mfista-rate",), "monotone_step"),
    _step("maiht: a tenth of the step, no momentum", maiht, _slow_maiht, ("maiht-convex-rate", "maiht-local-factor")),
    _step("maiht: no safeguard on a resting support", maiht, _unguarded, ("maiht-local-factor",)),
    _step("yang-yu: t never grows", aiht, _plain_yang_yu, ("yang-yu-rate",)),
    _step("yang-yu: no projection on the support", aiht, _unprojected, ("nested-supports",)),
    _mutant(
        "rates: m replaced by 2m",
        Patch(paths, "curvature", lambda H: 2 * _curvature(H)),
        by=("linear-rate", "linear-value-rate"),
    ),
    _mutant(
        "ball: radius 1.5 times as large",
        Patch(identification, "ball", lambda *arguments: 1.5 * _ball(*arguments)),
        by=("identification-ball",),
    ),
    _mutant("slope: H instead of H_SS", Patch(local, "restricted", _dense_curvature), by=("local-slope",)),
    _step("iht: half the reported step", iht, _stretched(_iht, 0.5), ("local-dynamics", "local-slope", "linear-rate")),
    _mutant(
        "minimum: radius 3 delta",
        Patch(minima, "reach", lambda *arguments: 3 * _reach(*arguments)),
        by=("local-minimum-radius",),
    ),
    _mutant(
        "least squares: the cross terms are dropped",
        Patch(linalg, "least_squares_exact", _no_cross_terms),
        by=("coordinatewise-minimum",),
    ),
    _step("iht: the step is cut to 1/L", iht, lambda p, g, s, k: _iht(p, g, min(s, 1.0), k), ("step-limit-sharp",)),
    _mutant("L1: hard threshold", Patch(sparsity.L1, "prox", _hard), by=("convex-step", "ista-rate")),
)
