"""One layer by one method, stage by stage: what the search found, the refit on its support, the exchanges after it.

    W_found    what the method returns, ridge mu                                                 (1)
    W_refined  argmin f on the support of (1), ridge refine_mu                                    (2)
    W_swapped  (2) after exchanges of a kept for a removed input, each refitted, ridge refine_mu  (3)

Every stage is judged by its relative error f(W) / f(0) without a ridge, |W X - W0 X|^2 / |W0 X|^2, on two texts. The
stages are those of `solvers.run`, bit for bit, one after another so that each has its seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

import solvers
from llm_pipeline.layer import judge_saved
from solvers.door import REFINE_MU, Run
from solvers.methods import Method
from solvers.problem import LayerProblem
from solvers.refine import refine
from solvers.refusal import Refusal
from solvers.sparsity import Array, Sparsity
from solvers.swaps import most_of
from solvers.swaps import swaps as swapped_on
from theory_checks import Certificate, certify
from theory_checks.optimality_gap import optimality_gap
from theory_checks.perspective import Bound

SEARCH_MU = 0.1  # Wen, Zuo, Pan 2025; the default of solvers.run


@dataclass(frozen=True)
class Staged:
    """A layer solved: the run, the weights (out, in) after each stage in the layer's own coordinates, and seconds."""

    run: Run
    weights: dict[str, Array]
    seconds: dict[str, float]


def staged(method: Method, problem: LayerProblem, sparsity: Sparsity, swaps: int | str) -> Staged:
    """Search, refine exactly, swap; a layer without drift."""
    most, clock = most_of(swaps), [time.perf_counter()]
    run = solvers.run(method, problem, sparsity, mu=SEARCH_MU)  # (1)
    clock.append(time.perf_counter())
    refit = problem.normalised(REFINE_MU)
    refined = refine(refit, run.found.weight != 0, run.found.weight, "exact")  # (2)
    clock.append(time.perf_counter())
    weights = {"found": run.weight, "refined": _plain_zeros(refit.original(refined))}
    swapped, gains, ended = refined, None, run.ended
    if most != 0:
        swapped, gains = swapped_on(refit, sparsity, refined, most)  # (3)
        ended = np.array([len(row) != most for row in gains])
        weights["swapped"] = _plain_zeros(refit.original(swapped))
        clock.append(time.perf_counter())
    last = weights[list(weights)[-1]]
    run = run._replace(refit=refit, refined=refined, swapped=swapped, gains=gains, ended=ended, weight=last)
    return Staged(run, weights, dict(zip(weights, np.diff(clock).tolist(), strict=True)))


def facts(
    method: Method, done: Staged, problem: LayerProblem, held: LayerProblem, bound: Bound | Refusal | None = None
) -> dict[str, Any]:
    """What a record says of a solved layer.

    Parameters
    ----------
    problem, held : the layer on the Gram of calibration and of held-out text, without a ridge
    bound : on the objective of every weight of the pattern, from `perspective`; its certificate counts with the others

    Returns
    -------
    dict
        `errors` by stage and text; `objective`, the separable `lower_bound` on its global minimum and their ratio `gap`
        with the ridge of the last stage; `residual`, the worst violation of the fixed-point clauses at the found weight
        over the weight's norm, for methods that are an iteration of such a map; `certificates` by outcome and the
        names of those that fail; `seconds` by stage.
    """
    run, begun = done.run, time.perf_counter()
    certificates = certify(method, run, "exact") + judge_saved(method, run.refit, run.sparsity, run.weight)
    certificates += [] if bound is None else [optimality_gap(run.refit, run.swapped, bound)]
    seconds = {**done.seconds, "certify": time.perf_counter() - begun}
    separable = _named(certificates, "lower-bound")
    objective, low = run.refit.value(run.swapped), None if separable.applies else separable.measured
    return {
        "errors": {
            stage: {"calibration": _number(problem.relative_error(W)), "held_out": _number(held.relative_error(W))}
            for stage, W in done.weights.items()
        },
        "sparsity_measured": float(np.mean(run.weight == 0)),
        "objective": objective,
        "lower_bound": low,
        "gap": objective / low if low else None,
        "residual": _residual(run, _named(certificates, "fixed-point")),
        "stop": run.found.stop.value,
        "exchanges": None if run.gains is None else sum(map(len, run.gains)),
        "certificates": dict(Counter(certificate.outcome for certificate in certificates)),
        "failures": [str(certificate) for certificate in certificates if certificate.outcome == "fails"],
        "seconds": seconds,
        "mu": run.problem.gram.ridge,
        "refine_mu": run.refit.gram.ridge,
    }


def _residual(run: Run, clauses: Certificate) -> float | None:
    size = float(np.linalg.norm(run.found.weight))
    return None if run.found.trace is None or not size else _number(clauses.measured / size)


def _named(certificates: list[Certificate], name: str) -> Certificate:
    return next(certificate for certificate in certificates if certificate.name == name)


def _number(value: float) -> float | None:
    """A number that a record can hold; null for the error of a layer without output."""
    return float(value) if isfinite(value) else None


def _plain_zeros(W: Array) -> Array:
    return np.where(W == 0, 0.0, W)
