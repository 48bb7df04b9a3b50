"""One layer between the model and the mathematics: solved, cast, judged, described."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

import solvers
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint, digest, require_finite
from llm_pipeline.evidence import Inputs
from llm_pipeline.families import Site
from llm_pipeline.judging import HOST, Court, first_line
from llm_pipeline.plan import Plan
from solvers.array import require_held
from solvers.door import Run, place_of
from solvers.methods import Method
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.solution import Trace
from solvers.sparsity import Budget, Sparsity
from theory_checks import Certificate, certify, certify_saved


@dataclass(frozen=True)
class Layer:
    """One pruned layer.

    Attributes
    ----------
    name : tensor name in the checkpoint
    source, inputs : where the dense weight is read, and what the layer sees
    run : what the solver did; its last weights are those that are saved
    saved : (out, in) the weights in the stored dtype, as they go to the file
    seconds : of the solver
    court : where `inputs` and `run` lie
    """

    name: str
    block: int
    site: str
    source: Checkpoint
    inputs: Inputs
    run: Run
    saved: torch.Tensor
    seconds: float
    court: Court = HOST

    @property
    def problem(self) -> LayerProblem:
        """The layer in its own coordinates, float64; made anew, so that it takes memory only while it is used."""
        return self.inputs.problem(dense_weight(self.source, self.name))

    def values(self, *weights: np.ndarray) -> list[float]:
        """`problem.value` of weights in the layer's own coordinates; a few rows are in memory at a time."""
        dense, totals = self.source.read(self.name), [0.0] * len(weights)
        for k in range(0, len(dense), rows := self.inputs.gram.part):
            some = self.inputs.problem(self.court.put(dense[k : k + rows].to(torch.float64).numpy()))
            totals = [total + some.value(W[k : k + rows]) for total, W in zip(totals, weights, strict=True)]
        return totals

    def at(self, court: Court) -> Layer:
        """The layer in another place."""
        return replace(self, inputs=court.inputs(self.inputs), run=court.run(self.run), court=court)


def dense_weight(checkpoint: Checkpoint, name: str) -> np.ndarray:
    """A stored weight (out, in) in float64."""
    return require_finite(name, checkpoint.read(name)).to(torch.float64).numpy()


def prune_layer(
    walk: BlockWalk, i: int, site: Site, reader: str, inputs: Inputs, method: Method, budget: Budget, plan: Plan
) -> Layer:
    """Solve one layer, and cast the result to the dtype of the file."""
    name = walk.weight_name(i, reader)
    start = time.perf_counter()
    after = {"refine": plan.refine, "swaps": plan.swaps, "mu": plan.mu, "refine_mu": plan.refine_mu}
    place = place_of(plan.solver, torch.zeros(1, device=plan.device), plan.precision)
    made = partial(_problem, walk.checkpoint, name, inputs)
    run = solvers.run(method, made, budget, place=place and place.on_host, **after, **plan.method.options)
    seconds = time.perf_counter() - start
    saved = torch.from_numpy(run.weight).to(walk.checkpoint.dtype(name))
    require_held(run.weight, bool(torch.stack(saved.aminmax()).isfinite().all()), saved.dtype)  # no array is made
    run = run._replace(weight=array_of(saved))
    return Layer(name, i, site.name, walk.checkpoint, inputs, run, saved, seconds)


def _problem(checkpoint: Checkpoint, name: str, inputs: Inputs) -> LayerProblem:
    return inputs.problem(dense_weight(checkpoint, name))


def array_of(saved: torch.Tensor) -> np.ndarray:
    """The same numbers in a dtype that NumPy knows, without a copy where it knows the tensor's."""
    return saved.numpy() if saved.dtype in (torch.float32, torch.float64) else saved.to(torch.float32).numpy()


class Judged(NamedTuple):
    """What is told of a layer: its line of layers.jsonl, its certificates, and why not where it should be judged."""

    row: dict[str, Any]
    certificates: list[Certificate]
    step: str = ""


