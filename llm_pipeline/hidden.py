"""What the blocks pass on, (sequences, length, width): on the GPU, in memory, or in a memory-mapped file.

In memory a block's output takes the place of its input, eight sequences at a time. On disk every block writes a new
file, so that the input of an unfinished block is still there when the run goes on after a kill. Where a GPU runs out
of memory while they are on it, they leave it, once and for good, and what failed is done again: no result changes.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from llm_pipeline.blocks import BATCH, BlockWalk
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.durable import flush
from llm_pipeline.families import family_of
from llm_pipeline.memory import free_memory
from solvers.methods import near
from solvers.refusal import Refusal

PLACES = ("auto", "gpu", "memory", "disk")
WHERE = {"gpu": "on the GPU", "memory": "in memory", "disk": "on disk"}
SHARE = 0.8  # of the free memory that a run plans with
T = TypeVar("T")
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Need(NamedTuple):
    """Bytes that a run takes: its hidden states, and what a block takes beside them."""

    hidden: int
    block: int


def need(source: Checkpoint, sequences: int, length: int, dtype: torch.dtype, copies: int = 1) -> Need:
    """A simple estimate: block, widest Gram and largest layer in float64 with scratch, activations of one batch."""
    family, size = family_of(source.config), dtype.itemsize
    shapes = [source.shape(f"{family.blocks}.0.{reader}.weight") for reader in family.readers]
    widest, largest = max(max(shape) for shape in shapes), max(math.prod(shape) for shape in shapes)
    block = copies * size * sum(math.prod(shape) for shape in shapes)
    solving = 8 * (4 * max(shape[1] for shape in shapes) ** 2 + 6 * largest)
    running = 4 * size * min(BATCH, sequences) * length * widest
    return Need(size * sequences * length * source.config.hidden_size, block + solving + running)


def choose(place: str, device: str, needed: Need) -> str:
    """Where the hidden states go: as typed, or the fastest place that has room for them beside a block."""
    cuda = torch.device(device).type == "cuda"
    if place not in PLACES:
        raise Refusal(f"--hidden is one of {', '.join(PLACES)}; got '{place}'.{near(place, PLACES)}")
    if place == "gpu" and not cuda:
        raise Refusal(f"--hidden gpu needs a run on a GPU; this one is on {device}. Use memory, disk or auto.")
    if place != "auto":
        return place
    if cuda and sum(needed) <= SHARE * torch.cuda.mem_get_info(device)[0]:
        return "gpu"
    beside = 0 if cuda else needed.block
    return "memory" if needed.hidden + beside <= SHARE * free_memory() else "disk"


class HiddenStates:
    """The input of the next block.

    Parameters
    ----------
    walk : BlockWalk
    place : str
        ``gpu``, ``memory`` or ``disk``.
    folder : Path, optional
        Where files go under ``disk``.
    batch : int
        Sequences that a block runs at a time.
    """

    def __init__(self, walk: BlockWalk, place: str, folder: Path | None = None, *, batch: int = BATCH) -> None:
        self.walk, self.place, self.folder, self.batch = walk, place, folder, batch
        self.now = torch.empty(0)
        self._steps: list[str] = []
        self._block, self._passed = 0, 0

    def embed(self, ids: np.ndarray) -> None:
        """What the first block receives."""
        self.now = self.sparing(lambda: self.walk.embed(ids, batch=self.batch, into=lambda shape: self._room(0, shape)))

    def advance(self, block: nn.Module, i: int) -> None:
        """Put the output of block `i` in the place of its input."""
        self._block, self._passed = i, 0
        self.now = self.sparing(lambda: self._output(block, i))
        self._block = i + 1
        if self.place == "disk":
            flush(self._path(i + 1))

    def _output(self, block: nn.Module, i: int) -> torch.Tensor:
        """The output of block `i`, from the first batch on that has not passed it yet."""
        into = self._room(i + 1, tuple(self.now.shape)) if self.place == "disk" else self.now
        for n, (part, place) in enumerate(zip(self.now.split(self.batch), into.split(self.batch), strict=True)):
            if n >= self._passed:
                self.walk.forward(block, i, part, batch=self.batch, into=place)
                self._passed = n + 1
            elif into is not self.now:
                place.copy_(part)
        return into

    def sparing(self, call: Callable[[], T]) -> T:
        """What a call gives; where the GPU has no memory for it, once more when the hidden states have left it."""
        try:
            return call()
        except torch.OutOfMemoryError as error:
            if self.place != "gpu":
                raise
            reason = (str(error).splitlines() or ["no reason given"])[0]
        self._leave(reason)  # out here the arrays of the call are gone
        return call()

    def told(self) -> list[str]:
        """What was stepped down since this was asked last."""
        steps, self._steps = self._steps, []
        return steps

    def _leave(self, reason: str) -> None:
        """Step down from the GPU, visibly."""
        fits = self.folder is None or self.now.nbytes <= SHARE * free_memory()
        self.place = "memory" if fits else "disk"
        said = f"block {self._block}: the GPU ran out of memory ({reason}); hidden states go on {WHERE[self.place]}"
        print(said, file=sys.stderr, flush=True)
        self._steps.append(said)
        if self.now.numel():
            self.now = self._room(self._block, tuple(self.now.shape)).copy_(self.now)
        torch.cuda.empty_cache()

    def reopen(self, i: int, shape: tuple[int, ...], expected: str) -> bool:
        """Go on with the file that holds the input of block `i`; False where it is missing or holds something else."""
        size = math.prod(shape) * self.walk.dtype.itemsize
        if self.place != "disk" or not self._path(i).is_file() or self._path(i).stat().st_size != size:
            return False
        self.now, self._block = self._mapped(i, shape), i
        return self.digest() == expected

    def forget(self, i: int) -> None:
        """Remove the file of the input of block `i` and of earlier ones."""
        for path in self.folder.glob("hidden-*.bin") if self.folder else ():
            if int(path.stem.removeprefix("hidden-")) <= i:
                path.unlink()

    def digest(self) -> str:
        """A digest of the bits, by a sum over each sequence: the order of summation does not matter."""
        bits = self.now.view(BITS[self.now.dtype.itemsize])  # (n, l, d)
        sums = [int(row.sum(dtype=torch.int64)) for row in bits]
        return hashlib.sha256(repr(sums).encode()).hexdigest()

    def _room(self, i: int, shape: tuple[int, ...]) -> torch.Tensor:
        if self.place == "disk":
            _reserve(self._path(i), math.prod(shape) * self.walk.dtype.itemsize)
            return self._mapped(i, shape)
        cuda = self.walk.device.type == "cuda"
        device = self.walk.device if self.place == "gpu" else "cpu"
        return torch.empty(shape, dtype=self.walk.dtype, device=device, pin_memory=cuda and device == "cpu")

    def _mapped(self, i: int, shape: tuple[int, ...]) -> torch.Tensor:
        size = math.prod(shape)
        return torch.from_file(str(self._path(i)), shared=True, size=size, dtype=self.walk.dtype).view(shape)

    def _path(self, i: int) -> Path:
        assert self.folder is not None
        return self.folder / f"hidden-{i}.bin"


def _reserve(path: Path, size: int) -> None:
    """Take the space now: a full disk is an error here, and a dead process while the mapping is written."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
