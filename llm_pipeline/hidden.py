"""What the blocks pass on, (sequences, length, width): on the GPU, in memory, or in a memory-mapped file.

In memory a block's output takes the place of its input, eight sequences at a time. On disk every block writes a new
file, so that the input of an unfinished block is still there when the run goes on after a kill.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import NamedTuple

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
    folder : Path
        Where files go under ``disk``.
    """

    def __init__(self, walk: BlockWalk, place: str, folder: Path) -> None:
        self.walk, self.place, self.folder = walk, place, folder
        self.now = torch.empty(0)

    def embed(self, ids: np.ndarray) -> None:
        """What the first block receives."""
        self.now = self.walk.embed(ids, into=lambda shape: self._room(0, shape))

    def advance(self, block: nn.Module, i: int) -> None:
        """Put the output of block `i` in the place of its input."""
        into = self._room(i + 1, tuple(self.now.shape)) if self.place == "disk" else self.now
        self.now = self.walk.forward(block, i, self.now, into=into)
        if self.place == "disk":
            flush(self._path(i + 1))

    def reopen(self, i: int, shape: tuple[int, ...], expected: str) -> bool:
        """Go on with the file that holds the input of block `i`; False where it is missing or holds something else."""
        size = math.prod(shape) * self.walk.dtype.itemsize
        if self.place != "disk" or not self._path(i).is_file() or self._path(i).stat().st_size != size:
            return False
        self.now = self._mapped(i, shape)
        return self.digest() == expected

    def forget(self, i: int) -> None:
        """Remove the file of the input of block `i` and of earlier ones."""
        for path in self.folder.glob("hidden-*.bin"):
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
        return self.folder / f"hidden-{i}.bin"


def _reserve(path: Path, size: int) -> None:
    """Take the space now: a full disk is an error here, and a dead process while the mapping is written."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
