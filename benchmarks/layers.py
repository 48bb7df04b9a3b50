"""Layer by layer: methods x patterns x stages on the same Grams of the dense model, a record for each layer.

One walk through the dense model carries two texts side by side. Of every block it takes the Grams of both, calibration
for the methods and held-out text for the judgement; no block is replaced by a pruned one, so every method gets the very
same layers. The Grams of a block are forgotten before those of the next are taken. A pattern that fixes the count of
every row is bounded from below once for all methods.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import torch

from benchmarks.held_out import held_out
from benchmarks.layer_choice import Attempt, Choice, choose
from benchmarks.layer_stages import SEARCH_MU, facts, staged
from benchmarks.records import Record, make_record
from llm_pipeline import sources
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import Tokens
from llm_pipeline.evidence import measure
from llm_pipeline.layer import dense_weight
from solvers.door import REFINE_MU
from solvers.problem import LayerProblem
from solvers.refusal import Refusal
from solvers.sparsity import KeepNofM, KeepPerRow, Target
from solvers.swaps import most_of
from theory_checks.optimality_gap import bound_of, counts
from theory_checks.perspective import Bound

ASCENTS = 2  # of the diagonal of the perspective bound
Say = Callable[[int, int, str], None]
LAYER, REFUSED, BOUND, RUN = "layers", "layers-refused", "layers-bound", "layers-run"


@dataclass
class Bench:
    """What a run shares, and what it has done so far."""

    walk: BlockWalk
    choice: Choice
    swaps: int | str
    about: dict[str, Any]
    progress: Say
    seconds: Counter[str] = field(default_factory=Counter)
    tried: int = 0

    def say(self, what: str) -> None:
        """Where the run stands: attempts made, of all."""
        possible = sum(not attempt.refused for attempt in self.choice.attempts)
        self.progress(self.tried, self.choice.layers * possible, what)


def compare(
    *,
    model: str | None = None,
    calibration: str | None = None,
    text: str | None = None,
    methods: tuple[str, ...] = ("magnitude", "wanda", "maiht"),
    sparsities: tuple[str, ...] = ("50%",),
    swaps: int | str = 0,
    blocks: str | None = None,
    layers: str | None = None,
    seed: int = 0,
    progress: Say = lambda done, of, what: None,
) -> Iterator[Record]:
    """Measure layers as they stand in the dense model, records as they come.

    Parameters
    ----------
    calibration, text : ``FILE[:NxL]``, what the methods see and what they do not; see `held_out`
    methods : names, or specs such as ``maiht:iters=50,swaps=all``
    swaps : exchanges that a row may make after the refit, or ``all``; for methods whose spec does not say
    blocks, layers : which layers, see `choose`
    seed : of the calibration draw; the held-out windows are drawn with the next one

    Yields
    ------
    dict
        A ``layers-refused`` record for each method that cannot meet a pattern; for each layer a ``layers-bound`` record
        for each pattern, then a ``layers`` record for each pattern and method in turn, or ``layers-refused`` where the
        method refused that layer; at the end
        ``layers-run`` with the seconds by stage and the peak memory of the process.
    """
    begun = time.perf_counter()
    source = sources.model(model)
    choice = choose(source, methods, sparsities, blocks, layers)
    most = "all" if most_of(swaps) is None else most_of(swaps)
    drawn = sources.calibration(calibration, source, seed)
    other = held_out(text, calibration, drawn, source, seed)
    about = {"model": sources.display_name(model, source), **_texts(drawn, other, seed), "swaps": most, "seed": seed}
    for attempt in choice.attempts:
        if attempt.refused:
            yield _refused(about, attempt, None, attempt.refused)
    walk = BlockWalk(source, sources.device("auto"), dtype=sources.dtype("auto", source))
    bench = Bench(walk, choice, most, about, progress)
    hidden = [walk.embed(tokens.ids) for tokens in (drawn, other)]  # (n, l, d) each
    for i in range(max(choice.sites) + 1):
        bench.say(f"block {i}, inputs")
        hidden = yield from _block(bench, i, hidden)
    bench.say("all blocks")
    yield make_record(
        RUN,
        **about,
        layers=choice.layers,
        tried=bench.tried,
        device=str(walk.device),
        dtype=str(walk.dtype).removeprefix("torch."),
        seconds={**bench.seconds, "total": time.perf_counter() - begun},
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _block(bench: Bench, i: int, hidden: list[torch.Tensor]) -> Generator[Record, None, list[torch.Tensor]]:
    """Records of one dense block; returns its outputs. The Grams live as long as this call."""
    sites, begun = bench.choice.sites.get(i, ()), time.perf_counter()
    block = bench.walk.load(i)
    both = [measure(bench.walk, block, i, states, sites) for states in hidden]
    bench.seconds["inputs"] += time.perf_counter() - begun
    for place, site in enumerate(sites):
        for reader in site.readers:
            W0 = dense_weight(bench.walk.checkpoint, bench.walk.weight_name(i, reader))
            problem, held = (inputs[place].problem(W0) for inputs, _ in both)
            where = {"layer": bench.walk.weight_name(i, reader), "block": i, "site": site.name}
            yield from _layer(bench, {**where, "shape": list(W0.shape)}, problem, held)
    return [output for _, output in both]


def _layer(bench: Bench, where: dict[str, Any], problem: LayerProblem, held: LayerProblem) -> Iterator[Record]:
    for mu in (SEARCH_MU, REFINE_MU):
        _ = problem.normalised(mu).lipschitz  # kept by the Gram: no method pays for what all of them share
    bounds: dict[str, Bound | Refusal] = {}
    for target in {str(a.target): a.target for a in bench.choice.attempts if not a.refused}.values():
        bench.say(f"block {where['block']}, {where['site']}: bound {target}")
        yield from _bound(bench, where, target, problem.normalised(REFINE_MU), bounds)
    for attempt in bench.choice.attempts:
        if attempt.refused:
            continue
        bench.say(f"block {where['block']}, {where['site']}: {attempt.name} {attempt.target}")
        try:
            swaps = bench.swaps if attempt.swaps is None else attempt.swaps
            done = staged(attempt.method, problem, attempt.target.on(problem.shape), swaps)
        except Refusal as refusal:
            yield _refused(bench.about, attempt, where["layer"], str(refusal))
        else:
            told = facts(attempt.method, done, problem, held, bounds.get(str(attempt.target)))
            bench.seconds.update(told["seconds"])
            yield make_record(LAYER, **bench.about, **where, **_named(attempt), **told)
        bench.tried += 1


def _bound(
    bench: Bench, where: dict[str, Any], target: Target, refit: LayerProblem, bounds: dict[str, Bound | Refusal]
) -> Iterator[Record]:
    """What no weight of the pattern can fall below, into `bounds`; nothing where rows share a budget."""
    budget, begun = target.on(refit.shape), time.perf_counter()
    if not isinstance(budget, KeepPerRow | KeepNofM):
        return
    bounds[str(target)] = found = bound_of(refit, counts(budget, refit.W0), ascents=ASCENTS)
    spent = time.perf_counter() - begun
    bench.seconds["bound"] += spent
    total = float(found.proved.sum()) if isinstance(found, Bound) else -inf
    why = str(found) if isinstance(found, Refusal) else ""
    told = {"bound": total if isfinite(total) else None, "why": why, "seconds": {"bound": spent}}
    yield make_record(BOUND, **bench.about, **where, sparsity=str(target), mu=SEARCH_MU, refine_mu=REFINE_MU, **told)


def _named(attempt: Attempt) -> dict[str, Any]:
    return {"method": attempt.name, "sparsity": str(attempt.target), "options": attempt.method.options()}


def _refused(about: dict[str, Any], attempt: Attempt, layer: str | None, why: str) -> Record:
    return make_record(REFUSED, **about, **_named(attempt), layer=layer, why=why)


def _texts(drawn: Tokens, other: Tokens, seed: int) -> dict[str, Any]:
    told = {}
    for name, tokens, its_seed in (("calibration", drawn, seed), ("held_out", other, seed + 1)):
        n, length = tokens.ids.shape
        told[name] = f"{tokens.source}:{n}x{length}, seed {its_seed}"
        told[f"{name}_sha256"], told[f"{name}_protocol"] = tokens.sha256, tokens.protocol
    return {**told, "tokenizer_sha256": drawn.tokenizer_sha256}
