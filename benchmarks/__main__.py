"""python -m benchmarks: list | run NAME. Writes records; the pages read them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

import llm_pipeline.waiting  # noqa: F401 - before NumPy and torch start their threads
from llm_pipeline.__main__ import exit_codes, progress_bar, screen
from llm_pipeline.choices import split_specs
from solvers.methods import near
from solvers.refusal import Refusal

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
BENCHMARKS = {
    "demo": "magnitude, wanda and maiht at 50% on the embedded model, into runs/demo",
    "commands": "the commands of the README with what they print",
    "theory": "claims, curves with bounds, recovery maps, planted defects; then: python -m reports build theory",
    "llm": "methods x sparsities x seeds on a model of yours: perplexity, layer error, seconds, certificates",
    "layers": "methods x sparsities layer by layer: error found, refined, swapped, on calibration and held-out text",
    "kernels": "fast twins against products, reference and sorting; rungs of precision (also of a --model's layers)",
    "gpu": "a CUDA device: copies and products, then selection, steps and a LLaMA block as shares of them (make gpu)",
}
# What only some benchmarks read, with the value that means nothing was typed.
LAYERS_ONLY: dict[str, Any] = {"blocks": None, "layers": None}
GPU_ONLY: dict[str, Any] = {"device": "cuda", "scale": 1, "minutes": 6.0}
MODELS_ONLY: dict[str, Any] = {
    "refine": "none",
    "length": None,
    "protocol": "windows",
    "seeds": None,
    "error_correction": "none",
    "inputs": "pruned",
    "allocate": "uniform",
}


@app.command(name="list")
def list_benchmarks() -> None:
    """Say what can be measured."""
    for name, what in BENCHMARKS.items():
        screen.print(f"{name:<10}{what}", soft_wrap=True)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="A benchmark of `python -m benchmarks list`.")],
    model: Annotated[str | None, typer.Option(help="Model directory, hub name or llama2.c .bin.")] = None,
    calibration: Annotated[str | None, typer.Option(help="FILE[:NxL].")] = None,
    text: Annotated[str | None, typer.Option(help="Text to evaluate on; layers: held-out FILE[:NxL].")] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated, from the expected worst to the best; NAME or NAME:key=value,key=value, "
            "for example wanda,maiht:refine=exact,swaps=all,fista:start=sparsegpt."
        ),
    ] = "magnitude,wanda,maiht",
    sparsities: Annotated[str, typer.Option(help="Comma-separated.")] = "50%",
    refine: Annotated[
        str, typer.Option(help="none, gradient:30 or exact; like the four below for methods that do not say their own.")
    ] = "none",
    swaps: Annotated[str, typer.Option(help="Exchanges that a row may make after an exact refit: 0, 20, all.")] = "0",
    error_correction: Annotated[str, typer.Option(help="none or block.")] = "none",
    inputs: Annotated[str, typer.Option(help="pruned or dense.")] = "pruned",
    allocate: Annotated[str, typer.Option(help="uniform or owl.")] = "uniform",
    length: Annotated[int | None, typer.Option(help="Window length of the evaluation.")] = None,
    protocol: Annotated[str, typer.Option(help="How the text is cut and scored: windows or documents.")] = "windows",
    blocks: Annotated[str | None, typer.Option(help="layers: a:b, the blocks a to b - 1.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="layers: sites and regular expressions, such as 'mlp input,q_proj'.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the calibration draw, or of the theory's examples.")] = 0,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds of several calibration draws, 0,1,2; every run once for each.")
    ] = None,
    device: Annotated[str, typer.Option(help="gpu: cuda, cuda:1, or cpu to try every line without one.")] = "cuda",
    scale: Annotated[int, typer.Option(help="gpu: every side divided by it, 64 for a try.", min=1)] = 1,
    minutes: Annotated[float, typer.Option(help="gpu: no measurement begins after them.", min=0)] = 6.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for runs and records.jsonl (runs/demo, otherwise runs/NAME); gpu: or FILE.jsonl."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a benchmark and append its records to OUT/records.jsonl.

    Example: python -m benchmarks run llm --model M --calibration train.txt:128x256 --text test.txt --sparsities 50%,60%
    """
    out = out or Path("runs") / (name if name in ("theory", "layers", "kernels", "gpu") else "demo")
    with exit_codes(interrupted="runs and records so far were kept"):
        if name not in BENCHMARKS:
            raise Refusal(f"unknown benchmark '{name}'.{near(name, BENCHMARKS)} Known: {', '.join(BENCHMARKS)}.")
        options = {"model": model, "calibration": calibration, "text": text, "swaps": swaps}
        chosen = {"methods": split_specs(methods), "sparsities": _words(sparsities)}
        layerwise = {"blocks": blocks, "layers": layers}
        stages = {"refine": refine, "error_correction": error_correction, "inputs": inputs, "allocate": allocate}
        modelwise = {"length": length, "protocol": protocol, "seeds": seeds, **stages}
        devicewise = {"device": device, "scale": scale, "minutes": minutes}
        _refuse_unread(name, {**layerwise, **modelwise, **devicewise})
        if name == "gpu" and _absent(device):
            return
        own = {**layerwise, "seed": seed} if name == "layers" else {**modelwise, "seeds": _seeds(seeds, seed)}
        own |= devicewise if name == "gpu" else {}
        records = _measure(name, out, **options, **chosen, **own)
    if as_json:
        print(json.dumps({"out": str(out), "records": records}, indent=1))
    else:
        _print(name, records, out)


