"""Planted defects in the pruners that update weights; see `theory_checks.mutants` for the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.linalg

from solvers import admm, alps, schedule, sparsegpt
from solvers.gpu import iterate, layer, select
from solvers.gpu import maiht as fast_maiht
from solvers.problem import LayerProblem
from theory_checks import duality
from theory_checks.mutant import Mutant, Patch

_weight, _split, _alps_step, _eliminate, _ramp = admm.weight, admm.split, alps.step, sparsegpt.eliminate, admm.ramp
_gap = duality.duality_gap
_twin_step, _product, _pairwise = fast_maiht.step, layer.Layer.product, select.pairwise
_twin_schedule, _twin_value, _compared = schedule.cubic, layer.Layer.value, layer.Layer.compared


def _diagonal_of_inverse(W: Any, U: Any, live: Any) -> Any:
    return np.where(live, np.abs(W) / np.sqrt(np.diag(U.T @ U)), 0.0)


def _not_downdated(H: Any) -> Any:
    M = np.linalg.inv(H)
    return np.triu(M / np.sqrt(np.diag(M))[:, None])


def _lower_factor(H: Any) -> Any:
    return scipy.linalg.cholesky(H)


def _not_propagated(W: Any, U: Any, kept: Any) -> Any:
    return np.column_stack([np.where(kept, W[:, 0], 0.0), W[:, 1:]]), _eliminate(W, U, kept)[1]


def _less_damped(H: Any, damping: float) -> Any:
    return H + damping / 10 * np.diag(H).mean() * np.eye(len(H)) + np.diag(np.where(np.diag(H) > 0, 0.0, 1.0))


def _rounded_shares(sparsity: Any, n: int, blocksize: int) -> Iterator[Any]:
    for start in range(0, n, blocksize):
        stop = min(start + blocksize, n)
        yield slice(start, stop), blocksize, replace(sparsity, keep=-(-sparsity.keep * (stop - start) // n))


def _no_dual(W: Any, mask: Any, k: admm.State) -> admm.State:
    return _split(W, mask, k)._replace(U=k.U)


def _uncentred(problem: LayerProblem, rho: float, factor: Any, k: admm.State) -> Any:
    pull = problem.gram.ridge * problem.W0
    return _weight(problem, rho, factor, k) - scipy.linalg.cho_solve(factor, pull.T).T


def _unfinished(sparsity: Any, shape: Any, refresh: int) -> Any:
    choose = _ramp(sparsity, shape, 2 * refresh)
    return lambda t, scores: choose(t, scores) if t < refresh else None


def _dual_in_units_of_rho(problem: LayerProblem, sparsity: Any, rho: float, iters: int) -> Iterator[alps.Round]:
    """U = V / rho is kept where V should be, and stays when rho grows."""
    eigen, k, support = alps.Eigen(*scipy.linalg.eigh(problem.H)), alps.start(problem, sparsity), None
    for t in range(iters):
        before, (W, k) = k, _alps_step(problem, sparsity, rho, eigen, k)
        yield alps.Round(rho, before, W, k, False)
        if t % alps.CHECK == alps.CHECK - 1:
            if support is not None and np.array_equal(support, k.D != 0):
                return
            support, rho, k = k.D != 0, 1.3 * rho, k._replace(V=1.3 * k.V)


def _dense_start(problem: LayerProblem, sparsity: Any) -> alps.State:
    return alps.State(problem.W0, np.zeros_like(problem.W0))


def _half_the_gap(problem: LayerProblem, penalty: Any, V: Any) -> float:
    return _gap(problem, penalty, V) / 2


def _stale_step(quadratic: Any, sparsity: Any, s: float, k: fast_maiht.State) -> fast_maiht.State:
    """After z was rejected the forward step of the z before it is used."""
    after = _twin_step(quadratic, sparsity, s, k)
    return after if after.x is after.z else after._replace(uz=k.uz)


def _forgotten_rejection(quadratic: Any, sparsity: Any, s: float, k: fast_maiht.State) -> fast_maiht.State:
    """The forward step of z is kept for x although v was taken."""
    after = _twin_step(quadratic, sparsity, s, k)
    return after._replace(ux=after.uz)


def _subtracted(quadratic: Any, z: Any, Pz: Any, v: Any, Pv: Any, s: float) -> Any:
    before = _twin_value(quadratic, z, Pz)
    value, _, u = _compared(quadratic, z, Pz, v, Pv, s)
    return value, before - value, u


def _higher_first(xp: Any, scores: Any, keep: int) -> Any:
    return _pairwise(xp, scores[..., ::-1], keep)[..., ::-1]


def _all_tied(xp: Any, scores: Any, kth: Any, keep: int) -> Any:
    return scores >= kth


def _one_early(goal: Any, shape: tuple[int, int], iters: int, ramp: float) -> Any:
    stage = _twin_schedule(goal, shape, iters, ramp)
    return lambda t, x, last: stage(t + 1, x, last)


def _in_bfloat16(quadratic: Any, w: Any, out: Any) -> Any:
    """Products of numbers rounded to 8 bits, as reduced-precision modes take them."""
    P = _product(quadratic, w, out)
    P[...] = ((P.astype(np.float32).view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)
    return P


def _third_product(quadratic: Any, z: Any, Pz: Any, v: Any, Pv: Any, s: float) -> Any:
    found = _compared(quadratic, z, Pz, v, Pv, s)
    quadratic.product(v, quadratic.scratch[0])
    return found


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), tuple(by.split()))


BOTH = "sparsegpt-identity sparsegpt-conditional"

MUTANTS: tuple[Mutant, ...] = (
    _mutant("sparsegpt: scores by (H^-1)_jj", sparsegpt, "score", _diagonal_of_inverse, "sparsegpt-scores"),
    _mutant("sparsegpt: stale inverse", sparsegpt, "upper_factor", _not_downdated, BOTH),
    _mutant("sparsegpt: the factor of H, not of its inverse", sparsegpt, "upper_factor", _lower_factor, BOTH),
    _mutant("sparsegpt: errors are not propagated", sparsegpt, "eliminate", _not_propagated, BOTH),
    _mutant("sparsegpt: a tenth of the damping", sparsegpt, "damped", _less_damped, "sparsegpt-identity"),
    _mutant("sparsegpt: shares rounded up, block by block", sparsegpt, "blocks", _rounded_shares, "exact-count"),
    _mutant("ADMM: no dual update", admm, "split", _no_dual, "admm-rate splitting-dual"),
    _mutant("ADMM: damped after the right side", admm, "weight", _uncentred, "admm-rate splitting-dual"),
    _mutant("ADMM: the ramp does not reach the budget", admm, "ramp", _unfinished, "exact-count"),
    _mutant("ALPS: rho grows under a scaled dual", alps, "rounds", _dual_in_units_of_rho, "splitting-dual"),
    _mutant("ALPS: the printed dense start", alps, "start", _dense_start, "alps-lemma"),
    _mutant("duality: an infeasible dual point", duality, "scaling", lambda *point: 1.0, "duality-gap gap-bounds-step"),
    _mutant("duality: half the gap", duality, "duality_gap", _half_the_gap, "duality-gap"),
    _mutant("ALPS: rho does not grow", alps, "growth", lambda changed, kept: 1.0, "alps-convergence"),
    _mutant("twin: stale step of a rejected z", fast_maiht, "step", _stale_step, "twin-step"),
    _mutant("twin: the step of z for x", fast_maiht, "step", _forgotten_rejection, "twin-step"),
    _mutant("twin: values subtracted", layer.Layer, "compared", _subtracted, "twin-step"),
    _mutant("twin: products rounded to bfloat16", layer.Layer, "product", _in_bfloat16, "twin-step"),
    _mutant("twin: values from new products", layer.Layer, "compared", _third_product, "twin-products"),
    _mutant("twin: ties to the higher index", select, "pairwise", _higher_first, "twin-selection"),
    _mutant("twin: all that tie stay", select, "first_of_tied", _all_tied, "twin-selection"),
    _mutant("twin: schedule off by one", iterate, "cubic", _one_early, "twin-run"),
)
