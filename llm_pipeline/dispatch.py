"""Independent blocks on workers that may die: which block starts, which starts again, which is written.

Blocks a, ..., b - 1 are fed in order, because a dense forward pass goes from one to the next; their results come in
any order and are written in order, because a run goes on at its first unfinished block. With w the first block that
is not written, n the next one to feed and m the bound on the blocks that are held,

    feed n              while n < min(w + m, b)                                                    (1)
    write w             once its result is there                                                   (2)
    start i again       with what it was given, each time its worker is lost but the last          (3)
    end with an error   of block i once the blocks before it are written: b := i                   (4)

so that never more than m inputs and results are held (1), and whatever dies, the same blocks are written as one
process would have written (2), (4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from solvers.refusal import Refusal

ATTEMPTS = 4  # times that a block is started before its run gives up


@dataclass(frozen=True)
class Done:
    """A result."""

    value: Any


@dataclass(frozen=True)
class Failed:
    """The block itself cannot be done; another worker would say the same."""

    error: BaseException


@dataclass(frozen=True)
class Lost:
    """The worker went away before it answered; another one may do better."""

    reason: str


Outcome = Done | Failed | Lost


class Crew(Protocol):
    """Workers: blocks are started at once, and are done in any order."""

    def start(self, i: int, given: Any) -> None:
        """Have block `i` done; it waits where no worker is free."""

    def next(self) -> tuple[int, Outcome]:
        """Wait for any started block; what came of it."""


class Schedule:
    """Laws (1) to (4).

    Parameters
    ----------
    blocks : range
        The unfinished blocks, in steps of one.
    most : int
        Bound m on the blocks that are held, at least 1.
    attempts : int
        Times that a block is started before its loss is an error.
    """

    def __init__(self, blocks: range, most: int, attempts: int = ATTEMPTS) -> None:
        self.written, self.fed, self.end = blocks.start, blocks.start, blocks.stop
        self.most, self.attempts = most, attempts
        self.starts: Counter[int] = Counter()
        self.given: dict[int, Any] = {}
        self.results: dict[int, Done | Failed] = {}

    @property
    def lost(self) -> int:
        """Times that a worker was lost."""
        return sum(self.starts.values()) - len(self.starts)

    def run(
        self,
        crew: Crew,
        feed: Callable[[int], Any],
        write: Callable[[int, Any], None],
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Do the blocks.

        Parameters
        ----------
        feed : what a block is given; called once for each block, in order
        write : called once with the result of each block, in order
        tell : what happens, in words
        """
        while self.written < self.end:
            while self.may_feed():
                self.given[self.fed] = feed(self.fed)
                self._start(crew, self.fed)
                self.fed += 1
            tell(f"blocks {self.written} to {self.fed - 1} in flight")
            i, outcome = crew.next()
            if isinstance(outcome, Lost) and self.may_start_again(i):
                tell(f"block {i} again: {outcome.reason}")
                self._start(crew, i)
                continue
            self._take(i, outcome)
            while self.may_write():
                write(self.written, self._value(self.written))
                self.written += 1
        if self.end in self.results:
            self._value(self.end)

    def may_feed(self) -> bool:
        """(1)."""
        return self.fed < min(self.written + self.most, self.end)

    def may_write(self) -> bool:
        """(2)."""
        return self.written < self.end and self.written in self.results

    def may_start_again(self, i: int) -> bool:
        """(3)."""
        return self.starts[i] < self.attempts

    def _start(self, crew: Crew, i: int) -> None:
        self.starts[i] += 1
        crew.start(i, self.given[i])

    def _take(self, i: int, outcome: Outcome) -> None:
        if isinstance(outcome, Lost):
            outcome = Failed(_given_up(i, self.starts[i], outcome.reason))
        if isinstance(outcome, Failed):
            self.end = min(self.end, i)  # (4)
        self.results[i] = outcome
        del self.given[i]

    def _value(self, i: int) -> Any:
        result = self.results.pop(i)
        if isinstance(result, Failed):
            raise result.error
        return result.value


def _given_up(i: int, starts: int, reason: str) -> Refusal:
    return Refusal(
        f"block {i} was started {starts} times and its worker was lost each time ({reason}). Probably the memory of "
        "a machine does not hold what solving a block takes: give it fewer CPUs, or go on without --engine ray."
    )
