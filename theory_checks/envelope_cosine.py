"""The Moreau envelope of beta cos x: a weakly convex function that no eigenvalue describes.

    e_rho(x) = min_v beta cos v + (v - x)^2 / 2 rho                                               (1)
    (v - x) / rho = beta sin v                                                                    (2)
    grad e_rho(x) = (x - v) / rho,   v = prox(x) the only root of (2) if rho beta < 1             (3)

Letters: x, y, v numbers, beta > 0 the curvature, rho > 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, sin

import numpy as np
from scipy.optimize import brentq

from solvers.sparsity import Array
from theory_checks import envelope
from theory_checks.certificate import Certificate, allowance
from theory_checks.synthetic import Case, Check

GRID = 201


def cosine_prox(x: float, rho: float, beta: float) -> float:
    """The root of (2), bracketed by |v - x| <= rho beta and found by Brent's method, which never leaves the bracket."""
    reach = 2 * rho * beta
    eps = float(np.finfo(np.float64).eps)

    def residual(v: float) -> float:
        return v - x - rho * beta * sin(v)  # (2)

    return float(brentq(residual, x - reach, x + reach, xtol=eps * reach))


def cosine_gradient(x: float, rho: float, beta: float) -> float:
    """grad e_rho(x), equation (3)."""
    return (x - cosine_prox(x, rho, beta)) / rho


def cosine_prox_minimises(beta: float, x: float, rho: float) -> Certificate:
    """beta cos v + (v - x)^2 / 2 rho at v = prox(x) is no larger than at any v within rho beta of x.

    Assumptions: beta > 0 and rho beta < 1, checked. Measured: the value at the prox. Bound: the least on a grid that
    reaches beyond every minimiser. Why: |v - x| = rho beta |sin v|. Where: derived here. Upper bound.
    """
    name, claim = "cosine-prox", "beta cos v + (v - x)^2/2rho at v = prox(x) <= at every v of a grid"
    if reason := _outside(beta, rho):
        return Certificate(name, claim, "derived here", 0.0, 0.0, applies=reason)

    def value(v: Array) -> Array:
        return beta * np.cos(v) + np.square(v - x) / (2 * rho)

    grid = np.linspace(x - rho * beta, x + rho * beta, GRID)
    measured = float(value(np.array([cosine_prox(x, rho, beta)])).min())
    scale = beta * (1 + abs(x)) + rho * beta**2
    return Certificate(name, claim, "derived here", measured, float(value(grid).min()), allowance(scale, 1))


def cosine_envelope_lipschitz(beta: float, x: float, y: float, rho: float) -> Certificate:
    """|e'(x) - e'(y)| <= |x - y| / min(rho, 1/beta - rho) for the envelope (1).

    Assumptions: beta > 0 and rho beta < 1, checked. Why: e'' = l / (1 + rho l) at l = -beta cos v, at most
    beta / (1 - rho beta) in magnitude. Where: Hoheisel, Laborde, Oberman 2020. Tight: rho >= 1 / 2 beta, x and y
    approaching a maximum of the cosine.
    """
    name, claim = "cosine-lipschitz", "|e'(x) - e'(y)| <= |x - y| / min(rho, 1/beta - rho), q = beta cos"
    where = "weakly convex envelopes, Hoheisel et al. 2020"
    if reason := _outside(beta, rho):
        return Certificate(name, claim, where, 0.0, 0.0, applies=reason)
    measured = abs(cosine_gradient(x, rho, beta) - cosine_gradient(y, rho, beta))
    bound = envelope.lipschitz(rho, beta) * abs(x - y)
    scale = (abs(x) + abs(y) + 4 * rho * beta) * (1 / rho + beta) / (1 - rho * beta)
    return Certificate(name, claim, where, measured, bound, allowance(scale, 1))


def _outside(beta: float, rho: float) -> str:
    return "" if beta > 0 and 0 < rho * beta < 1 else f"beta = {beta:.3g}, rho * beta = {rho * beta:.3g}"


def _minimisers(case: Case) -> Iterator[Certificate]:
    rng = case.rng(56)
    beta = float(10 ** rng.uniform(-1, 1))
    for share in (0.3, 0.8, 0.95):
        for x in (0.0, *rng.uniform(-8, 8, 3)):
            yield cosine_prox_minimises(beta, float(x), share / beta)


def _pairs(case: Case) -> Iterator[Certificate]:
    """Pairs anywhere, and pairs that close in on a maximum, for rho on both sides of 1 / 2 beta."""
    rng = case.rng(55)
    beta = float(10 ** rng.uniform(-1, 1))
    for share in (0.3, 0.5, 0.8, 0.95):
        x, y = rng.uniform(-8, 8, 2)
        yield cosine_envelope_lipschitz(beta, float(x), float(y), share / beta)
        for top in (0.0, 2 * pi):
            h = float(rng.uniform(0, 0.1)) * (1 - share)
            yield cosine_envelope_lipschitz(beta, top + h, top - h, share / beta)


CHECKS: dict[str, Check] = {"cosine-prox": _minimisers, "cosine-lipschitz": _pairs}
