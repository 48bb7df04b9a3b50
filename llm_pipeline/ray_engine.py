"""The only file that knows Ray: a crew of its workers, and how many blocks its machines take at a time.

A block asks for t CPUs, the threads of the run, for B bytes, what solving it takes beside the hidden states, and for a
GPU if the run is on one. With c, b, g what a machine offers, and S the object store of this one, of which a held block
takes h + w for its hidden states and its weights,

    workers   sum over the machines of min(c // t, b // B [, g])                                   (1)
    held      min(workers + 1, S // (h + w)), at least 1                                           (2)

so that one block is ready when a worker becomes free, and Ray's store does not overflow. Started on this machine, the
store is as large as (2) needs, and at most 40 % of the free memory.
"""

from __future__ import annotations

import logging
import math
import os
import time
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported: nothing is reported to anybody
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import exceptions as lost

from llm_pipeline.calibration import Tokens
from llm_pipeline.families import family_of
from llm_pipeline.hidden import HiddenStates
from llm_pipeline.journal import Journal
from llm_pipeline.layer_parallel import Job, in_parallel, prune_alone
from llm_pipeline.memory import free_memory
from llm_pipeline.output_folder import OutputFolder
from llm_pipeline.prune import Progress, needed
from llm_pipeline.schedule import Done, Failed, Lost, Outcome
from solvers.refusal import Refusal
from solvers.sparsity import Budget

STORE = 0.4  # of the free memory, the most that Ray's object store gets
LEAST_STORE, SPARE = 80 * 2**20, 32 * 2**20  # Ray refuses less; small objects
REASONS = {
    lost.WorkerCrashedError: "its worker died",
    lost.OutOfMemoryError: "its worker ran out of memory",
    lost.NodeDiedError: "its machine went away",
    lost.ObjectLostError: "its result was lost",
}


class Ask(NamedTuple):
    """What a block asks for: CPUs, bytes beside the hidden states, GPUs; and its bytes in the object store."""

    threads: int
    memory: int
    gpus: int
    stored: int


class Crew:
    """Ray's workers, each with a block at a time.

    Parameters
    ----------
    job : Job
        What the tasks share.
    options : dict
        Of the remote function.
    """

    def __init__(self, job: Job, options: dict[str, Any]) -> None:
        self._prune = ray.remote(prune_alone).options(max_retries=0, **options)
        self._job = ray.put(job)
        self._running: dict[Any, int] = {}

    def keep(self, bits: np.ndarray) -> Any:
        """A copy in the object store, which lives as long as the reference to it."""
        return ray.put(bits)

    def start(self, i: int, given: Any) -> None:
        """Queue block `i`."""
        self._running[self._prune.remote(i, given, self._job)] = i

    def next(self) -> tuple[int, Outcome]:
        """Wait for any block."""
        [done], _ = ray.wait(list(self._running), num_returns=1)
        i = self._running.pop(done)
        try:
            return i, Done(ray.get(done))
        except lost.RayTaskError as error:
            return i, Failed(getattr(error, "cause", None) or error)
        except lost.RayError as error:
            known = (reason for kind, reason in REASONS.items() if isinstance(error, kind))
            return i, Lost(next(known, f"{type(error).__name__}: {str(error).splitlines()[0]}"))

    def cancel(self) -> None:
        """Stop what runs."""
        for task in self._running:
            ray.cancel(task, force=True)


