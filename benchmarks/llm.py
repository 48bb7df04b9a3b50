"""End to end: methods and sparsities on one model, the same calibration, the same windows, a record for each run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from benchmarks.records import Record, make_record
from llm_pipeline import assemble
from llm_pipeline.evaluate import Perplexity, paired_difference, perplexity
from llm_pipeline.journal import score
from llm_pipeline.prune import prune
from llm_pipeline.sources import DTYPES
from solvers.refusal import Refusal

Say = Callable[[int, int, str], None]


def compare(
    out: Path,
    *,
    model: str | None = None,
    calibration: str | None = None,
    text: str | None = None,
    methods: tuple[str, ...] = ("magnitude", "wanda", "maiht"),
    sparsities: tuple[str, ...] = ("50%",),
    refine: str = "none",
    length: int | None = None,
    protocol: str = "windows",
    seed: int = 0,
    fresh: bool = False,
    progress: Say = lambda done, of, what: None,
) -> Iterator[Record]:
    """Prune, evaluate and compare; a run folder each below `out`, records as they come.

    Yields
    ------
    dict
        ``perplexity`` records, the dense model first, then per sparsity a record for each method and a
        ``comparison`` record (paired bootstrap over windows) for each two methods that follow each other.
    """
    shared = {
        "model": model,
        "calibration": calibration,
        "text": text,
        "length": length,
        "protocol": protocol,
        "seed": seed,
    }
    first = assemble.job(method=methods[0], sparsity=sparsities[0], refine=refine, **shared)
    jobs = {(s, m): assemble.variant(first, m, s) for s, m in product(sparsities, methods)}
    if first.text is None:
        raise Refusal("a comparison needs --text FILE to evaluate on; only the embedded model brings its text.")
    if fresh:
        forget(out, methods, sparsities)
    _require_room(out, methods, sparsities)
    options = {"device": first.plan.device, "dtype": DTYPES[first.plan.dtype]}
    dense = perplexity(first.source.path, first.text, progress=lambda d, n: progress(d, n, "dense"), **options)
    yield make_record("perplexity", **_facts(first, "dense", "0%", dense))
    for sparsity in sparsities:
        scores: dict[str, Perplexity] = {}
        for method in methods:
            job, name = jobs[sparsity, method], f"{method} {sparsity}"
            done = prune(
                job.plan,
                job.source,
                job.tokens,
                run_folder(out, method, sparsity),
                text=job.text,
                dense=dense,
                progress=lambda d, n, what, name=name: progress(d, n, f"{name}: {what}"),
            )
            assert done.pruned is not None
            scores[method] = done.pruned
            yield make_record("perplexity", **_facts(job, method, sparsity, done.pruned), **_costs(done.summary))
        yield from _comparisons(first.plan.model.name, sparsity, scores)


def run_folder(out: Path, method: str, sparsity: str) -> Path:
    """Where a run of the comparison lies: OUT/maiht-50, OUT/wanda-2of4."""
    return out / f"{method}-{sparsity.replace('%', '').replace(':', 'of').replace('/', '-')}"


def _require_room(out: Path, methods: tuple[str, ...], sparsities: tuple[str, ...]) -> None:
    folders = (run_folder(out, method, sparsity) for sparsity, method in product(sparsities, methods))
    taken = [str(folder) for folder in folders if folder.exists()]
    if taken:
        raise Refusal(f"a comparison needs new folders; {', '.join(taken)} exist already. Choose another --out.")


def forget(out: Path, methods: tuple[str, ...], sparsities: tuple[str, ...]) -> None:
    """Remove what an earlier run of the same comparison left in `out`, and nothing else."""
    (out / "records.jsonl").unlink(missing_ok=True)
    for method, sparsity in product(methods, sparsities):
        folder = run_folder(out, method, sparsity)
        if (folder / "plan.toml").is_file():
            shutil.rmtree(folder)


def _facts(job: assemble.Job, method: str, sparsity: str, found: Perplexity) -> dict[str, Any]:
    kind = ("protocol", "text", "text_sha256", "tokenizer_sha256", "windows", "tokens")
    drawn = job.plan.calibration
    return {
        "model": job.plan.model.name,
        "method": method,
        "sparsity": sparsity,
        "refine": job.plan.refine if method != "dense" else "none",
        **{key: getattr(found, key) for key in kind},
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


def _comparisons(model: str, sparsity: str, scores: dict[str, Perplexity]) -> Iterator[Record]:
    """Each method against the one before it in the list: mean nats per token, paired by window."""
    names = list(scores)
    for worse, better in pairwise(names):
        difference = paired_difference(scores[better], scores[worse])
        found = {
            "better": better,
            "than": worse,
            "nll_difference": difference.nll,
            "difference_interval": difference.interval,
        }
        yield make_record("comparison", model=model, sparsity=sparsity, **found)
