"""Blocks pruned beside each other: each receives what its dense predecessors put out (FISTAPruner's parallel pruning).

With ``--inputs dense`` no block depends on another's pruned weights, so the blocks are independent once they are fed.
This process runs the dense forward pass, keeps a copy of what each block receives until it is written, and is the only
one that writes; a worker reads the source model, prunes its block as `prune.prune_block` does, and sends weights and
record back. Weights, certificates and what a later `resume` finds are those of one process, byte for byte.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.changes import require_alike
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.dispatch import Crew, Schedule
from llm_pipeline.hidden import BITS, HiddenStates
from llm_pipeline.journal import Journal
from llm_pipeline.memory import keep_little
from llm_pipeline.output_folder import OutputFolder
from llm_pipeline.plan import Plan
from llm_pipeline.prune import Progress, prune_block, reach
from llm_pipeline.sources import DTYPES
from solvers.sparsity import Budget


@dataclass(frozen=True)
class Job:
    """What the tasks of a run share.

    Attributes
    ----------
    plan : Plan
    model : folder of the source model, the same on every machine
    kept : what every layer may keep
    recorded : `changes.facts` of the run, and the stamps of its weight files, in JSON
    """

    plan: Plan
    model: str
    kept: dict[str, Budget]
    recorded: str

    @classmethod
    def of(cls, plan: Plan, folder: OutputFolder, kept: dict[str, Budget]) -> Job:
        """Of a run that has begun."""
        recorded = {"stamps": _stamps(folder.source), **folder.run.facts()}
        return cls(plan, str(folder.source.path.resolve()), kept, json.dumps(recorded))


class Answer(NamedTuple):
    """A pruned block: its record, and the bits of its weights by name."""

    record: dict[str, Any]
    weights: dict[str, np.ndarray]


class Keeper(Crew, Protocol):
    """A crew that also keeps what a block receives, until nobody refers to it any more."""

    def keep(self, bits: np.ndarray) -> Any:
        """Take a copy; returns what `start` is given."""


@torch.inference_mode()
def prune_alone(i: int, received: np.ndarray, job: Job) -> Answer:
    """What a worker does: prune block `i` from the bits of the hidden states that it receives."""
    device = torch.device(job.plan.device).type  # a worker sees the GPU that is its own
    plan = replace(job.plan, device=device, inputs="pruned")  # the dense pass, and the block it needs, are not here
    walk = _walk(job.model, plan.device, plan.dtype, job.recorded)
    weights: dict[str, np.ndarray] = {}
    journal = Journal(plan)
    states = HiddenStates(walk, "memory")
    states.now = tensor_of(received, walk.dtype)
    prune_block(i, states, job.kept, lambda name, W: weights.update({name: bits_of(W)}), journal)
    return Answer(journal.close(""), weights)


def in_parallel(
    states: HiddenStates,
    tokens: Tokens,
    folder: OutputFolder,
    journal: Journal,
    progress: Progress,
    crew: Keeper,
    most: int,
) -> Schedule:
    """Have the unfinished blocks pruned by a crew, at most `most` of them held at a time, and write them in order."""
    walk, first = states.walk, len(journal.blocks)
    total = len(walk) * len(walk.family.readers)
    with journal.stage("calibrate"):
        reach(states, tokens, folder, journal, progress)
    dense = DensePass(states, first)

    def feed(i: int) -> Any:
        with journal.stage("calibrate"):
            dense.to(i)
            return crew.keep(bits_of(states.now))

    def write(i: int, answer: Answer) -> None:
        with journal.stage("calibrate"):
            passed = dense.digest(i + 1) if i + 1 < len(walk) else ""
        with journal.stage("write"):
            for name, bits in answer.weights.items():
                folder.put(name, tensor_of(bits, folder.source.dtype(name)))
            folder.finish(journal.adopt(answer.record, passed))
            states.forget(i)

    schedule = Schedule(range(first, len(walk)), most)
    schedule.run(crew, feed, write, lambda words: progress(len(journal.layers), total, words))
    progress(total, total, "all blocks")
    return schedule


class DensePass:
    """The hidden states of the dense model, moved on block by block.

    Parameters
    ----------
    states : HiddenStates
        What block `at` receives.
    at : int
    """

    def __init__(self, states: HiddenStates, at: int) -> None:
        self.states, self.at = states, at
        self._digests: dict[int, str] = {}

    def to(self, i: int) -> None:
        """Let `states.now` be what block `i` receives, unless a later block's turn has come."""
        while self.at < i:
            self.states.advance(self.states.walk.load(self.at), self.at)
            self.at += 1
            self._digests[self.at] = self.states.digest()

    def digest(self, i: int) -> str:
        """The digest of what block `i` receives."""
        self.to(i)
        return self._digests.pop(i)


def bits_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor of any dtype as integers of its shape; no copy where it rests in memory."""
    return tensor.detach().cpu().contiguous().view(BITS[tensor.dtype.itemsize]).numpy()


def tensor_of(bits: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """The tensor that such integers stand for; no copy, and not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(bits).view(dtype)


def _stamps(source: Checkpoint) -> dict[str, list[int]]:
    """What tells a weight file from its copies without reading it: its length, time and number."""
    found = {name: (source.path / name).stat() for name in source.files}
    return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in found.items()}


@lru_cache(maxsize=1)
def _walk(model: str, device: str, dtype: str, recorded: str) -> BlockWalk:
    """The source model, opened and compared with that of the run once by every worker."""
    keep_little()
    source, then = Checkpoint.open(model), json.loads(recorded)
    require_alike(then, source, device, same_weights=_stamps(source) == then["stamps"])
    return BlockWalk(source, device, dtype=DTYPES[dtype])
