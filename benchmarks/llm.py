"""End to end: methods, sparsities and calibration seeds on one model, the same windows, a record for each run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.records import Record, make_record
from benchmarks.seeds import student, verdict
from llm_pipeline import assemble
from llm_pipeline.choices import read_spec, spec
from llm_pipeline.evaluate import Perplexity, mean_difference, paired_difference, perplexity
from llm_pipeline.journal import score
from llm_pipeline.output_folder import partial_of
from llm_pipeline.prune import prune
from llm_pipeline.sources import DTYPES
from solvers.refusal import Refusal

Say = Callable[[int, int, str], None]
PROTOCOL = ("protocol", "text", "text_sha256", "tokenizer_sha256", "windows", "tokens")


class Place(NamedTuple):
    """One run of a comparison: its method as a spec, its sparsity, its calibration seed."""

    spec: str
    sparsity: str
    seed: int


def compare(
    out: Path,
    *,
    model: str | None = None,
    calibration: str | None = None,
    text: str | None = None,
    methods: tuple[str, ...] = ("magnitude", "wanda", "maiht"),
    sparsities: tuple[str, ...] = ("50%",),
    seeds: tuple[int, ...] = (0,),
    length: int | None = None,
    protocol: str = "windows",
    fresh: bool = False,
    progress: Say = lambda done, of, what: None,
    **stages: Any,
) -> Iterator[Record]:
    """Prune, evaluate and compare; a run folder each below `out`, records as they come.

    Parameters
    ----------
    methods : specs, such as ``wanda`` or ``maiht:refine=exact,swaps=all``
    seeds : of the calibration draw; every run is made once for each
    **stages : options of every run whose spec does not say otherwise: refine, swaps, error_correction, inputs, allocate

    Yields
    ------
    dict
        ``perplexity`` records, the dense model first, then per sparsity a record for each method and seed and a
        ``comparison`` record for each two methods: paired bootstrap over windows, and the spread over seeds.
    """
    typed = [{**stages, **read_spec(text)} for text in methods]
    shared = {"model": model, "calibration": calibration, "text": text, "length": length, "protocol": protocol}
    first = assemble.job(sparsity=sparsities[0], seed=seeds[0], **typed[0], **shared)
    draws = {seed: assemble.redrawn(first, calibration, seed) if seed != seeds[0] else first for seed in seeds}
    jobs: dict[Place, assemble.Job] = {}
    for sparsity, chosen, seed in product(sparsities, typed, seeds):
        job = assemble.variant(draws[seed], sparsity=sparsity, **chosen)
        jobs[Place(spec(job.plan), sparsity, seed)] = job
    if first.text is None:
        raise Refusal("a comparison needs --text FILE to evaluate on; only the embedded model brings its text.")
    if fresh:
        forget(out, *_axes(jobs))
    _require_room(out, jobs)
    options = {"device": first.plan.device, "dtype": DTYPES[first.plan.dtype]}
    dense = perplexity(first.source.path, first.text, progress=lambda d, n: progress(d, n, "dense"), **options)
    yield make_record("perplexity", **_facts(first, "0%", dense, method="dense", refine="none"))
    for sparsity in sparsities:
        scores: dict[str, dict[int, Perplexity]] = {}
        for place, job in jobs.items():
            if place.sparsity != sparsity:
                continue
            name = f"{place.spec} {sparsity}, seed {place.seed}"
            done = prune(
                job.plan,
                job.source,
                job.tokens,
                run_folder(out, *place),
                text=job.text,
                dense=dense,
                progress=lambda d, n, what, name=name: progress(d, n, f"{name}: {what}"),
            )
            assert done.pruned is not None
            scores.setdefault(place.spec, {})[place.seed] = done.pruned
            chosen = {"method": job.plan.method.name, "refine": job.plan.refine, "spec": place.spec, "seed": place.seed}
            yield make_record("perplexity", **_facts(job, sparsity, done.pruned, **chosen), **_costs(done.summary))
        yield from _comparisons(first.plan.model.name, sparsity, scores)


def run_folder(out: Path, method: str, sparsity: str, seed: int = 0) -> Path:
    """Where a run of the comparison lies: OUT/maiht-50, OUT/wanda-2of4, OUT/maiht-swaps-all-50-seed1."""
    share = sparsity.replace("%", "").replace(":", "of").replace("/", "-")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", method)
    return out / (f"{name}-{share}" + f"-seed{seed}" * (seed != 0))


def _axes(jobs: dict[Place, assemble.Job]) -> Iterator[tuple[Any, ...]]:
    """The different specs, sparsities and seeds of the jobs."""
    return (tuple(dict.fromkeys(column)) for column in zip(*jobs, strict=True))


def _require_room(out: Path, jobs: dict[Place, assemble.Job]) -> None:
    folders = [folder for place in jobs for folder in (run_folder(out, *place), partial_of(run_folder(out, *place)))]
    taken = [str(folder) for folder in folders if folder.exists()]
    if taken:
        raise Refusal(f"a comparison needs new folders; {', '.join(taken)} exist already. Choose another --out.")


def forget(out: Path, methods: Sequence[str], sparsities: Sequence[str], seeds: Sequence[int] = (0,)) -> None:
    """Remove what an earlier run of the same comparison left in `out`, and nothing else."""
    (out / "records.jsonl").unlink(missing_ok=True)
    for place in product(methods, sparsities, seeds):
        for folder in (run_folder(out, *place), partial_of(run_folder(out, *place))):
            if (folder / "plan.toml").is_file():
                shutil.rmtree(folder)


def _facts(job: assemble.Job, sparsity: str, found: Perplexity, **chosen: Any) -> dict[str, Any]:
    drawn = job.plan.calibration
    return {
        "model": job.plan.model.name,
        "sparsity": sparsity,
        **chosen,
        **{key: getattr(found, key) for key in PROTOCOL},
        **score(found),
        "calibration": f"{drawn.source}:{drawn.sequences}x{drawn.length}, seed {job.plan.seed}",
    }


def _costs(summary: dict[str, Any]) -> dict[str, Any]:
    seconds = summary["seconds"]
    return {
        "relative_error": summary["relative_error"],
        "sparsity_measured": summary["sparsity_measured"],
        "seconds_solve": seconds["solve"],
        "seconds_prune": sum(seconds.values()) - seconds["evaluate"],
        "certificates": summary["certificates"],
        "peak_memory_bytes": summary["peak_memory_bytes"],
    }


def _comparisons(model: str, sparsity: str, scores: dict[str, dict[int, Perplexity]]) -> Iterator[Record]:
    """Each method against each one before it in the list: mean nats per token, paired by window and by seed."""
    for than, method in combinations(scores, 2):
        pairs = [(scores[method][seed], scores[than][seed]) for seed in scores[method]]
        difference, spread = mean_difference(pairs), student([paired_difference(*pair).nll for pair in pairs])
        found = {
            "better": method,
            "than": than,
            "seeds": list(scores[method]),
            "nll_difference": difference.nll,
            "difference_interval": difference.interval,
            "seed_interval": spread,
            "verdict": verdict(difference.interval, spread),
            **{key: getattr(pairs[0][0], key) for key in PROTOCOL},
        }
        yield make_record("comparison", model=model, sparsity=sparsity, **found)
