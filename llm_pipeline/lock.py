"""One process a run: the operating system's lock on a file, which dies with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import platform
from pathlib import Path

from solvers.refusal import Refusal


class Lock:
    """An exclusive lock; taken on construction, given back by `release` or by the death of the process.

    Parameters
    ----------
    path : Path
        The file to lock; it is created where it is missing, and names the process that holds it.
    what : str
        What is locked, for the message.

    Raises
    ------
    Refusal
        If a living process holds it.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(self._handle)
            raise Refusal(f"{what} is being written by {holder}. Wait until it ends, or stop it first.") from None
        except OSError:
            os.close(self._handle)
            raise
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"process {os.getpid()} of {platform.node()}".encode(), 0)

    def release(self) -> None:
        """Give the lock back; a second time is allowed."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
