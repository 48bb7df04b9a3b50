"""Memory: how much this process may still take, and giving back what the allocator keeps of freed arrays."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


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


def give_back() -> None:
    """Return freed arrays to the system; glibc keeps those below 32 MB, in pieces that the next ones may not fit."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