def _refuse_unread(name: str, typed: dict[str, Any]) -> None:
    """An option that a benchmark does not read would be believed to have worked."""
    unread = MODELS_ONLY if name == "layers" else LAYERS_ONLY
    strange = [_flag(option) for option, untouched in unread.items() if typed[option] != untouched]
    if strange:
        hint = "It measures every stage, refine=exact among them" if name == "layers" else "They belong to layers"
        raise Refusal(f"the benchmark {name} does not read {', '.join(strange)}. {hint}; leave them out.")
    strange = [_flag(option) for option, untouched in GPU_ONLY.items() if typed[option] != untouched]
    if strange and name != "gpu":
        raise Refusal(f"the benchmark {name} does not read {', '.join(strange)}. They belong to gpu; leave them out.")


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _absent(device: str) -> bool:
    """Whether there is nothing to measure on; then it says so."""
    from benchmarks import gpu

    if not gpu.present(device):
        screen.print(gpu.NONE)
    return not gpu.present(device)


def _words(typed: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in typed.split(",")))


def _seeds(typed: str | None, seed: int) -> tuple[int, ...]:
    words = _words(typed) if typed is not None else (str(seed),)
    if not all(word.isdecimal() for word in words):
        raise Refusal(f"--seeds takes whole numbers with commas between them, 0,1,2; got '{typed or seed}'.")
    return tuple(map(int, words))


def _measure(name: str, out: Path, **options: Any) -> list[dict[str, Any]]:
    from benchmarks.records import append

    records = []
    with progress_bar() as progress:
        for record in _records(name, out, progress, options):
            append(_file(out), record)
            records.append(record)
    return records


def _file(out: Path) -> Path:
    return out if out.suffix == ".jsonl" else out / "records.jsonl"


def _records(
    name: str, out: Path, progress: Callable[[int, int, str], None], options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if name == "commands":
        from benchmarks.commands import run_commands

        return run_commands(progress)
    if name == "theory":
        from benchmarks.theory import measure

        return measure(options["seeds"][0], progress=progress)
    if name == "layers":
        from benchmarks import layers

        return layers.compare(progress=progress, **options)
    if name == "kernels":
        from benchmarks.kernels import kernels
        from benchmarks.ladder import ladder

        seed, real = options["seeds"][0], {key: options[key] for key in ("model", "calibration")}
        return chain(kernels(seed, progress=progress), ladder(seed, progress=progress, **real))
    if name == "gpu":
        from benchmarks.gpu import measure as on_device

        return on_device(options["seeds"][0], progress=progress, **{key: options[key] for key in GPU_ONLY})
    from benchmarks.llm import compare

    return compare(out, progress=progress, fresh=name == "demo", **options)


def _print(name: str, records: list[dict[str, Any]], out: Path) -> None:
    if name == "commands":
        for record in records:
            screen.print(f"{record['seconds']:6.1f} s, exit {record['exit']}: {record['line']}", highlight=False)
    elif name == "theory":
        screen.print(_counts(records), highlight=False)
    elif name == "layers":
        from benchmarks.layer_summary import told

        for part in told(records):
            screen.print(part, highlight=False, soft_wrap=True)
    elif name == "gpu":
        from benchmarks.gpu import told as lines

        for line in lines(records):
            screen.print(line, highlight=False, soft_wrap=True)
    elif name == "kernels":
        from benchmarks.ladder import table

        screen.print(_ratios(records))
        screen.print(table(records))
    else:
        screen.print(_table(records))
    screen.print(f"records in {_file(out)}", highlight=False, soft_wrap=True)


def _counts(records: list[dict[str, Any]]) -> str:
    outcomes = Counter(record["outcome"] for record in records if record["benchmark"] == "claim")
    planted = [record for record in records if record["benchmark"] == "mutation"]
    survivors = sum(not any(record["killed_after"].values()) for record in planted)
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    return f"{outcomes.total()} claims: {told}; {len(planted)} planted defects, {survivors} survive"


def _ratios(records: list[dict[str, Any]]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title="ratios to the roofline, medians of interleaved rounds", title_justify="left"
    )
    for column in ("layer", "in", "this", "against", "seconds", "seconds", "ratio", "of minima"):
        table.add_column(column, justify="left" if column in ("layer", "in", "this", "against") else "right")
    for r in (record for record in records if record["benchmark"] == "kernel"):
        numbers = (f"{number:.3f}" for number in (*r["seconds"], r["ratio"], r["ratio_min"]))
        table.add_row(" x ".join(map(str, r["shape"])), r["library"], r["what"], r["against"], *numbers)
    return table


def _table(records: list[dict[str, Any]]) -> Table:
    found = [record for record in records if record["benchmark"] == "perplexity"]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{found[0]['model']}: {found[0]['protocol']} on {found[0]['text']}",
        title_justify="left",
    )
    for column in ("method", "sparsity", "seed", "perplexity", "layer error", "solve, s", "hold, fail"):
        table.add_column(
            column, justify="left" if column == "method" else "right", no_wrap=column != "method", overflow="fold"
        )
    for record in found:
        kept = record.get("certificates", {})
        table.add_row(
            record.get("spec", record["method"]),
            record["sparsity"],
            str(record.get("seed", "")),
            f"{record['perplexity']:.3f}",
            f"{record['relative_error']:.4g}" if kept else "0",
            f"{record['seconds_solve']:.1f}" if kept else "",
            f"{kept['holds']}, {kept['fails']}" if kept else "",
        )
    return table


if __name__ == "__main__":
    sys.exit(app())