def judged(method: Method, layer: Layer, refine: str, court: Court = HOST) -> Judged:
    """A layer judged in a place, or on the host where the place cannot do it, for lack of memory or otherwise."""
    step = court.why and f"certificates on the host: {court.why}"
    if court.name != HOST.name:
        court.leave()
        try:
            return _judged(method, layer.at(court), refine, layer.run)
        except Refusal:
            raise
        except Exception as error:  # of many kinds
            step = f"{layer.name} judged on the host: {type(error).__name__}: {first_line(error)}"
        court.forget(layer.inputs.gram, layer.run)  # out here the arrays of the attempt are gone
    return _judged(method, layer, refine)._replace(step=step)


def _judged(method: Method, layer: Layer, refine: str, sampled: Run | None = None) -> Judged:
    return Judged(describe(layer, refine), judge(method, layer, refine, sampled))


def judge(method: Method, layer: Layer, refine: str, sampled: Run | None = None) -> list[Certificate]:
    """Every claim about how the layer was solved, and about the weights as they are saved."""
    run = layer.run
    return certify(method, run, refine, sampled) + judge_saved(method, run.refit, run.sparsity, run.weight)


def judge_saved(method: Method, problem: LayerProblem, sparsity: Sparsity, saved: np.ndarray) -> list[Certificate]:
    """The claims about the weights in the file; the null method owes no pattern, so they say nothing about it."""
    certificates = certify_saved(problem, sparsity, saved)
    if method.prunes:
        return certificates
    reason = "the null method removes nothing"
    return [Certificate(c.name, c.claim, c.where, 0.0, 0.0, applies=reason) for c in certificates]


def describe(layer: Layer, refine: str) -> dict[str, Any]:
    """The layer's line of layers.jsonl; objective and error belong to the saved weights and carry no ridge.

    The gains of refinement and swaps are decreases of f with the ridge `refine_mu`; `stages` are relative errors
    without a ridge, before the cast.
    """
    run, found, saved = layer.run, layer.run.found, layer.run.weight
    kept, nothing = int(np.count_nonzero(saved)), np.broadcast_to(np.zeros_like(saved[:1, :1]), saved.shape)
    stages = _stages(run) if refine != "none" else {}
    output, objective, *errors = layer.values(nothing, saved, *stages.values())
    relative = [f / output if output > 0 else float("nan") for f in (objective, *errors)]
    return {
        "layer": layer.name,
        "block": layer.block,
        "site": layer.site,
        "shape": list(saved.shape),
        "kept": kept,
        "sparsity": (saved.size - kept) / saved.size,
        "objective": objective,
        "relative_error": relative[0],
        "seconds": layer.seconds,
        "judged_on": layer.court.name,
        "stop": found.stop.value,
        "sha256": digest(layer.saved),
        "refine": {"name": refine, "gain": -run.refit.change(found.weight, run.refined)} if refine != "none" else None,
        "swaps": _swaps(run),
        "stages": dict(zip(stages, relative[1:], strict=True)) or None,
        "trace": _trace(found.trace),
    }


def _swaps(run: Run) -> dict[str, Any] | None:
    if run.gains is None:
        return None
    count, gain = sum(map(len, run.gains)), sum(float(row.sum()) for row in run.gains)
    return {"count": count, "gain": gain, "rows_ended": int(run.ended.sum())}


def _stages(run: Run) -> dict[str, np.ndarray]:
    """The weights after every stage, in the layer's own coordinates."""
    after = {"found": run.found.weight, "refined": run.refined, "swapped": run.swapped}
    if run.gains is None:
        del after["swapped"]
    return {stage: run.problem.original(W) for stage, W in after.items()}


def _trace(trace: Trace | None) -> dict[str, Any] | None:
    if trace is None:
        return None
    return {key: value for key, value in asdict(trace).items() if isinstance(value, str) or np.all(np.isfinite(value))}
