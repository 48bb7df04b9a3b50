"""Writes that a kill cannot tear: a file is what it was or what it shall be, and is on the disk before it is named.

New contents go to a scratch file, are flushed, and take their name in one step; then the folder is flushed. The one
exception, `overwrite`, changes a file in place: what it wrote counts only once `flush` has returned and a record,
itself written whole, says so.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_file(path: Path, data: bytes, scratch: Path) -> None:
    """Put `data` at `path`, replacing what was there; `scratch` is a folder on the same disk."""
    unnamed = scratch / f"{path.name}.writing"
    with unnamed.open("wb", buffering=0) as file:
        write(file.fileno(), memoryview(data))
    name(unnamed, path)


def copy_file(source: Path, path: Path, scratch: Path) -> None:
    """Copy a file, following links and dropping read-only modes."""
    unnamed = scratch / f"{path.name}.writing"
    shutil.copyfile(source, unnamed)
    name(unnamed, path)


def overwrite(path: Path, start: int, data: memoryview) -> None:
    """Overwrite the bytes of a file from `start` on; lasting only after `flush`."""
    with path.open("r+b", buffering=0) as file:
        file.seek(start)
        write(file.fileno(), data)


def write(handle: int, data: memoryview) -> None:
    """All of `data`; the system may take it in parts."""
    while data:
        data = data[os.write(handle, data) :]


def name(unnamed: Path, path: Path) -> None:
    """Give a finished file or folder its name in one step."""
    flush(unnamed)
    os.replace(unnamed, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
