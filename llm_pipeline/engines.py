"""Engines: how the unfinished blocks are gone through. None of them changes a byte of what is written.

in-process   one block after the other, in this process; needs nothing
ray          blocks beside each other on Ray's workers; needs Ray and ``--inputs dense``
"""

from __future__ import annotations

from llm_pipeline.prune import Engine, in_turn
from solvers.methods import near
from solvers.refusal import Refusal

ENGINES = ("in-process", "ray")


def named(name: str, address: str | None, inputs: str) -> Engine:
    """An engine by its name.

    Parameters
    ----------
    name : one of `ENGINES`
    address : of a running Ray cluster, ``auto`` or ``HOST:PORT``; None starts Ray on this machine for the run
    inputs : of the plan, ``dense`` or ``pruned``

    Raises
    ------
    Refusal
        If the engine is unknown, cannot serve such a plan, or needs what is not installed.
    """
    if name not in ENGINES:
        raise Refusal(f"--engine is one of {', '.join(ENGINES)}; got '{name}'.{near(name, ENGINES)}")
    if name == "in-process" and address is not None:
        raise Refusal(f"--address {address} is that of a Ray cluster. Add --engine ray, or leave it out.")
    if name == "in-process":
        return in_turn
    if inputs != "dense":
        raise Refusal(
            "--engine ray prunes blocks independently of each other, so that every block must receive what dense "
            f"predecessors put out; this run has --inputs {inputs}. Prune with --engine ray --inputs dense, or leave "
            "--engine out."
        )
    try:
        from llm_pipeline.ray_engine import OnRay
    except ImportError as error:
        raise Refusal(
            f"--engine ray needs Ray, which cannot be imported ({error}). Install it: pip install "
            "'certified-pruning[ray]'; or leave --engine out: one process writes the same bytes."
        ) from error
    return OnRay(address)


def require_foreseen(name: str) -> None:
    """Refuse a prediction for any engine but the one that the planner knows."""
    if name != "in-process":
        raise Refusal(f"--dry-run predicts a run in one process, not --engine {name}. Leave --engine out of it.")
