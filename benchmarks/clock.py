"""Seconds of an act on a device, and how many minutes are left for the next.

On CUDA an act stands between two events of its stream; on the CPU between two readings of the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean, median, stdev
from typing import Any

import torch

Act = Callable[[], object]


def timed(act: Act, device: str, rounds: int) -> dict[str, Any]:
    """Statistics of the seconds of an act, over rounds, after one that is not counted: it allocates and compiles.

    Parameters
    ----------
    act : what is timed
    device : where it runs, a name of torch's
    rounds : at least one
    """
    act()
    taken = [_seconds(act, device) for _ in range(rounds)]
    spread = stdev(taken) if rounds > 1 else 0.0
    return {"min": min(taken), "median": median(taken), "mean": fmean(taken), "stddev": spread, "rounds": rounds}


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _seconds(act: Act, device: str) -> float:
    wait(device)
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            act()
            end.record()
            end.synchronize()
        return start.elapsed_time(end) / 1e3
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


class Limit:
    """Minutes from now, for work that stops between two measurements."""

    def __init__(self, minutes: float) -> None:
        self.begun, self.minutes = time.monotonic(), minutes

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.begun

    def reached(self) -> bool:
        """Whether the minutes are over."""
        return self.seconds() >= 60 * self.minutes
