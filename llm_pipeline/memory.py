"""Memory: how much this process may still take, and what the allocator keeps of freed arrays."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = 2**20


def free_memory() -> int:
    """Bytes that this process may still take: what the machine has available, or what its control group allows."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        group = Path("/sys/fs/cgroup")
        allowed, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, allowed - used)
    except (OSError, KeyError, ValueError):  # no such file, or no limit
        return free


def keep_little() -> None:
    """From now on arrays of 1 MB and more go back to the system as soon as they are freed.

    By default glibc keeps freed arrays below 32 MB, in pieces that the next ones may not fit.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(M_MMAP_THRESHOLD, LARGE)
        adjust(M_TRIM_THRESHOLD, LARGE)


def give_back() -> None:
    """Return to the system what was freed in smaller pieces: between two sites tens of MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
