"""python -m llm_pipeline: inspect, prune, resume, eval, verify, synth."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

import llm_pipeline.waiting  # noqa: F401 - before NumPy and torch start their threads
from llm_pipeline.ending import terminable
from solvers.allocate import LAMBDA, M
from solvers.door import REFINE_MU
from solvers.refusal import Refusal

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
screen, log = (Console(stderr=stderr, markup=False, emoji=False, highlight=False) for stderr in (False, True))
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; progress goes to stderr.")]
Model = Annotated[str | None, typer.Argument(help="Model directory, hub name or llama2.c .bin (default: embedded).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1; where the forward passes run.")]
Hidden = Annotated[
    str, typer.Option(help="Hidden states: gpu, memory, disk, or auto, the fastest that has room; no result changes.")
]
Engine = Annotated[
    str, typer.Option(help="in-process: block after block; ray: blocks beside each other, needs --inputs dense.")
]
Address = Annotated[
    str | None, typer.Option(help="With --engine ray, a running cluster: auto or HOST:PORT (default: this machine).")
]
Precision = Annotated[
    str, typer.Option(help="Of products with the Gram: auto, fp64, fp32, bf16x3, tf32, bf16; certificates are float64.")
]
Dtype = Annotated[str, typer.Option(help="auto (the checkpoint's), float32, bfloat16, float16, float64.")]


@contextmanager
def exit_codes(interrupted: str) -> Iterator[None]:
    """Refusals leave with exit code 2 and one message, interruptions (Ctrl-C, SIGTERM) with 3 and what was kept."""
    try:
        with terminable():
            yield
    except (Refusal, OSError) as refusal:
        log.print(Text.assemble(("error:", "bold red"), f" {refusal}"), soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt as stop:
        log.print(f"interrupted; {str(stop) or f'{interrupted}.'}", soft_wrap=True)
        raise typer.Exit(3) from None


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A sub-command named after the function, with the exit codes above."""

    @wraps(function)
    def guarded(*args: Any, **options: Any) -> None:
        with exit_codes(interrupted="nothing was kept"):
            function(*args, **options)

    return app.command(name=function.__name__.removeprefix("run_"))(guarded)


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr with the time left; silent where stderr is no terminal."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, of, what: bar.update(task, completed=done, total=of, description=what)


def parse_settings(settings: list[str]) -> dict[str, str]:
    """``--set key=value`` pairs."""
    for setting in settings:
        if "=" not in setting:
            raise Refusal(f"--set takes key=value, for example --set iters=100; got '{setting}'.")
    return {key.strip(): value.strip() for key, value in (setting.split("=", 1) for setting in settings)}


@command
def inspect(model: Model = None, as_json: Json = False) -> None:
    """Show blocks, sites (who reads which input), layers and parameters of a model.

    Example: python -m llm_pipeline inspect models/llama-7b
    """
    from llm_pipeline import sources
    from llm_pipeline.overview import overview

    facts = overview(sources.model(model), sources.display_name(model, sources.model(model)))
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    table = Table("site", "layer", "outputs x inputs", title=f"one of {facts['blocks']} blocks", title_justify="left")
    for site in facts["sites"]:
        for layer in site["layers"]:
            table.add_row(site["name"], layer["name"], " x ".join(map(str, layer["shape"])))
    screen.print(
        f"{facts['name']}: {facts['model_type']}, {facts['parameters']:,} parameters in {facts['dtype']}, "
        f"{facts['prunable']:,} ({facts['prunable'] / facts['parameters']:.1%}) in prunable layers",
        soft_wrap=True,
    )
    screen.print(table)


