"""How many blocks machines take at a time, and how many are held for them.

A block asks for t CPUs, the threads of the run, for B bytes, what solving it takes beside the hidden states, and for a
GPU if the run is on one. With c, b, g what a machine offers, and S the object store of the machine that feeds them, of
which a held block takes h + w for its hidden states and its weights,

    workers   sum over the machines of min(c // t, b // B [, g])                                   (1)
    held      min(workers + 1, (S - s) // (h + w)), at least 1                                     (2)
    store     min((c // t + 1) (h + w) + s, 40 % of the free memory), where it is ours to choose   (3)

so that one block is ready when a worker becomes free, and the store does not overflow; s is for small objects.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llm_pipeline.calibration import Tokens
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.families import family_of
from llm_pipeline.plan import Plan
from llm_pipeline.prune import needed
from solvers.refusal import Refusal

STORE = 0.4
SPARE, LEAST_STORE = 32 * 2**20, 80 * 2**20  # Ray refuses a smaller store


class Ask(NamedTuple):
    """What a block asks for: CPUs, bytes beside the hidden states, GPUs; and its bytes in the object store."""

    threads: int
    memory: int
    gpus: int
    stored: int


def ask_of(plan: Plan, source: Checkpoint, tokens: Tokens, machine: dict[str, Any]) -> Ask:
    """What a block of a run asks for, whose surroundings are those of `changes.facts`."""
    takes, family = needed(plan, source, tokens), family_of(source.config)
    names = [f"{family.blocks}.0.{reader}.weight" for reader in family.readers]
    weights = sum(math.prod(source.shape(name)) * source.dtype(name).itemsize for name in names)
    threads = max(machine["threads"], machine["threads of NumPy"])
    return Ask(threads, takes.block, int(machine["GPU"] != "none"), takes.hidden + weights)


def share_out(machines: list[dict[str, float]], ask: Ask, store: float) -> tuple[int, int]:
    """Workers (1) and blocks held (2); refused where no machine takes a block."""
    workers = 0
    for offers in machines:
        bounds = [offers.get("CPU", 0) // ask.threads, offers.get("memory", 0) // ask.memory]
        workers += int(min(bounds + [offers.get("GPU", 0)] * bool(ask.gpus)))
    if workers == 0:
        most = {kind: max((offers.get(kind, 0) for offers in machines), default=0) for kind in ("CPU", "memory", "GPU")}
        raise Refusal(
            f"pruning a block takes {ask.threads} CPUs, {ask.memory / 2**30:.1f} GiB and {ask.gpus} GPUs of one "
            f"machine; at most {most['CPU']:g}, {most['memory'] / 2**30:.1f} GiB and {most['GPU']:g} are offered. Set "
            "OMP_NUM_THREADS lower, or go on without --engine ray."
        )
    return workers, max(1, min(workers + 1, int(store - SPARE) // ask.stored))


def store_for(cores: int, ask: Ask, free: int) -> int:
    """Bytes of an object store on this machine (3)."""
    return max(LEAST_STORE, min((cores // ask.threads + 1) * ask.stored + SPARE, int(STORE * free)))


def environment(machine: dict[str, Any]) -> dict[str, str]:
    """The variables under which a worker's sums round as those of the run."""
    return {
        "OMP_NUM_THREADS": str(machine["threads"]),
        "MKL_NUM_THREADS": str(machine["threads"]),
        "OPENBLAS_NUM_THREADS": str(machine["threads of NumPy"]),
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_THREAD_TIMEOUT": "4",
    }
