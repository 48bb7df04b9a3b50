"""Planted defects in penalties, group thresholds and the cosine's envelope; the table is `theory_checks.mutants`."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.groups import GroupL0, GroupL1, group_norms
from solvers.sparsity import L1
from theory_checks import binary_penalty, envelope_cosine, l1_penalty, penalty_methods
from theory_checks.mutant import Mutant, Patch

_penalised, _l1, _uncovered = penalty_methods.penalised, l1_penalty.l1_penalised, l1_penalty.uncovered
_box, _edge, _prox = binary_penalty.box_threshold, binary_penalty.edge_threshold, envelope_cosine.cosine_prox
BINARY = "binary-penalty-box binary-penalty-edge"


def _wrong_sign(problem: Any, rho: float) -> Any:
    return _penalised(problem, -rho)


def _rewarded(problem: Any, d: Any, rho: float) -> float:
    return _l1(problem, d, -rho)


def _unsquared(self: GroupL0, Z: Any, s: float) -> Any:
    kept = group_norms(Z, self.groups) > 2 * s * self.lam
    return np.where(kept[list(self.groups)], Z, 0.0)


def _taxicab(self: GroupL0, Z: Any, s: float) -> Any:
    sums = np.bincount(self.groups, weights=np.abs(Z).sum(axis=0))
    return np.where((np.square(sums) > 2 * s * self.lam)[list(self.groups)], Z, 0.0)


def _entrywise(self: GroupL1, Z: Any, s: float) -> Any:
    return L1(self.lam).prox(Z, s)


def _unshrunken(self: GroupL1, Z: Any, s: float) -> Any:
    return np.where((group_norms(Z, self.groups) > s * self.lam)[list(self.groups)], Z, 0.0)


def _one_step(x: float, rho: float, beta: float) -> float:
    """A gradient step on beta cos v in place of the root: an explicit for an implicit step."""
    return float(x + rho * beta * np.sin(x))


def _of_half_rho(x: float, rho: float, beta: float) -> float:
    return _prox(x, rho / 2, beta)


def _mutant(name: str, owner: Any, attribute: str, replacement: Any, by: str) -> Mutant:
    return Mutant(name, (Patch(owner, attribute, replacement),), tuple(by.split()))


QUADRATIC = "penalty-path penalty-multiplier penalty-error"

MUTANTS: tuple[Mutant, ...] = (
    _mutant("quadratic penalty: the wrong sign", penalty_methods, "penalised", _wrong_sign, QUADRATIC),
    _mutant(
        "quadratic penalty: rho without its half",
        penalty_methods,
        "penalised",
        lambda problem, rho: _penalised(problem, 2 * rho),
        "penalty-multiplier penalty-error",
    ),
    _mutant(
        "quadratic penalty: rho stays at one",
        penalty_methods,
        "penalised",
        lambda problem, rho: _penalised(problem, 1.0),
        "penalty-multiplier penalty-error",
    ),
    _mutant(
        "l1 penalty: exact from 2 % of the threshold on",
        l1_penalty,
        "uncovered",
        lambda nu, rho: _uncovered(nu, 50 * rho),
        "l1-penalty-exact",
    ),
    _mutant(
        "l1 penalty: exact from the mean multiplier on",
        l1_penalty,
        "uncovered",
        lambda nu, rho: _uncovered(np.full_like(nu, np.abs(nu).mean()), rho),
        "l1-penalty-exact",
    ),
    _mutant(
        "l1 penalty: only twice the multiplier is enough",
        l1_penalty,
        "uncovered",
        lambda nu, rho: _uncovered(nu, rho / 2),
        "l1-penalty-necessary",
    ),
    _mutant("l1 penalty: the wrong sign", l1_penalty, "l1_penalised", _rewarded, "l1-penalty-exact"),
    Mutant(
        "binary penalty: 2 % of the threshold",
        (
            Patch(binary_penalty, "box_threshold", lambda Q: 0.02 * _box(Q)),
            Patch(binary_penalty, "edge_threshold", lambda Q: 0.02 * _edge(Q)),
        ),
        tuple(BINARY.split()),
    ),
    _mutant(
        "binary penalty: 1/4 max Q_ii on the box",
        binary_penalty,
        "box_threshold",
        lambda Q: _box(Q) / 2,
        "binary-penalty-box",
    ),
    _mutant(
        "binary penalty: correlation forgotten on the slice, and half of it",
        binary_penalty,
        "edge_threshold",
        lambda Q: float(np.diag(Q).max()) / 4,
        "binary-penalty-edge",
    ),
    Mutant(
        "binary penalty: the wrong sign",
        (
            Patch(binary_penalty, "box_threshold", lambda Q: -_box(Q)),
            Patch(binary_penalty, "edge_threshold", lambda Q: -_edge(Q)),
        ),
        tuple(BINARY.split()),
    ),
    _mutant("group l0: norm instead of its square", GroupL0, "prox", _unsquared, "group-choice"),
    _mutant("group l0: sum of magnitudes for the norm", GroupL0, "prox", _taxicab, "group-choice"),
    _mutant("group l1: entry by entry", GroupL1, "prox", _entrywise, "group-stationary group-decomposition"),
    _mutant(
        "group l1: keeps what it should shrink", GroupL1, "prox", _unshrunken, "group-stationary group-decomposition"
    ),
    _mutant("cosine: one gradient step for the prox", envelope_cosine, "cosine_prox", _one_step, "cosine-prox"),
    _mutant("cosine: the prox of half the rho", envelope_cosine, "cosine_prox", _of_half_rho, "cosine-prox"),
)
