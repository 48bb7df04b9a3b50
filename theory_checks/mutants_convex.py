"""Planted defects for the rates under convexity, Frank-Wolfe on masks, and the text of mAIHT that remembers."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers import aiht, fista, frank_wolfe, restart, sparsity
from solvers.problem import LayerProblem
from solvers.sparsity import Array
from theory_checks import cached, linear, relaxation
from theory_checks.mutant import Mutant, Patch
from theory_checks.mutants_rates import _unprojected

_halves, _momentum, _period = fista.halves_step, restart.momentum, restart.period
_gaps, _cached, _rest = frank_wolfe.gaps, cached.step, linear.rest


def _too_little(problem: LayerProblem, penalty: Any, s: float, k: fista.State) -> fista.State:
    """Momentum i/(i + 4)."""
    after = _halves(problem, penalty, s, k)
    i = 2 * k.t - 2
    return after._replace(y=after.x + i / (i + 4) * (after.x - k.x))


def _unprojected_alone(problem: LayerProblem, penalty: Any, s: float, k: aiht.State) -> aiht.State:
    return _unprojected(problem, penalty, s, k, monotone=False)


def _steepest(G: Array, k: int) -> Array:
    """The vertex of the largest magnitudes of the gradient: its sign is forgotten."""
    return sparsity.largest(np.abs(G), k).astype(np.float64)


def _stale(problem: LayerProblem, penalty: Any, s: float, k: cached.State) -> cached.State:
    """After z was rejected the product of the z before it is used."""
    after = _cached(problem, penalty, s, k)
    return after if after.x is after.z else after._replace(Pz=k.Pz)


def _swapped(problem: LayerProblem, penalty: Any, s: float, k: cached.State) -> cached.State:
    """The product of z is kept for x although v was taken."""
    after = _cached(problem, penalty, s, k)
    return after._replace(Px=after.Pz)


def _recomputed(problem: LayerProblem, penalty: Any, w: Array, P: Array) -> float:
    """F from another product."""
    return problem.value(w) + float(penalty.value(w))


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, *by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), by)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("fista: momentum i/(i + 4)", fista, "halves_step", _too_little, "fista-halves-rate"),
    _mutant("v-fista: no momentum", restart, "momentum", lambda s, m: 0.0, "strong-rate"),
    _mutant(
        "v-fista: m a hundred times too large",
        restart,
        "momentum",
        lambda s, m: _momentum(s, min(100 * m, 1 / s)),
        "strong-rate",
    ),
    _mutant("restart: after every step", restart, "period", lambda s, m: 1, "restart-halves"),
    _mutant(
        "restart: m a hundred times too large", restart, "period", lambda s, m: _period(s, 100 * m), "restart-halves"
    ),
    _mutant("yang-yu: no projection in Alg. 2", aiht, "nonmonotone_step", _unprojected_alone, "nested-supports"),
    _mutant(
        "rates: the clock starts at k0 = 1 whatever moves later",
        linear,
        "rest",
        lambda path: min(1, _rest(path)),
        "yang-yu-rate",
    ),
    _mutant("frank-wolfe: step 1/(n + 2)", frank_wolfe, "length", lambda n: 1 / (n + 2), "frank-wolfe-rate"),
    _mutant(
        "frank-wolfe: the vertex forgets signs", frank_wolfe, "vertex", _steepest, "frank-wolfe-rate", "frank-wolfe-gap"
    ),
    _mutant(
        "frank-wolfe: half the gap",
        frank_wolfe,
        "gaps",
        lambda *arguments: _gaps(*arguments) / 2,
        "frank-wolfe-gap",
        "mask-lower-bound",
    ),
    _mutant("masks: diameter sqrt(k)", relaxation, "squared_diameter", lambda k, p: float(k), "mask-diameter"),
    _mutant("cached: stale product of a rejected z", cached, "step", _stale, "cached-gradients"),
    _mutant("cached: the product of z for x", cached, "step", _swapped, "cached-gradients"),
    _mutant("cached: values from new products", cached, "objective", _recomputed, "two-products"),
)
