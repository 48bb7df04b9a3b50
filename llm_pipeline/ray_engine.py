"""The only file that knows Ray: it is started or joined, its workers are a crew, and its store keeps what they receive.

Ray says nothing on the screen, reports nothing to anybody, and is gone when the last block is written.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported: nothing is reported to anybody
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # else the death of a worker is told on stdout, beside --json
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")  # importing torch on a busy machine takes long

import ray
from ray import exceptions as lost

from llm_pipeline.calibration import Tokens
from llm_pipeline.capacity import Ask, ask_of, environment, share_out, store_for
from llm_pipeline.dispatch import Done, Failed, Lost, Outcome
from llm_pipeline.hidden import HiddenStates
from llm_pipeline.journal import Journal
from llm_pipeline.layer_parallel import Job, in_parallel, prune_alone
from llm_pipeline.memory import free_memory
from llm_pipeline.output_folder import OutputFolder
from llm_pipeline.prune import Progress
from solvers.refusal import Refusal
from solvers.sparsity import Budget

REASONS = {
    lost.WorkerCrashedError: "its worker died",
    lost.OutOfMemoryError: "its worker ran out of memory",
    lost.NodeDiedError: "its machine went away",
    lost.ObjectLostError: "its result was lost",
}


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
            cause = error.cause if isinstance(error.cause, Exception) else error
            cause.add_note(f"In the worker: {error}")
            return i, Failed(cause)
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
        ask = ask_of(journal.plan, folder.source, tokens, machine)
        ours = self._start(ask, environment(machine))
        crew = None
        try:
            workers, most = share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], ask, _own_store())
            options = {"num_cpus": ask.threads, "num_gpus": ask.gpus, "memory": ask.memory}
            crew = Crew(job, options if ours else {**options, "runtime_env": {"env_vars": environment(machine)}})
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

    def _start(self, ask: Ask, variables: dict[str, str]) -> bool:
        """Start or join Ray; False where this process has joined it before."""
        if ray.is_initialized():
            return False
        cores = max(len(os.sched_getaffinity(0)), ask.threads)
        store = store_for(cores, ask, free_memory())
        local = {"num_cpus": cores, "object_store_memory": store, "include_dashboard": False}
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": {"env_vars": variables}}
        where = {"address": self.address} if self.address else {"address": "local", **local}
        for attempts_left in (2, 1, 0):  # on a busy machine Ray gives up after thirty seconds, and comes up later
            try:
                ray.init(**where, **quiet)
                break
            except Exception as error:  # of many kinds, some of them plain
                ray.shutdown()
                if self.address or not attempts_left:
                    raise _not_started(self.address, error) from error
        return True


def _not_started(address: str | None, error: Exception) -> Refusal:
    what = f"the cluster at {address} must be reached, and is not" if address else "Ray must start here, and does not"
    return Refusal(
        f"{what} ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). See `ray status`; a cluster that "
        "asks for a token needs RAY_AUTH_MODE=token. Or go on without --engine ray: one process writes the same bytes."
    )


def _own_store() -> float:
    """Bytes of the object store of this machine, into which the hidden states are put."""
    own = ray.get_runtime_context().get_node_id()
    return next(node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["NodeID"] == own)