@command
def run_prune(
    model: Model = None,
    method: Annotated[str, typer.Option(help="A name of solvers.METHODS, or of an installed plug-in.")] = "maiht",
    sparsity: Annotated[str, typer.Option(help="50% per output row, 50%/layer, 2:4, 4:8.")] = "50%",
    calibration: Annotated[str | None, typer.Option(help="FILE[:NxL], .txt .jsonl .npy or hf:DATASET.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the pruned model (runs/MODEL-METHOD-SPARSITY).")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Evaluate perplexity on this text before and after; none to skip.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Window length of the evaluation.")] = None,
    protocol: Annotated[str, typer.Option(help="How the text is cut and scored: windows or documents.")] = "windows",
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, a hyper-parameter or mu.")] = None,
    refine: Annotated[str, typer.Option(help="none, gradient:30 or exact, on the support that was found.")] = "none",
    swaps: Annotated[str, typer.Option(help="Exchanges that a row may make after an exact refit: 0, 20, all.")] = "0",
    refine_mu: Annotated[
        float, typer.Option(help="Ridge of refinement and swaps; that of the search is mu.")
    ] = REFINE_MU,
    error_correction: Annotated[
        str, typer.Option(help="block: later sites of a block make good for the earlier ones; or none.")
    ] = "none",
    inputs: Annotated[str, typer.Option(help="Blocks receive what pruned or dense predecessors put out.")] = "pruned",
    allocate: Annotated[
        str, typer.Option(help="uniform, or owl: blocks with more outliers keep more, at the same total.")
    ] = "uniform",
    owl_lambda: Annotated[
        float, typer.Option(help="Under owl the shares of two blocks differ by twice this at most.")
    ] = LAMBDA,
    owl_m: Annotated[float, typer.Option(help="Under owl an outlier exceeds the mean score this many times.")] = M,
    solver: Annotated[
        str, typer.Option(help="fast: all that has a fast twin by it, on the device; reference: NumPy in float64.")
    ] = "fast",
    precision: Precision = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the calibration draw.")] = 0,
    hidden: Hidden = "auto",
    engine: Engine = "in-process",
    address: Address = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Predict time, memory and disk; nothing is written.")] = False,
    as_if: Annotated[
        str | None, typer.Option(help="With --dry-run, published rates of h100, a100, a100-40gb, 4090 or cpu.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prune a model and write a Hugging Face directory with a certificate for every layer.

    Exit code 1 if a certificate fails (the model is written all the same), 2 for bad input (nothing is written) or
    where disk or memory do not suffice (finished blocks are kept), 3 if interrupted (all work is kept for resume).

    Example: python -m llm_pipeline prune models/llama-7b --calibration c4.jsonl:128x2048 --sparsity 50%
    """
    from llm_pipeline import assemble, engines
    from llm_pipeline.dry_run import predicted
    from llm_pipeline.prune import prune

    typed: dict[str, Any] = {
        "method": method,
        "sparsity": sparsity,
        "calibration": calibration,
        "settings": parse_settings(settings or []),
        "refine": refine,
        "swaps": swaps,
        "refine_mu": refine_mu,
        "error_correction": error_correction,
        "inputs": inputs,
        "allocate": allocate,
        "owl_lambda": owl_lambda,
        "owl_m": owl_m,
        "solver": solver,
        "precision": precision,
        "device": device,
        "dtype": dtype,
        "text": text,
        "length": length,
        "protocol": protocol,
    }
    chosen = engines.named(engine, address, inputs)
    if dry or as_if:
        engines.require_foreseen(engine)
        _print_prediction(model, typed, as_if, as_json)
        return
    with progress_bar() as progress:
        job = assemble.job(model, seed=seed, **typed)
        folder, foreseen = out or assemble.default_folder(job.plan), predicted(job)
        after = {"text": job.text, "hidden": hidden, "predicted": foreseen, "engine": chosen}
        summary = prune(job.plan, job.source, job.tokens, folder, progress=progress, **after).summary
    _tell(summary, folder, as_json)


@command
def run_resume(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a run that was killed or interrupted.")],
    hidden: Annotated[str | None, typer.Option(help="Move the hidden states: auto, gpu, memory or disk.")] = None,
    engine: Engine = "in-process",
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Go on with an unfinished run at its first unfinished block; the weights come out as if it had not stopped.

    Exit codes as for prune. Refused if model, calibration text, options, code or machine have changed. Either engine
    goes on with what the other began.

    Example: python -m llm_pipeline resume runs/maiht50
    """
    from llm_pipeline import resume

    out = resume.named(folder)
    with progress_bar() as progress:
        summary = resume.resume(out, hidden=hidden, engine=engine, address=address, progress=progress).summary
    _tell(summary, out, as_json)


def _tell(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    """Print what came of a run, and leave with its exit code."""
    if as_json:
        print(json.dumps({"out": str(folder), **summary}, indent=1))
    else:
        _print_summary(summary, folder)
    raise typer.Exit(1 if summary["certificates"]["fails"] else 0)


def _print_prediction(model: str | None, typed: dict[str, Any], as_if: str | None, as_json: bool) -> None:
    from llm_pipeline import dry_run

    found = dry_run.dry_run(model, as_if=as_if, **typed)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table("stage", Column("TFLOP", justify="right"), Column("time", justify="right"))
    for line in dry_run.lines(found):
        table.add_row(*line)
    screen.print(table)
    screen.print(dry_run.words(found), soft_wrap=True)


def _print_summary(summary: dict[str, Any], folder: Path) -> None:
    from llm_pipeline.hidden import WHERE

    facts, seconds = summary["perplexity"], sum(summary["seconds"].values())
    screen.print(
        f"{summary['method']} at {summary['sparsity_asked']}: {summary['sparsity_measured']:.3%} zeros in "
        f"{summary['layers']} layers, mean relative error {summary['relative_error']:.4g}, {seconds:.0f} s"
        f"{_by(summary)}, hidden states {WHERE[summary['hidden_states']]}",
        soft_wrap=True,
    )
    for step in summary.get("stepped_down", ()):
        screen.print(step, soft_wrap=True)
    if summary["stages"]:
        stages = ", ".join(f"{stage} {error:.4g}" for stage, error in summary["stages"].items())
        screen.print(f"mean relative error by stage: {stages}; {summary['swaps']} swaps", soft_wrap=True)
    if summary["blocks"]:
        shares = ", ".join(f"{block['measured']:.1%}" for block in summary["blocks"])
        screen.print(f"sparsity by block: {shares}", soft_wrap=True)
    if facts:
        screen.print(
            f"perplexity ({facts['protocol']}, {facts['text']}): dense {facts['dense']['perplexity']:.3f}, "
            f"pruned {facts['pruned']['perplexity']:.3f}",
            soft_wrap=True,
        )
    screen.print(
        "certificates: " + ", ".join(f"{n} {outcome}" for outcome, n in summary["certificates"].items()),
        soft_wrap=True,
    )
    for failure in summary["failures"][:10]:
        screen.print(Text.assemble(("fails", "bold red"), f" {failure}"), soft_wrap=True)
    screen.print(f"written to {folder}; the page: python -m reports build {shlex.quote(str(folder))}", soft_wrap=True)


def _by(summary: dict[str, Any]) -> str:
    """Whose seconds they are, where blocks were pruned beside each other."""
    engine = summary["engine"]
    return f" of work, {engine['seconds']:.0f} s by {engine['workers']} workers" if engine["name"] == "ray" else ""


@command
def run_eval(
    model: Model = None,
    text: Annotated[str | None, typer.Option(help="Text: .txt, .jsonl, .npy or hf:DATASET.")] = None,
    length: Annotated[int | None, typer.Option(help="Window length in tokens (2048, or what the model takes).")] = None,
    protocol: Annotated[str, typer.Option(help="How the text is cut and scored: windows or documents.")] = "windows",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Measure perplexity by a named protocol: disjoint windows or documents, each scored from its second token.

    Example: python -m llm_pipeline eval runs/maiht50 --text wiki.test.raw --length 2048
    """
    from llm_pipeline import assemble
    from llm_pipeline.journal import score

    with progress_bar() as progress:
        found = assemble.evaluation(
            model, text, length, protocol, device, dtype, lambda d, n: progress(d, n, "windows")
        )
    facts = {k: getattr(found, k) for k in ("protocol", "text", "text_sha256", "tokenizer_sha256", "windows", "tokens")}
    if as_json:
        print(json.dumps({"model": model or "embedded", **facts, **score(found)}, indent=1))
    else:
        low, high = found.interval or (float("nan"), float("nan"))
        screen.print(
            f"perplexity {found.perplexity:.4f} (95 % over windows: {low:.4f} to {high:.4f}), {found.tokens} tokens of "
            f"{found.text}, protocol {found.protocol}",
            soft_wrap=True,
        )


@command
def run_verify(
    folder: Annotated[Path, typer.Argument(help="A folder written by prune.")],
    sample: Annotated[
        str | None, typer.Option(help="Evaluate this share of the layers again, 10%; digests, patterns of all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    as_json: Json = False,
) -> None:
    """Check a finished run again from its source model and calibration text, trusting nothing it recorded.

    Exit code 1 if anything differs, with the file or layer and what differs; 2 where there is nothing to judge.

    Example: python -m llm_pipeline verify runs/maiht50 --sample 10%
    """
    from llm_pipeline import assemble
    from llm_pipeline.verify import Sample, verify

    drawn = Sample.parse(sample, seed)
    with progress_bar() as progress:
        plan, source, tokens = assemble.again(folder)
        report = verify(folder, plan, source, tokens, sample=drawn, progress=progress)
    if as_json:
        print(json.dumps({"folder": str(folder), **report.document()}, indent=1))
    else:
        for finding in report.failed:
            screen.print(Text.assemble(("fails", "bold red"), f" {finding}"), soft_wrap=True)
        for sentence in report.sentences():
            screen.print(sentence, soft_wrap=True)
    raise typer.Exit(1 if report.failed else 0)


@command
def run_synth(
    like: Annotated[str, typer.Option(help="A known shape: llama-7b, llama-3-8b, opt-125m, tiny, ...")],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    blocks: Annotated[str | None, typer.Option(help="a:b, write only blocks a to b - 1.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of --tokens.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto (as published), float32, bfloat16, float16.")] = "auto",
    shard_size: Annotated[str, typer.Option(help="Largest weight file, for example 500MB.")] = "2GB",
    tokens: Annotated[str | None, typer.Option(help="NxL: also write calibration.npy, N x L token ids.")] = None,
) -> None:
    """Write a model of real shape from a seed, to try time, memory and certificates without the real weights.

    Example: python -m llm_pipeline synth --like llama-7b --blocks 0:1 --tokens 8x512 --out block
    """
    from llm_pipeline import synth

    facts = synth.synthesise(like, out, blocks=blocks, seed=seed, dtype=dtype, shard_size=shard_size, tokens=tokens)
    screen.print(facts, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(app())
