"""Whole groups of inputs under a penalty: the soft and the hard threshold of a group's norm.

    argmin_V |V - Z|^2 / 2s + lam sum_g |V_g|           V_g = (1 - s lam / |Z_g|)_+ Z_g           (1)
    argmin_V |V - Z|^2 / 2s + lam #{g : V_g != 0}       V_g = Z_g if |Z_g|^2 > 2 s lam else 0     (2)

(1) is Yuan and Lin's [1]. A group is a set of inputs over all outputs, `groups[j]` the group of input j, and |Z_g| its
Frobenius norm: what `KeepGroups` ranks by, with a price instead of a count.

[1] M. Yuan, Y. Lin. Model selection and estimation in regression with grouped variables. JRSS B 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvers.sparsity import Array


def group_norms(Z: Array, groups: tuple[int, ...]) -> Array:
    """(number of groups,) Frobenius norm of every group of inputs of Z (out, in)."""
    return np.sqrt(np.bincount(groups, weights=np.square(Z).sum(axis=0)))


@dataclass(frozen=True)
class GroupL1:
    """Penalty lam * sum_g |W_g|, the sum of the groups' norms."""

    lam: float
    groups: tuple[int, ...]

    def prox(self, Z: Array, s: float) -> Array:
        """argmin_V |V - Z|^2 / 2s + lam sum_g |V_g|: every norm shrinks by s lam, groups below it vanish."""
        t, norms = s * self.lam, group_norms(Z, self.groups)
        shrink = np.where(norms > t, 1 - t / np.where(norms > t, norms, 1.0), 0.0)[list(self.groups)]
        return np.where(shrink > 0, shrink * Z, 0.0)  # (1)

    def value(self, W: Array) -> float:
        return self.lam * float(group_norms(W, self.groups).sum())


@dataclass(frozen=True)
class GroupL0:
    """Penalty lam times the number of groups that are not zero."""

    lam: float
    groups: tuple[int, ...]

    def prox(self, Z: Array, s: float) -> Array:
        """argmin_V |V - Z|^2 / 2s + lam #{g : V_g != 0}: groups stay as they are or vanish."""
        kept = np.square(group_norms(Z, self.groups)) > 2 * s * self.lam
        return np.where(kept[list(self.groups)], Z, 0.0)  # (2)

    def value(self, W: Array) -> float:
        return self.lam * float(np.count_nonzero(group_norms(W, self.groups)))
