"""``prune --dry-run``: from typed options and a configuration to a prediction, and the same for a run that starts."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from llm_pipeline import assemble, planner, rates, sources
from llm_pipeline.calibration import Tokens, parse_calibration
from llm_pipeline.checkpoint import SINGLE, Checkpoint
from llm_pipeline.choices import choose
from llm_pipeline.judging import court_of
from llm_pipeline.plan import CalibrationSource, ModelSource, Plan
from llm_pipeline.planner import Job, Model
from llm_pipeline.shapes import SHAPES, config_like
from solvers.refusal import Refusal

TERA, GIB = 1e12, 2**30
LARGE = 0.05  # share of the predicted seconds from which on a stage is a large one


def dry_run(
    model: str | None,
    *,
    calibration: str | None = None,
    text: str | None = None,
    length: int | None = None,
    protocol: str = "windows",
    device: str = "auto",
    dtype: str = "auto",
    as_if: str | None = None,
    **typed: Any,
) -> dict[str, Any]:
    """What the run that these options describe will take; nothing is written.

    Parameters
    ----------
    model : a model directory, its config.json, a hub name, a name of `shapes.SHAPES`; None for the embedded model
    as_if : a name of `rates.PUBLISHED`, whose published rates are used instead of measured ones
    **typed : the arguments of `choices.choose`
    """
    place = sources.device(device) if as_if is None else ("cpu" if as_if == "cpu" else "cuda")
    chosen = choose(**typed, device=place)
    config, folder = _configuration(model)
    stored = config.dtype or torch.float32
    if dtype != "auto" and dtype not in sources.DTYPES:
        raise Refusal(f"--dtype must be auto or one of {', '.join(sources.DTYPES)}; got '{dtype}'.")
    number = stored if dtype == "auto" else sources.DTYPES[dtype]
    sequences, window = _counts(calibration, config)
    name = model or sources.EMBEDDED
    plan = Plan(
        model=ModelSource(Path(name).name, name),
        calibration=CalibrationSource("", "", "", "", sequences, window, ""),
        device=place,
        **chosen,
    )
    evaluated = _evaluation(text, length, protocol, folder)
    sizes, job = Model.of(config, Path(name).name), _job(plan, number, stored, evaluated, as_if)
    speed = rates.published(as_if, number) if as_if else _measured(sizes, plan, number, folder)
    return planner.predict(sizes, job, speed)


def predicted(job: assemble.Job) -> dict[str, Any]:
    """What a run that is about to start will take, with rates measured now."""
    number, config = sources.DTYPES[job.plan.dtype], job.source.config
    sizes = Model.of(config, job.plan.model.name)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # texts were read and tokenised
    asked = replace(_job(job.plan, number, job.source.working_dtype, job.text), base=begun)
    return planner.predict(sizes, asked, _measured(sizes, job.plan, number, job.source.path))


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Stage, TFLOP and seconds as they are printed, the total last."""
    for stage, took in found["seconds"].items():
        if took:
            yield stage, f"{found['flop'][stage] / TERA:,.3g}", duration(took)
    yield "total", f"{sum(found['flop'].values()) / TERA:,.3g}", duration(sum(found["seconds"].values()))


def words(found: dict[str, Any]) -> str:
    """Machine, memory and disk in one sentence."""
    needed = found["memory"]
    gpu = f", GPU memory {needed['gpu_bytes'] / GIB:.1f} GiB" if needed["gpu_bytes"] else ""
    origin = "rates measured now" if found["measured"] else "rates published, not measured"
    where = "with CuPy on the GPU" if found["judged_on"] == "cuda" else "on the host"
    fits = "" if found["fits"] else "; more than the GPU has: fewer or shorter sequences, or --device cpu"
    return (
        f"{found['device']} ({origin}): memory {needed['host_bytes'] / GIB:.1f} GiB{gpu}{fits}; "
        f"disk {found['disk_bytes'] / 1e9:.1f} GB; certificates {where}; nothing was written"
    )


def duration(took: float) -> str:
    """Seconds, minutes or hours with two or three digits."""
    for size, unit in ((3600, "h"), (60, "min")):
        if took >= 2 * size:
            return f"{took / size:.1f} {unit}"
    return f"{took:.1f} s"


def _configuration(model: str | None) -> tuple[Any, Path | None]:
    """The configuration, and the model's folder where its weights are there too."""
    if model in (None, sources.EMBEDDED):
        source = sources.model(None)
        return source.config, source.path
    assert model is not None
    path = Path(model)
    if model in SHAPES and not path.exists():
        return config_like(model), None
    if path.suffix == ".bin" and path.is_file():
        source = sources.model(model)
        return source.config, source.path
    try:
        config = AutoConfig.from_pretrained(path.parent if path.name == "config.json" else model)
    except Exception as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise Refusal(
            f"--dry-run needs a configuration: a model directory or its config.json, a hub name, or one of "
            f"{', '.join(SHAPES)}; '{model}' gave none ({reason})."
        ) from error
    folder = path.parent if path.name == "config.json" else path
    return config, folder if (folder / SINGLE).is_file() or any(folder.glob("*.index.json")) else None


def _counts(calibration: str | None, config: Any) -> tuple[int, int]:
    longest = config.max_position_embeddings
    path, sequences, length = parse_calibration(calibration or sources.EMBEDDED)
    if sequences is None and path.suffix == ".npy" and path.is_file():
        sequences, length = np.load(path, mmap_mode="r").shape
    length = length or min(sources.LENGTH, longest)
    if length > longest:
        raise Refusal(f"the model has {longest} positions; sequences of {length} tokens do not fit.")
    return sequences or sources.SEQUENCES, length


def _evaluation(text: str | None, length: int | None, protocol: str, folder: Path | None) -> Tokens | None:
    if folder is None:
        if text not in (None, "none"):
            raise Refusal("--text needs the model's tokenizer, and there is only its configuration. Leave --text out.")
        return None
    source = Checkpoint.open(folder)
    return assemble.evaluation_windows(sources.evaluation_text(text, source), source, length, protocol)


def _job(plan: Plan, number: torch.dtype, stored: torch.dtype, text: Tokens | None, as_if: str | None = None) -> Job:
    """A machine that is not here is taken to have CuPy where it has a GPU."""
    there = plan.device != "cpu" if as_if else court_of(plan.device).name != "cpu"
    windows, window = text.ids.shape if text else (0, 0)
    return Job(
        recipe=planner.recipe_of(plan, there),
        sequences=plan.calibration.sequences,
        length=plan.calibration.length,
        itemsize=number.itemsize,
        stored=stored.itemsize,
        on_gpu=plan.device != "cpu",
        dense_beside=plan.error_correction == "block",
        dense_hidden=plan.inputs == "dense",
        allocate=plan.allocation.name != "uniform",
        windows=windows,
        window=window,
    )


def _measured(model: Model, plan: Plan, number: torch.dtype, folder: Path | None) -> rates.Rates:
    """Rates on layers of the model's typical size: the largest one decides what most of the time goes into."""
    m, n = max(model.layers, key=lambda shape: shape[0] * shape[1] ** 2)
    sample = next(iter(sorted(folder.glob("*.safetensors"))), None) if folder else None
    return rates.measured(plan.device, number, m, n, sample)
