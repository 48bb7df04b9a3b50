"""The mutation matrix: every planted defect against every check, on all cores.

A check that never runs the code that a defect replaces cannot notice it. Each check is therefore run once without
defects while its functions are recorded, and only the pairs that meet are tried; the others survive by construction.
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from types import CodeType, FrameType
from typing import Any, NamedTuple

import solvers
from theory_checks.claims import CLAIMS
from theory_checks.contract import CONTRACT
from theory_checks.mutant import Mutant, Patch
from theory_checks.mutants import MUTANTS, kills
from theory_checks.scaling import EXPERIMENTS
from theory_checks.synthetic import cases

Matrix = dict[str, dict[str, int | None]]
CHECKS = (*CLAIMS, *CONTRACT, *EXPERIMENTS)
OURS = ("solvers", "theory_checks")


class Reach(NamedTuple):
    """What a check ran: its functions, as file, line and name, and every name that stands in them."""

    functions: frozenset[tuple[str, int, str]]
    names: frozenset[str]

    def meets(self, mutant: Mutant) -> bool:
        return any(self._meets(patch) for patch in mutant.patches)

    def _meets(self, patch: Patch) -> bool:
        """A function meets the check that ran it, anything else the check that ran a text with its name."""
        replaced = inspect.getattr_static(patch.owner, patch.attribute)
        for thing in (patch.owner, replaced):
            if inspect.isfunction(thing):
                return _key(thing.__code__) in self.functions
        return patch.attribute in self.names

    def __or__(self, other: Reach) -> Reach:
        return Reach(self.functions | other.functions, self.names | other.names)


def matrix(
    mutants: Sequence[str],
    checks: Sequence[str] = CHECKS,
    *,
    most: int = 8,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Matrix:
    """After how many of `most` layers each check notices each defect; None where the defect survives it.

    Parameters
    ----------
    mutants, checks : names out of `MUTANTS` and `CHECKS`
    workers : processes, one per core where None; 1 stays in this process
    progress : called with the steps done and their total
    """
    workers = workers or os.cpu_count() or 1
    shares = [range(first, most, workers) for first in range(workers)]
    steps, done = len(mutants) + workers, 0
    found: Matrix = {}
    with _pool(workers) as run:
        reach = dict.fromkeys(checks, Reach(frozenset(), frozenset()))
        for part in run(partial(reached, checks, most, seed), shares):
            reach = {check: reach[check] | part[check] for check in checks}
            progress(done := done + 1, steps)
        tasks = [(name, [c for c in checks if reach[c].meets(_by_name(name))], most, seed) for name in mutants]
        for name, row in run(_row, sorted(tasks, key=lambda task: -len(task[1]))):
            found[name] = dict.fromkeys(checks) | row
            progress(done := done + 1, steps)
    return {name: found[name] for name in mutants}


def reached(checks: Iterable[str], most: int, seed: int, share: range) -> dict[str, Reach]:
    """What each check runs where nothing is planted, on the layers whose number is in `share`."""
    found = {}
    for check in checks:
        chosen = [case for n, case in enumerate(cases(most, seed)) if n in share]  # afresh: a case remembers its runs
        found[check] = _recorded(partial(_evaluate, check, chosen, seed))
    return found


def needed(found: Matrix) -> dict[str, list[str]]:
    """For each check, the defects that it alone notices: what its removal would leave alive."""
    alone: dict[str, list[str]] = {check: [] for row in found.values() for check in row}
    for name, row in found.items():
        killers = [check for check, n in row.items() if n]
        if len(killers) == 1:
            alone[killers[0]].append(name)
    return alone


def _evaluate(check: str, chosen: Iterable[Any], seed: int) -> None:
    if check in CLAIMS:
        for case in chosen:
            list(CLAIMS[check](case))
    elif check in EXPERIMENTS:
        EXPERIMENTS[check](seed)
    else:
        for method in solvers.METHODS.values():
            CONTRACT[check](method)


def _recorded(call: Callable[[], None]) -> Reach:
    ran: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            ran.add(frame.f_code)

    _forget()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return Reach(frozenset(map(_key, ran)), frozenset(name for code in ran for name in (*code.co_names, code.co_name)))


def _forget() -> None:
    """Empty every cache of ours: what comes from a cache is not run."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OURS:
            for thing in vars(module).values():
                if hasattr(thing, "cache_clear"):
                    thing.cache_clear()


def _key(code: CodeType) -> tuple[str, int, str]:
    return code.co_filename, code.co_firstlineno, code.co_name


def _by_name(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def _row(task: tuple[str, list[str], int, int]) -> tuple[str, dict[str, int | None]]:
    name, checks, most, seed = task
    return name, kills(_by_name(name), checks, most, seed)


@contextmanager
def _pool(workers: int) -> Iterator[Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]]:
    """A map over processes of one thread each, results as they come."""
    if workers == 1:
        yield map
        return
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)  # the workers read it when they import NumPy
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield partial(_as_they_come, pool)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _as_they_come(pool: Executor, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    for future in as_completed([pool.submit(function, task) for task in tasks]):
        yield future.result()
