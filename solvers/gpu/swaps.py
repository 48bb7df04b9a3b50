"""Swaps of many rows at once, in float32 tableaux: the reference's own time goes into temporaries and copies of a row.

The exchanges are those of `solvers.swaps`, the mathematics is in `solvers.gpu.tableau`. A batch has a fixed number of
slots. A row that has ended leaves its slot to the next one; it ends as in the reference, with no improving exchange
after a fresh factorisation in float64, or where f did not fall since the last one. Whatever the precision of the
tableau, an exchange is made only where f falls by more than rounding in float64, and the weights that are handed back
are the refit in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from solvers.array import Place, full_precision, replace_rows, to_numpy
from solvers.gpu.tableau import State, Tableau, decrease, exchange, start
from solvers.problem import Gram, LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import L0, Array, KeepNofM, KeepPerLayer, KeepPerRow, Mask, Sparsity

Numbers = npt.NDArray[np.int64]
CACHE = 2**21  # bytes of the tableaux of a block on the host, with which a batch is started
SLOTS = 64  # rows of a batch on the host, where calls cost more than in a block and less than the first cache
MEMORY = 2**31  # bytes of all tableaux of a batch on a device
WASTE = 1.25  # the largest tableau of a batch may have this many times the entries of the smallest


class Supports(NamedTuple):
    """Rows of like counts as a tableau needs them: their numbers, and what is at which place."""

    rows: Numbers
    kept: int
    removed: int
    places: Numbers
    at: Numbers
    a: Numbers
    b: Numbers


def swaps(
    problem: LayerProblem, sparsity: Sparsity, W: Array, n: int | None, place: Place
) -> tuple[Array, list[Array]]:
    """The fast twin of `solvers.swaps.swaps`: the same exchanges where the best is apart from the next by rounding.

    Parameters
    ----------
    sparsity, W, n : as in the reference
    place : library, precision of the tableaux and device of the computation

    Returns
    -------
    W, gains : as in the reference, in float64

    Raises
    ------
    Refusal
        As the reference does.
    """
    if not isinstance(sparsity, KeepPerRow | KeepPerLayer | KeepNofM | L0):
        raise Refusal(f"swaps exchange single inputs under 50%, 50%/layer, 2:4 or L0; got {sparsity}. Use swaps=0.")
    scaled, unit = normalised(problem)
    found, gains = np.zeros_like(problem.W0), [np.zeros(0) for _ in problem.W0]
    with full_precision(place.xp), np.errstate(all="ignore"):
        for group in grouped(W != 0):
            for row, w, made in _exchanged(scaled, supports(sparsity, W != 0, group), n, place):
                found[row], gains[row] = w / unit, np.array(made)
    return np.where(W.any(axis=1, keepdims=True), found, 0.0) + 0.0, gains


def normalised(problem: LayerProblem) -> tuple[LayerProblem, Array]:
    """The problem with H_ii in [1/2, 2) by powers of two, which round nothing: float32 holds its tableaux."""
    norms = np.where(problem.norms > 0, problem.norms, 1.0)
    unit: Array = np.exp2(np.round(np.log2(norms))).astype(np.float64)
    R = None if problem.R is None else problem.R / unit
    return LayerProblem(problem.W0 * unit, Gram(problem.H / unit / unit[:, None]), R), unit


def grouped(S: Mask) -> Iterator[Numbers]:
    """Rows whose counts are so near to each other that their tableaux have nearly one size."""
    counts, n = np.count_nonzero(S, axis=1), S.shape[1]
    order: Numbers = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    first = 0
    for last in range(1, len(order) + 1):
        low, high = counts[order[first]], counts[order[min(last, len(order) - 1)]]
        if last == len(order) or high * (high + n - low) > WASTE * low * n:
            yield order[first:last]
            first = last


def supports(sparsity: Sparsity, S: Mask, rows: Numbers) -> Supports:
    """Kept inputs, removed inputs, then none: input n; at least one place of the removed holds none."""
    n, counts = S.shape[1], np.count_nonzero(S[rows], axis=1)
    K, M = int(counts.max()), n - int(counts.min()) + 1
    places, at = np.full((len(rows), K + M), n), np.zeros((len(rows), n + 1), dtype=np.int64)
    pairs = []
    for q, row in enumerate(rows):
        kept, removed = np.flatnonzero(S[row]), np.flatnonzero(~S[row])
        places[q, : len(kept)], places[q, K : K + len(removed)] = kept, removed
        at[q, places[q]] = np.arange(K + M)
        pairs.append(exchangeable(sparsity, kept, removed))
    a, b = (np.full((len(rows), max(len(pair[0]) for pair in pairs)), -1) for _ in range(2))
    for q, pair in enumerate(pairs):
        a[q, : len(pair[0])], b[q, : len(pair[1])] = pair
    return Supports(rows, K, M, places, at, a, b)


def exchangeable(sparsity: Sparsity, kept: Numbers, removed: Numbers) -> tuple[Numbers, Numbers]:
    """Places a, b of the pairs of one window, under n:m; none are listed where a row may exchange any pair."""
    if not isinstance(sparsity, KeepNofM):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    a, b = np.nonzero(kept[:, None] // sparsity.of == removed // sparsity.of)
    return (a, b) if len(a) else (np.array([-1]), np.array([-1]))


def _exchanged(
    problem: LayerProblem, group: Supports, most: int | None, place: Place
) -> Iterator[tuple[int, Array, list[float]]]:
    """(row, its weights, its gains) in the order in which the rows end."""
    slots, block = sizes(group, place)
    batch = Batch(Tableau(problem, place, group.kept, group.removed, block), problem, group, slots)
    while batch.busy():
        while len(done := batch.ended(most)):
            yield from batch.handed_back(done)
        batch.step()


def sizes(group: Supports, place: Place) -> tuple[int, int]:
    """Slots of a batch, and rows of a block."""
    each = group.kept * (group.kept + group.removed) * np.dtype(place.dtype).itemsize
    if "cpu" in str(place.device).lower():
        slots = min(len(group.rows), SLOTS)
        return slots, max(1, min(slots, CACHE // each))
    slots = max(1, min(len(group.rows), MEMORY // (4 * each)))  # a block starts in float64, in some 16 tableaux a row
    return slots, max(1, slots // 8)


class Batch:
    """Slots and what their rows have done: exchanges since the last factorisation, gains, whether one was refused."""

    def __init__(self, L: Tableau, problem: LayerProblem, group: Supports, slots: int) -> None:
        R = np.zeros_like(problem.W0) if problem.R is None else problem.R
        padded = (np.pad(values[group.rows], ((0, 0), (0, 1))) for values in (problem.W0, R))
        self.L, self.group, self.next = L, group, slots
        self.supports = (group.places, group.at, group.a, group.b, *padded)  # as State begins
        self.row = np.arange(slots)  # the number in the group of the row in every slot, -1 for none
        self.age, self.refused = np.zeros(slots, dtype=np.int64), np.zeros(slots, dtype=bool)
        self.gains: list[list[float]] = [[] for _ in group.rows]
        starts = [self._first(rows) for rows in self._blocks(self.row)]
        self.state = State(*(L.xp.concat(list(parts), axis=0) for parts in zip(*starts, strict=True)))

    def busy(self) -> bool:
        """Whether a slot holds a row."""
        return bool((self.row >= 0).any())

    def ended(self, most: int | None) -> Numbers:
        """Slots whose rows made all exchanges that they may, or have none, after a fresh factorisation: made here."""
        full = np.array([len(self.gains[row]) == most for row in self.row])
        due = self.refused | full | (self.age >= self.group.kept)
        self._restart(np.flatnonzero((self.row >= 0) & due & (self.age > 0)))
        done: Numbers = np.flatnonzero((self.row >= 0) & (self.refused | full))
        return done

    def handed_back(self, done: Numbers) -> Iterator[tuple[int, Array, list[float]]]:
        """The results of slots, which then take the next rows, or none."""
        w = to_numpy(self.L.xp.take(self.state.w, self.L.put(done), axis=0), "weight")
        for slot, values in zip(done, w, strict=True):
            row = self.row[slot]
            yield int(self.group.rows[row]), values[:-1], self.gains[row]
        new = np.arange(self.next, min(self.next + len(done), len(self.group.rows)))
        self.row[done], self.age[done], self.refused[done] = -1, 0, False
        self.row[done[: len(new)]] = new
        for rows in self._blocks(new):
            self._replace(done[rows - self.next], self._first(rows))
        self.next += len(new)
        held: Numbers = np.flatnonzero(self.row >= 0)
        if 0 < len(held) < len(self.row):
            self.row, self.age, self.refused = self.row[held], self.age[held], self.refused[held]
            at = self.L.put(held)
            self.state = State(*(self.L.xp.take(values, at, axis=0) for values in self.state))

    def step(self) -> None:
        """One exchange of every row, where it lowers f by more than rounding."""
        xp, before = self.L.xp, self.state
        after, judged = exchange(self.L, before)
        lowers = (before.best[:, 0] > 0) & (judged[:, 0] > judged[:, 1])
        old = {name: getattr(before, name) for name in ("places", "at", "w", "g")}
        kept = {name: xp.where(lowers[:, None], getattr(after, name), values) for name, values in old.items()}
        self.state = after._replace(**kept)
        made, gain = to_numpy(xp.stack([xp.astype(lowers, xp.float64), judged[:, 0]]), "gains")
        self.refused = made == 0
        self.age += ~self.refused
        for slot in np.flatnonzero((self.row >= 0) & ~self.refused):
            self.gains[self.row[slot]].append(float(gain[slot]))

    def _first(self, rows: Numbers) -> State:
        """Rows of the group on the supports that they came with."""
        return start(self.L, self.group.rows[rows], *(self.L.put(values[rows]) for values in self.supports))

    def _restart(self, slots: Numbers) -> None:
        """Slots on the supports that they have come to; those end whose f has not fallen since the last time."""
        self.age[slots] = 0
        for part in self._blocks(slots):
            at = self.L.put(part)
            k = State(*(self.L.xp.take(values, at, axis=0) for values in self.state))
            fresh = start(self.L, self.group.rows[self.row[part]], *k[: len(self.supports)])
            judged = decrease(self.L, k, k.fresh_w, k.fresh_g, fresh.w, fresh.g)
            self.refused[part] = to_numpy(judged[:, 0] - judged[:, 1], "gains") <= 0
            self._replace(part, fresh)

    def _replace(self, slots: Numbers, fresh: State) -> None:
        at = self.L.put(slots)
        for old, new in zip(self.state, fresh, strict=True):
            replace_rows(old, at, new)

    def _blocks(self, numbers: Numbers) -> Iterator[Numbers]:
        return (numbers[lo : lo + self.L.block] for lo in range(0, len(numbers), self.L.block))