class OnRay:
    """The engine: Ray on this machine for as long as blocks are pruned, or a cluster that runs already.

    Parameters
    ----------
    address : str or None
        ``auto``, ``HOST:PORT``, or None for this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def __call__(
        self,
        states: HiddenStates,
        kept: dict[str, Budget],
        tokens: Tokens,
        folder: OutputFolder,
        journal: Journal,
        progress: Progress,
    ) -> None:
        if len(journal.blocks) == len(states.walk):
            return
        progress(len(journal.layers), len(states.walk) * len(states.walk.family.readers), "Ray starts")
        start = time.perf_counter()
        job, machine = Job.of(journal.plan, folder, kept), folder.run.facts()["machine"]
        ask = _ask(journal, folder, tokens, machine)
        ours = self._start(ask, threads_of(machine))
        crew = None
        try:
            workers, most = share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], ask, _own_store())
            crew = Crew(job, {"num_cpus": ask.threads, "num_gpus": ask.gpus, "memory": ask.memory})
            schedule = in_parallel(states, tokens, folder, journal, progress, crew, most)
        except lost.RayError as error:
            raise Refusal(f"Ray stopped working ({str(error).splitlines()[0]}).") from error
        finally:
            if ours:
                ray.shutdown()
            elif crew:
                crew.cancel()
        journal.engine = {
            "name": "ray",
            "workers": workers,
            "threads": ask.threads,
            "held": most,
            "workers_lost": schedule.lost,
            "seconds": time.perf_counter() - start,
        }

    def _start(self, ask: Ask, environment: dict[str, str]) -> bool:
        """Start or join Ray; False where this process has joined it before."""
        if ray.is_initialized():
            return False
        cores = len(os.sched_getaffinity(0))
        at_a_time = cores // ask.threads + 1
        store = max(LEAST_STORE, min(at_a_time * ask.stored + SPARE, int(STORE * free_memory())))
        local = {"num_cpus": max(cores, ask.threads), "object_store_memory": store, "include_dashboard": False}
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            ray.init(
                address=self.address or "local",
                runtime_env={"env_vars": environment},
                **quiet,
                **({} if self.address else local),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"the cluster at {self.address}" if self.address else "this machine"
            raise Refusal(
                f"Ray must start on {where}, and does not ({str(error).splitlines()[0]}). Look at `ray status`, or go "
                "on without --engine ray."
            ) from error
        return True


def share_out(machines: list[dict[str, float]], ask: Ask, store: float) -> tuple[int, int]:
    """Workers (1) and blocks held (2); refused where no machine takes a block."""
    workers = 0
    for offers in machines:
        bounds = [offers.get("CPU", 0) // ask.threads, offers.get("memory", 0) // ask.memory]
        workers += int(min(bounds + [offers.get("GPU", 0)] * bool(ask.gpus)))
    if workers == 0:
        best = {kind: max((offers.get(kind, 0) for offers in machines), default=0) for kind in ("CPU", "memory", "GPU")}
        raise Refusal(
            f"pruning a block takes {ask.threads} CPUs, {ask.memory / 2**30:.1f} GiB and {ask.gpus} GPUs of one "
            f"machine; Ray's offer at most {best['CPU']:g}, {best['memory'] / 2**30:.1f} GiB and {best['GPU']:g}. Set "
            "OMP_NUM_THREADS lower, or prune without --engine ray."
        )
    return workers, max(1, min(workers + 1, int(max(store - SPARE, 0) // ask.stored)))


def threads_of(machine: dict[str, Any]) -> dict[str, str]:
    """The environment in which a worker's sums round as those of the run."""
    numpy_threads, torch_threads = str(machine["threads of NumPy"]), str(machine["threads"])
    return {
        "OMP_NUM_THREADS": torch_threads,
        "MKL_NUM_THREADS": torch_threads,
        "OPENBLAS_NUM_THREADS": numpy_threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_THREAD_TIMEOUT": "4",
    }


def _ask(journal: Journal, folder: OutputFolder, tokens: Tokens, machine: dict[str, Any]) -> Ask:
    plan, source = journal.plan, folder.source
    takes, family = needed(plan, source, tokens), family_of(source.config)
    names = [f"{family.blocks}.0.{reader}.weight" for reader in family.readers]
    weights = sum(math.prod(source.shape(name)) * source.dtype(name).itemsize for name in names)
    threads = max(machine["threads"], machine["threads of NumPy"])
    return Ask(threads, takes.block, int(machine["GPU"] != "none"), takes.hidden + weights)


def _own_store() -> float:
    """Bytes of the object store of this machine, into which the hidden states are put."""
    own = ray.get_runtime_context().get_node_id()
    return next(node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["NodeID"] == own)
