"""How much of the weights each block of a model may keep: by its share of outliers, OWL (Yin et al. 2024).

One block l: n_l entries, its layers pooled; W a layer's weights, |x_j| the root mean square of its input j.

    A_ij = |W_ij| |x_j|,   D_l = #{A_ij > M mean(A)} / n_l                                         (1)
    v_l = 2 lam (D_l - min D) / (max D - min D),   0 where all D are equal                         (2)
    keep_l = min(1, max(0, v_l + c)),   with c such that  sum n_l keep_l = (1 - s) sum n_l         (3)

(3) is water-filling: a block whose share would leave [0, 1] stays at its end, and the others rise or sink together
until the total is met. So more outliers never mean a smaller share, and two shares differ by 2 lam at most. In [1] the
plain mean of keep_l equals 1 - s, which meets the budget only where all blocks are equally large; here the total is
exact to the entry, in rational numbers: whole entries by largest remainders, and what rounding a layer to whole rows
leaves over passes on to the next.

lam = 0.08 and M = 5 by default, as in the examples of the README of [1]; its program's own default of M is 3.

[1] L. Yin et al. Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to High Sparsity.
    ICML 2024, arXiv 2310.05175.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import NamedTuple

import numpy as np

from solvers.refusal import Refusal
from solvers.sparsity import Array, Budget, KeepPerLayer, KeepPerRow, Target

LAMBDA, M = 0.08, 5.0

Shape = tuple[int, int]


class Outliers(NamedTuple):
    """Entries of a block that stand out, and how many may stand out if every score is off by a relative error.

    Attributes
    ----------
    above : entries above M times the mean score
    least, most : entries that are above for every error, and for some error, of the size that was allowed for
    size : entries of the block
    """

    above: int
    least: int
    most: int
    size: int


def outliers(layers: Sequence[tuple[Array, Array]], m: float = M, error: float = 0.0) -> Outliers:
    """Count the outliers (1) of one block.

    Parameters
    ----------
    layers : (out, in) weights of every layer with the (in,) root mean squares of its inputs, in one unit
    m : M, how many times the mean score of the block an outlier exceeds
    error : relative error that a score, and so the mean, may carry
    """
    size = sum(W.size for W, _ in layers)
    level = m * sum(float(np.abs(W).sum(axis=0) @ norms) for W, norms in layers) / size
    bounds = (level, level * (1 + error) / (1 - error), level * (1 - error) / (1 + error))
    counts = [[np.count_nonzero(np.abs(W) * norms > bound) for bound in bounds] for W, norms in layers]
    above, least, most = (int(sum(column)) for column in zip(*counts, strict=True))
    return Outliers(above, least, most, size)


def keep_shares(D: Sequence[Fraction], sizes: Sequence[int], kept: int, lam: Fraction) -> list[Fraction]:
    """The share of every block that stays, (2) and (3), exactly.

    Parameters
    ----------
    D : outlier share of every block
    sizes : entries of every block
    kept : entries that stay in all blocks together, 0 to their sum
    lam : 0 to 1/2
    """
    lowest, spread = min(D), max(D) - min(D)
    v = [2 * lam * (d - lowest) / spread if spread else Fraction(0) for d in D]  # (2)
    c = water_level(v, sizes, kept)
    return [_clipped(v_l + c) for v_l in v]  # (3)


def water_level(v: Sequence[Fraction], sizes: Sequence[int], kept: int) -> Fraction:
    """The c of (3): the kept total rises with c, piecewise linear between the points where a block meets 0 or 1."""

    def total(c: Fraction) -> Fraction:
        return sum((n * _clipped(v_l + c) for n, v_l in zip(sizes, v, strict=True)), Fraction(0))

    marks = sorted({end - v_l for v_l in v for end in (0, 1)})
    low, high = next((low, high) for low, high in pairwise(marks) if total(high) >= kept)
    return low + (high - low) * (kept - total(low)) / (total(high) - total(low))


def allot(counts: Sequence[int], sizes: Sequence[int], share: Fraction, lam: float = LAMBDA) -> list[int]:
    """The entries that every block keeps; together sum(sizes) - floor(share * sum(sizes)), to the entry.

    Parameters
    ----------
    counts : outliers of every block, the D_l of (1) times n_l
    sizes : entries of every block
    share : s, the share of all entries to remove
    lam : half of what the shares of two blocks may differ by, 0 to 1/2

    Notes
    -----
    Blocks of equal size keep more, the more outliers they have; of equal remainders the first block is rounded up.
    """
    if not 0 <= lam <= 0.5:
        raise Refusal(
            f"owl's lambda must lie between 0 and 0.5, for the shares of two blocks differ by 2 lambda; got {lam}. "
            f"Usually it is {LAMBDA}."
        )
    D = [Fraction(count, n) for count, n in zip(counts, sizes, strict=True)]
    total = sum(sizes) - int(share * sum(sizes))
    exact = [n * keep for n, keep in zip(sizes, keep_shares(D, sizes, total, Fraction(lam)), strict=True)]
    whole = [floor(n) for n in exact]
    first = sorted(range(len(exact)), key=lambda block: (whole[block] - exact[block], block))
    for block in first[: total - sum(whole)]:
        whole[block] += 1
    return whole


def layer_budgets(kept: Sequence[int], blocks: Sequence[Sequence[Shape]], scope: str) -> list[list[Budget]]:
    """An exact budget for every layer (out, in) of every block, its block's share rounded to what the layer can keep.

    What rounding leaves over passes on to the next layer: under ``layer`` every block keeps its number to the entry;
    under ``row``, where a layer gains or loses one entry in all its rows, the total is off by half the rows of one
    layer at most: of the last, where it is neither kept nor removed whole.

    Parameters
    ----------
    kept : entries that every block keeps, as from `allot`
    blocks : for every block the shapes of its layers, in the order of the data flow
    scope : ``row`` or ``layer``
    """
    owed, budgets = Fraction(0), []
    for keep, shapes in zip(kept, blocks, strict=True):
        share = Fraction(keep, sum(rows * inputs for rows, inputs in shapes))
        budgets.append(list[Budget]())
        for rows, inputs in shapes:
            windows, width = (rows, inputs) if scope == "row" else (1, rows * inputs)
            wanted = share * windows * width + owed
            each = min(width, max(0, ceil(wanted / windows - Fraction(1, 2))))
            owed = wanted - windows * each
            budgets[-1].append(KeepPerRow(each) if scope == "row" else KeepPerLayer(each))
    return budgets


def share_of(target: Target) -> Fraction:
    """The share that a target removes; n:m is refused, for it fixes the share of every window."""
    if target.share is None:
        raise Refusal(
            f"owl gives every block a share of its own, and {target} keeps the same share everywhere. "
            "Use a share such as 50% or 50%/layer, or allocate uniform."
        )
    return target.share


def _clipped(share: Fraction) -> Fraction:
    return min(Fraction(1), max(Fraction(0), share))
