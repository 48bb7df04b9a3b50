"""What the bytes of a run depend on beside its plan, and what of it has changed when the run goes on."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import llm_pipeline
import solvers
import theory_checks
from llm_pipeline.checkpoint import Checkpoint, file_sha256
from llm_pipeline.journal import versions
from llm_pipeline.plan import Plan
from solvers.refusal import Refusal

PACKAGES = (solvers, theory_checks, llm_pipeline)
MEASURED = ("outliers", "kept")  # of an allocation, filled in by the run
AGAIN = "prune again into another folder"


def facts(plan: Plan, source: Checkpoint, hidden: str) -> dict[str, Any]:
    """What a run that goes on is compared with, as JSON holds it; `hidden` is the place as it was typed."""
    found = {
        "plan": _asked(plan),
        "model files": _side_files(source),
        "code": _code(),
        "machine": _machine(plan.device),
        "hidden": hidden,
    }
    return json.loads(json.dumps(found))


def require_unchanged(recorded: dict[str, Any], plan: Plan) -> None:
    """Refuse other options, versions, code or surroundings than those of the run, and say which."""
    asked = json.loads(json.dumps(_asked(plan)))
    _require_equal("the plan", recorded["plan"], asked, "Undo the edit of plan.toml")
    _require_equal("the software", plan.versions, versions(), "Install the versions of the run")
    _require_equal("the code", recorded["code"], _code(), "Check out the code of the run")
    advice = "Its sums would round otherwise: give it the same machine and OMP_NUM_THREADS"
    _require_equal("the machine", recorded["machine"], _machine(plan.device), advice)


def require_same_files(recorded: dict[str, Any], source: Checkpoint) -> None:
    """Refuse another configuration or tokenizer than was copied."""
    _require_equal("the source model", recorded["model files"], _side_files(source), "Restore it")


def require_alike(recorded: dict[str, Any], source: Checkpoint, device: str, *, same_weights: bool) -> None:
    """Refuse a worker that would write other bytes than the process that feeds it.

    Parameters
    ----------
    recorded : `facts` of the run
    source, device : the worker's
    same_weights : whether its weight files are known to be those of the run; else they are read
    """
    asked, weights = recorded["plan"], recorded["plan"]["model"]["files"]
    here = {
        "software": (asked["versions"], versions()),
        "code": (recorded["code"], _code()),
        "machine": (recorded["machine"], _machine(device)),
        "source model": (recorded["model files"], _side_files(source)),
        "weights": (weights, weights if same_weights else source.sha256()),
    }
    for what, (then, now) in here.items():
        told = _differences(then, now, "in the run", "there")
        if told:
            raise Refusal(
                f"a worker's {what} must be that of the run, and on {platform.node()} it is not: {told}. Give every "
                "machine the same software, processor and model folder, or go on without --engine ray."
            )


def _require_equal(what: str, then: dict[str, Any], now: dict[str, Any], do: str) -> None:
    told = _differences(then, now, "then", "now")
    if told:
        raise Refusal(f"{what} has changed since the run began: {told}. {do}, or {AGAIN}.")


def _differences(one: dict[str, Any], other: dict[str, Any], at_one: str, at_other: str) -> str:
    """What differs, in words; nothing where nothing does."""
    one, other = dict(_leaves(one)), dict(_leaves(other))
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    told = (f"{name} ({_short(one.get(name))} {at_one}, {_short(other.get(name))} {at_other})" for name in names[:3])
    return ", ".join(told) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _leaves(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _asked(plan: Plan) -> dict[str, Any]:
    asked = asdict(plan)
    for key in MEASURED:
        del asked["allocation"][key]
    return asked


def _side_files(source: Checkpoint) -> dict[str, str]:
    """Digests of the files that say what the weights are, and of the tokenizer's."""
    names = sorted(path.name for path in source.path.iterdir() if path.suffix in (".json", ".model", ".txt"))
    return {name: file_sha256(source.path / name) for name in names}


def _code() -> dict[str, str]:
    """Digests of the source files that a result depends on."""
    found = {}
    for package in PACKAGES:
        [folder] = map(Path, package.__path__)
        for path in sorted(folder.rglob("*.py")):
            found[str(path.relative_to(folder.parent))] = file_sha256(path)
    return found


def _machine(device: str) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    asked = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    cuda = torch.device(device).type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "threads of NumPy": int(asked) if asked and asked.isdigit() else cores,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "GPU": torch.cuda.get_device_name(device) if cuda else "none",
    }
