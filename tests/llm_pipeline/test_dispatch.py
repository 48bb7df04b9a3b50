"""The laws of the schedule under workers that reorder, fail and die; each law is seen when it is broken."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_pipeline.dispatch import ATTEMPTS, Done, Failed, Lost, Outcome, Schedule
from solvers.refusal import Refusal


class Unruly:
    """Workers that end in any order, are lost as often as `losses` says, and fail on the blocks in `broken`."""

    def __init__(self, seed: int, losses: dict[int, int], broken: set[int]) -> None:
        self.chance, self.losses, self.broken = random.Random(seed), dict(losses), broken
        self.running: dict[int, Any] = {}
        self.starts: list[int] = []

    def start(self, i: int, given: Any) -> None:
        assert i not in self.running
        self.running[i] = given
        self.starts.append(i)

    def next(self) -> tuple[int, Outcome]:
        i = self.chance.choice(sorted(self.running))
        received = self.running.pop(i)
        if self.losses.get(i, 0):
            self.losses[i] -= 1
            return i, Lost("its worker died")
        if i in self.broken:
            return i, Failed(ArithmeticError(i))
        return i, Done(("done", received))


def check(kind: type[Schedule], blocks: range, most: int, seed: int, losses: dict[int, int], broken: set[int]) -> None:
    """Run a schedule and assert (1) to (4)."""
    crew, schedule = Unruly(seed, losses, broken), kind(blocks, most)
    fed: list[int] = []
    written: list[int] = []

    def feed(i: int) -> str:
        fed.append(i)
        assert len(fed) - len(written) <= most, "(1): more blocks are held than may be"
        return f"input {i}"

    def write(i: int, result: Any) -> None:
        written.append(i)
        assert result == ("done", f"input {i}"), "(3): a block was given another one's input"

    hopeless = [i for i in blocks if losses.get(i, 0) >= ATTEMPTS or i in broken]
    end = min(hopeless, default=blocks.stop)
    error = None
    try:
        schedule.run(crew, feed, write)
    except (ArithmeticError, Refusal) as found:
        error = found
    assert written == list(range(blocks.start, end)), "(2), (4): other blocks were written, or in another order"
    assert fed == list(range(blocks.start, blocks.start + len(fed)))
    assert all(crew.starts.count(i) <= ATTEMPTS for i in blocks), "(3): a block was started too often"
    assert (error is not None) == bool(hopeless)
    if hopeless and losses.get(end, 0) < ATTEMPTS:
        assert isinstance(error, ArithmeticError)
        assert error.args == (end,), "(4): the error is that of another block"
    elif hopeless:
        assert f"block {end} was started {ATTEMPTS} times and its worker was lost each time" in str(error)
    else:
        assert schedule.lost == sum(losses.get(i, 0) for i in blocks)


BLOCKS = st.integers(0, 9)


@given(
    first=st.integers(0, 3),
    count=st.integers(0, 7),
    most=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    losses=st.dictionaries(BLOCKS, st.integers(0, ATTEMPTS + 1), max_size=4),
    broken=st.sets(BLOCKS, max_size=2),
)
def test_the_laws_hold_whatever_the_workers_do(
    first: int, count: int, most: int, seed: int, losses: dict[int, int], broken: set[int]
) -> None:
    check(Schedule, range(first, first + count), most, seed, losses, broken)


class WithoutBound(Schedule):
    """(1) broken: feeds whatever there is."""

    def may_feed(self) -> bool:
        return self.fed < self.end


class AsTheyCome(Schedule):
    """(2) broken: writes what is there first."""

    def may_write(self) -> bool:
        self.written = min(self.results, default=self.written)
        return super().may_write()


class NeverAgain(Schedule):
    """(3) broken: gives up at the first loss."""

    def may_start_again(self, i: int) -> bool:
        return False


class ForEver(Schedule):
    """(3) broken: never gives up."""

    def may_start_again(self, i: int) -> bool:
        return True


class OfTheLatest(Schedule):
    """(3) broken: starts again with what the latest block was given."""

    def _start(self, crew: Any, i: int) -> None:
        self.starts[i] += 1
        crew.start(i, self.given[max(self.given)])


class AtOnce(Schedule):
    """(4) broken: ends with the first error that comes."""

    def _take(self, i: int, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            raise outcome.error
        super()._take(i, outcome)


DEFECTS = (WithoutBound, AsTheyCome, NeverAgain, ForEver, OfTheLatest, AtOnce)


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_broken_law_is_seen(kind: type[Schedule]) -> None:
    def scenes(kind: type[Schedule]) -> None:
        for scene in ({"losses": {1: 1, 3: 2}, "broken": set()}, {"losses": {2: 9}, "broken": {4}}):
            for seed in range(20):
                check(kind, range(6), 3, seed, **scene)

    scenes(Schedule)
    with pytest.raises(AssertionError):
        scenes(kind)
