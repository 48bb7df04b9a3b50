"""The rungs of precision on one layer: certificates, support, objective and seconds of mAIHT against float64.

Letters: x_r, x_64 the weights of a run on a rung and on fp64, f the layer's quadratic in float64.

    support  #{ij : (x_r)_ij = 0 differs from (x_64)_ij = 0}                                      (1)
    gap      (f(x_r) - f(x_64)) / f(x_64), the difference formed without subtracting              (2)

Every rung is run twice: with its last stage in float64, as by default, and on the rung to the end. Certificates are
evaluated in float64 on the final weights, with the allowance that the trace asks for; of runs that stay on their rung
also with float64's. Differences are recorded and not judged: thresholds are discontinuous.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table

import solvers
from benchmarks.kernels import Walk, layer
from benchmarks.records import Record, make_record
from llm_pipeline import sources
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.evidence import measure
from llm_pipeline.layer import dense_weight
from solvers.array import Place, full_precision
from solvers.door import Run
from solvers.gpu import maiht as fast_maiht
from solvers.gpu.layer import Layer
from solvers.gpu.precision import RUNGS, kept_bits, product, split
from solvers.problem import LayerProblem
from solvers.sparsity import parse
from theory_checks import certify, certify_saved

SHAPE = (256, 1024)  # (out, in)
PATTERN = "50%"
STEPS = 5  # timed of every rung, in turn
LADDER = "precision-ladder"

Say = Callable[[int, int, str], None]


def ladder(
    seed: int = 0,
    *,
    model: str | None = None,
    calibration: str | None = None,
    shape: tuple[int, int] = SHAPE,
    iters: int = 100,
    device: str = "cpu",
    progress: Say = lambda done, of, what: None,
) -> Iterator[Record]:
    """Records of the rungs on a synthetic layer, and on the layers of the middle block of a model.

    Parameters
    ----------
    model : as in ``prune``; None for the synthetic layer alone
    calibration : ``FILE[:NxL]``, for the model's Grams
    shape : (out, in) of the synthetic layer
    iters : of mAIHT, whose other options are the defaults
    """
    chosen: list[tuple[str, LayerProblem]] = [("synthetic", layer(*shape, seed))]
    if model is not None:
        chosen += _middle_block(model, calibration, seed)
    for n, (name, problem) in enumerate(chosen):
        about = {"layer": name, "shape": list(problem.shape), "seed": seed, "device": device, "iterations": iters}
        yield from _rungs(problem, about, partial(progress, n, len(chosen)))


def _middle_block(model: str, calibration: str | None, seed: int) -> list[tuple[str, LayerProblem]]:
    """One layer of every site, on the inputs that the dense model feeds it."""
    source = sources.model(model)
    walk = BlockWalk(source, sources.device("auto"), dtype=sources.dtype("auto", source))
    hidden, middle = walk.embed(sources.calibration(calibration, source, seed).ids), len(walk) // 2
    for i in range(middle):
        hidden = walk.forward(walk.load(i), i, hidden)
    inputs, _ = measure(walk, walk.load(middle), middle, hidden, walk.family.sites)
    names = [walk.weight_name(middle, site.readers[0]) for site in walk.family.sites]
    return [(name, seen.problem(dense_weight(source, name))) for name, seen in zip(names, inputs, strict=True)]


def _rungs(problem: LayerProblem, about: dict[str, Any], say: Callable[[str], None]) -> Iterator[Record]:
    like = torch.zeros(1, device=about["device"])
    places = [Place.of(like, rung, finish) for rung in RUNGS for finish in dict.fromkeys(("fp64", rung))]
    seconds = _seconds_a_step(problem, [place for place in places if place.finish == "fp64"])
    reference: Run | None = None
    for place in places:
        say(f"{about['layer']}: {place.rung}, last stage {place.finish}")
        begun = time.perf_counter()
        run = _searched(problem, place, about["iterations"])
        taken = time.perf_counter() - begun
        reference = reference or run
        yield make_record(
            LADDER,
            **about,
            rung=place.rung,
            finish=place.finish,
            bits=kept_bits(partial(_product, place), place),
            **_judged(run, place),
            **_against(run, reference),
            relative_error=problem.relative_error(run.weight),
            seconds_step=seconds[place.rung],
            seconds=taken,
            threads=torch.get_num_threads(),
        )


def _searched(problem: LayerProblem, place: Place, iters: int) -> Run:
    return solvers.run(solvers.find("maiht"), problem, parse(PATTERN).on(problem.shape), place=place, iters=iters)


def _product(place: Place, left: Any, right: Any) -> Any:
    rung = RUNGS[place.rung]
    with full_precision(place.xp):
        return product(left, split(right, rung), rung, place.xp.empty_like(left))


def _judged(run: Run, place: Place) -> dict[str, Any]:
    method = solvers.find("maiht")
    found = certify(method, run, "none") + certify_saved(run.refit, run.sparsity, run.weight)
    told = {
        "certificates": Counter(c.outcome for c in found),
        "failing": sorted(c.name for c in found if c.outcome == "fails"),
    }
    if place.finish == place.rung:
        assert run.found.trace is not None
        strict = run._replace(found=replace(run.found, trace=replace(run.found.trace, dtype="float64")))
        told["failing_in_float64"] = sorted(c.name for c in certify(method, strict, "none") if c.outcome == "fails")
    return told


def _against(run: Run, reference: Run) -> dict[str, Any]:
    differ = int(np.count_nonzero((run.found.weight != 0) != (reference.found.weight != 0)))
    gap = run.problem.change(reference.found.weight, run.found.weight)
    return {
        "support_difference": differ,
        "support_share": differ / run.found.weight.size,
        "relative_gap": gap / run.problem.value(reference.found.weight),
    }


def _seconds_a_step(problem: LayerProblem, places: list[Place]) -> dict[str, float]:
    """Median seconds of a step on each rung, all rungs in turn."""
    judge, half = problem.normalised(), parse(PATTERN).on(problem.shape)
    walks = {place.rung: Walk(fast_maiht, Layer(judge, place, 8), half, 0.95 / judge.lipschitz) for place in places}
    taken: dict[str, list[float]] = {rung: [] for rung in walks}
    with full_precision(places[0].xp):
        for _ in range(STEPS + 1):
            for rung, walk in walks.items():
                begun = time.perf_counter()
                walk.go()
                taken[rung].append(time.perf_counter() - begun)
    return {rung: median(times[1:]) for rung, times in taken.items()}  # the first time allocates


def table(records: list[Record]) -> Table:
    """The ladder for the screen."""
    found = Table(box=box.SIMPLE_HEAD, title="rungs of precision against fp64", title_justify="left")
    columns = ("layer", "rung", "last stage", "bits", "hold, fail", "fail in fp64", "support", "gap", "s/step", "s")
    for column in columns:
        found.add_column(column, justify="left" if column in columns[:3] else "right")
    for r in (record for record in records if record["benchmark"] == LADDER):
        outcomes = r["certificates"]
        found.add_row(
            f"{r['layer']} {' x '.join(map(str, r['shape']))}",
            r["rung"],
            r["finish"],
            str(r["bits"]),
            f"{outcomes.get('holds', 0)}, {outcomes.get('fails', 0)}",
            str(len(r["failing_in_float64"])) if "failing_in_float64" in r else "",
            f"{r['support_difference']} ({r['support_share']:.2%})",
            f"{r['relative_gap']:+.1e}",
            f"{r['seconds_step']:.4f}",
            f"{r['seconds']:.2f}",
        )
    return found
