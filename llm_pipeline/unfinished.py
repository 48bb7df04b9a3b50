"""What a run needs to go on after a kill, kept in a hidden folder of its partial output until it ends.

`run.json` says what was asked and in what surroundings, `text.npz` holds the windows to evaluate on, `block-N.json` the
rows and seconds of a block whose weights are on the disk. Each is written whole; nothing else is believed.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from llm_pipeline.calibration import Tokens
from llm_pipeline.durable import write_file
from llm_pipeline.lock import Lock
from solvers.refusal import Refusal

FOLDER = ".run"
FACTS, TEXT = "run.json", "text.npz"
ASKED, EVALUATED = ("plan", "model files", "code", "machine"), "evaluated"
TOLD = ("block", "hidden", "steps", "layers", "certificates", "failures", "seconds", "peak_memory_bytes")
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile)


class UnfinishedRun:
    """The hidden folder of a partial output.

    Parameters
    ----------
    output : Path
        The folder it lies in.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER
        self._lock: Lock | None = None

    def lock(self, out: Path) -> None:
        """Keep every other process away from `out`."""
        self._lock = Lock(self.folder / "lock", str(out))

    def release(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    @property
    def locked(self) -> bool:
        """Whether this process is the one that may write."""
        return self._lock is not None

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return (self.folder / FACTS).is_file()

    def begin(self, facts: dict[str, Any], text: Tokens | None) -> None:
        """Write down what was asked."""
        if text is not None:
            self.write(TEXT, _packed(text))
        self.write(FACTS, json.dumps({**facts, EVALUATED: text is not None}, indent=1).encode())

    def facts(self) -> dict[str, Any]:
        """What was asked."""
        try:
            found = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
            _ = [found[key].items() for key in ASKED], found["hidden"], found[EVALUATED]
        except BROKEN as error:
            raise self._unreadable(FACTS, error) from error
        return found

    def text(self) -> Tokens | None:
        """The windows to evaluate on, None where none were asked for."""
        if not self.facts()[EVALUATED]:
            return None
        try:
            return _unpacked(self.folder / TEXT)
        except BROKEN as error:
            raise self._unreadable(TEXT, error) from error

    def blocks(self) -> list[dict[str, Any]]:
        """The records of the finished blocks, from the first on without a gap."""
        found: list[dict[str, Any]] = []
        while (path := self._block(len(found))).is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                _ = [record[key] for key in TOLD], [row[key] for row in record["layers"] for key in ("layer", "sha256")]
            except BROKEN:  # a damaged record is none
                return found
            found.append(record)
        return found

    def finish(self, record: dict[str, Any]) -> None:
        """Record a block; its weights must be on the disk."""
        self.write(self._block(record["block"]).name, json.dumps(record).encode())

    def forget(self, first: int) -> None:
        """Take back the records of block `first` and those after it."""
        for path in self.folder.glob("block-*.json"):
            if int(path.stem.removeprefix("block-")) >= first:
                path.unlink()

    def write(self, name: str, data: bytes) -> None:
        """One file of the folder."""
        write_file(self.folder / name, data, self.folder)

    def _unreadable(self, name: str, error: Exception) -> Refusal:
        return Refusal(
            f"an unfinished run holds a readable {FOLDER}/{name}; {self.folder.parent} does not "
            f"({type(error).__name__}: {error}). Remove the folder, and prune again."
        )

    def _block(self, i: int) -> Path:
        return self.folder / f"block-{i}.json"


def _packed(text: Tokens) -> bytes:
    ids = np.asarray(text.ids)
    facts = asdict(replace(text, ids=np.empty(0)))
    del facts["ids"]
    into = io.BytesIO()
    np.savez(into, ids=ids, facts=np.array(json.dumps(facts)))
    return into.getvalue()


def _unpacked(path: Path) -> Tokens:
    with np.load(path) as held:
        return Tokens(ids=held["ids"], **json.loads(str(held["facts"])))
