"""Rows of NumPy arrays a few at a time on all cores: NumPy's own passes take one core, and the memory each time anew.

What is done to a block of rows is done while they are in the cache. Results do not depend on how many cores there
are: blocks are cut by their size alone, and their sums are added up exactly. Arrays of any other library are one block,
for their passes are spread by the library itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from math import fsum
from typing import Any

import numpy as np

BLOCK = 2**20  # bytes of one array of a block: calls of NumPy cost little beside it, and all cores have several


def blocks(array: Any) -> list[slice]:
    """The rows of a NumPy array in blocks, all rows of any other."""
    if not isinstance(array, np.ndarray) or array.nbytes <= BLOCK:
        return [slice(None)]
    height = max(1, BLOCK // array[0].nbytes)
    return [slice(first, first + height) for first in range(0, len(array), height)]


def cores() -> int:
    """What OMP_NUM_THREADS says, as for every numerical library, else the cores that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if told.isdecimal():
        return max(1, int(told))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(act: Callable[..., tuple[Any, ...]], out: Any, *arrays: Any) -> tuple[Any, ...]:
    """act(out, *arrays) block by block: what became of `out`, and the sums of all else that `act` returns.

    Parameters
    ----------
    act : (rows of out, of every array) -> (those rows written over where the library can, and numbers)
    arrays : of as many rows as `out`, or None, which stays None
    """
    parts = blocks(out)
    if len(parts) == 1:
        return act(out, *arrays)

    def some(first: int) -> list[tuple[Any, ...]]:
        return [act(*(a if a is None else a[part] for a in (out, *arrays)))[1:] for part in parts[first::threads]]

    threads = min(cores(), len(parts))
    if threads == 1:
        return out, *map(fsum, zip(*some(0), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # numbers, and the floating-point errors that the caller expects
        tasks = [pool.submit(copy_context().run, some, first) for first in range(threads)]
    return out, *map(fsum, zip(*(numbers for task in tasks for numbers in task.result()), strict=True))
