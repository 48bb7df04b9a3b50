"""Planted defects in the fast twins that update weights; see `theory_checks.mutants` for the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers import sparsegpt as reference
from solvers.gpu import admm, alps, factor, fista, refine, sparsegpt
from solvers.gpu.refine import Support
from theory_checks.mutant import Mutant, Patch

_admm_step, _chosen, _inverse, _alps_step, _blocks = admm.step, admm.chosen, factor.inverse, alps.step, reference.blocks
_eliminate, _start, _fista_step, _rounded, _steepest = (
    sparsegpt.eliminate,
    sparsegpt.start,
    fista.step,
    fista.rounded,
    fista.steepest,
)
_correction = refine.correction


def _stale_dual(layer: Any, to: Any, sparsity: Any, stage: Any, mask: Any, k: admm.State) -> Any:
    old = k.U.copy()
    after, mask = _admm_step(layer, to, sparsity, stage, mask, k)
    return after._replace(U=old), mask


def _stale_mask(layer: Any, to: Any, sparsity: Any, stage: Any, mask: Any, k: admm.State) -> Any:
    """Once there is a mask it is not chosen anew."""
    return _admm_step(layer, to, sparsity, stage if mask is None else None, mask, k)


def _at_once(xp: Any, sparsity: Any, stage: Any, A: Any) -> Any:
    return _chosen(xp, sparsity, sparsity, A)


def _without_rho(gram: Any, rho: float, place: Any) -> Any:
    return _inverse(gram, rho / 2, place)


def _dual_over_rho(layer: Any, sparsity: Any, rho: float, H: Any, k: alps.State) -> Any:
    Y, after = _alps_step(layer, sparsity, rho, H, k)
    return Y, after._replace(V=after.V / rho)


def _backwards(sparsity: Any, n: int, blocksize: int) -> Any:
    return reversed(list(_blocks(sparsity, n, blocksize)))


def _not_carried_on(k: Any, j: int, last: int, goes: Any) -> None:
    _eliminate(k, j, j + 1, goes)


def _banded(problem: Any, damping: float, place: Any) -> Any:
    """What lies more than two columns ahead is not made good."""
    k = _start(problem, damping, place)
    return k._replace(U=np.triu(k.U) - np.triu(k.U, 3))


def _stale_product(layer: Any, penalty: Any, s: float, k: fista.State, held: Any) -> fista.State:
    return _fista_step(layer, penalty, s, k, held)._replace(P=k.P.copy())


def _no_momentum(layer: Any, penalty: Any, s: float, k: fista.State, held: Any) -> fista.State:
    return _fista_step(layer, penalty, s, k._replace(b=0.0), held)


def _product_again(layer: Any, penalty: Any, s: float, k: fista.State, held: Any) -> fista.State:
    after = _fista_step(layer, penalty, s, k, held)
    return after._replace(P=layer.product(after.x, after.P))


def _product_of_the_difference(layer: Any, budget: Any, V: Any, P: Any, held: Any) -> Any:
    """P_V is not added to (W - V) H."""
    found, rounding = _rounded(layer, budget, V, P, held)
    return found._replace(P=found.P - P), rounding


def _lent_twice(layer: Any, held: Any) -> float:
    return _steepest(layer, layer.buffers[2:4])


def _once(on: Any, residual: Any, asked: Any, iters: int) -> Any:
    """The residual of the first correction is not corrected."""
    return _correction(on, residual, asked, iters)[0], iters


def _in_float32(self: Support, W: Any, d: Any) -> Any:
    return (W.astype(np.float32) + d.astype(np.float32)).astype(np.float64)


def _beyond_the_mask(self: Support, d: Any, out: Any) -> Any:
    return d @ self.H


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), tuple(by.split()))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("twin of ADMM: stale dual", admm, "step", _stale_dual, "twin-admm"),
    _mutant("twin of ADMM: stale mask", admm, "step", _stale_mask, "twin-admm"),
    _mutant(
        "twin of ADMM: no ramp", admm, "chosen", lambda xp, goal, stage, A: _chosen(xp, goal, goal, A), "twin-admm"
    ),
    _mutant("twin of ADMM: half of rho in the inverse", factor, "inverse", _without_rho, "twin-admm"),
    _mutant("twin of ALPS: the dual in units of rho", alps, "step", _dual_over_rho, "twin-alps"),
    _mutant("twin of ALPS: growth by 1.1 whatever moved", alps, "growth", lambda changed, kept: 1.1, "twin-alps"),
    _mutant("twin of SparseGPT: blocks from the right", sparsegpt, "blocks", _backwards, "twin-sparsegpt"),
    _mutant("twin of SparseGPT: errors are not carried on", sparsegpt, "eliminate", _not_carried_on, "twin-sparsegpt"),
    _mutant("twin of SparseGPT: no update beyond two columns", sparsegpt, "start", _banded, "twin-sparsegpt"),
    _mutant("twin of FISTA: stale product", fista, "step", _stale_product, "twin-fista"),
    _mutant("twin of FISTA: no momentum", fista, "step", _no_momentum, "twin-fista"),
    _mutant("twin of FISTA: the product taken twice", fista, "step", _product_again, "twin-step-products"),
    _mutant("twin of FISTA: product of the difference", fista, "rounded", _product_of_the_difference, "twin-rounds"),
    _mutant("twin of FISTA: a buffer lent twice", fista, "steepest", _lent_twice, "twin-rounds"),
    _mutant("twin of refinement: one correction", refine, "correction", _once, "twin-refit"),
    _mutant("twin of refinement: weights in float32", Support, "corrected", _in_float32, "twin-gradient"),
    _mutant("twin of refinement: steps leave the mask", Support, "image", _beyond_the_mask, "twin-gradient"),
)
