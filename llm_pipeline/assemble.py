"""From typed options to a plan with its model and texts, and back from a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import solvers
from llm_pipeline import sources
from llm_pipeline.calibration import UNITS, Tokens, document_tokens, evaluation_tokens, parse_calibration
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.choices import choose
from llm_pipeline.documents import Text
from llm_pipeline.evaluate import Perplexity, perplexity
from llm_pipeline.journal import versions
from llm_pipeline.plan import CalibrationSource, ModelSource, Plan
from llm_pipeline.prune import require_possible
from llm_pipeline.token_stream import load_tokenizer
from solvers.methods import Method, near
from solvers.refusal import Refusal


class Job(NamedTuple):
    """A plan and what it was made from."""

    plan: Plan
    source: Checkpoint
    tokens: Tokens
    text: Tokens | None


def job(
    model: str | None,
    *,
    calibration: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    text: str | None = None,
    length: int | None = None,
    protocol: str = "windows",
    **typed: Any,
) -> Job:
    """Check every option, read the model's headers and the texts; nothing is written.

    `typed` are the arguments of `choices.choose`: method, sparsity, settings, refine, swaps, allocate and so on.
    """
    place = sources.device(device)
    chosen = choose(**typed, device=place)
    source = sources.model(model)
    _require_possible(source, chosen)
    number = str(sources.dtype(dtype, source)).removeprefix("torch.")
    evaluated = evaluation_windows(sources.evaluation_text(text, source), source, length, protocol)
    if evaluated is None and length is not None:
        raise Refusal(f"--length {length} cuts the evaluation text, and none is given. Add --text FILE.")
    tokens = sources.calibration(calibration, source, seed)
    plan = Plan(
        model=ModelSource(sources.display_name(model, source), _location(model), source.sha256()),
        calibration=_calibration(calibration, tokens),
        seed=seed,
        device=place,
        dtype=number,
        versions=versions(),
        **chosen,
    )
    return Job(plan, source, tokens, evaluated)


def variant(job: Job, **typed: Any) -> Job:
    """The same model, texts and draw with other choices: the arguments of `choices.choose`, else their defaults."""
    chosen = choose(**typed, device=job.plan.device)
    _require_possible(job.source, chosen)
    return job._replace(plan=replace(job.plan, **chosen))


def redrawn(job: Job, calibration: str | None, seed: int) -> Job:
    """The same job on the calibration sequences of another seed."""
    tokens = sources.calibration(calibration, job.source, seed)
    plan = replace(job.plan, calibration=_calibration(calibration, tokens), seed=seed)
    return job._replace(plan=plan, tokens=tokens)


def _require_possible(source: Checkpoint, chosen: dict[str, Any]) -> None:
    name = chosen["method"].name
    require_possible(source, solvers.find(name), name, solvers.parse(chosen["sparsity"]))


def again(folder: Path) -> tuple[Plan, Checkpoint, Tokens]:
    """The plan of a run folder with its source and calibration; refused if either has changed since."""
    plan = Plan.read(folder)
    source = sources.model(plan.model.path)
    there, then = source.sha256(), plan.model.files
    changed = sorted(file for file in {**there, **then} if there.get(file) != then.get(file))
    if changed:
        raise Refusal(
            f"the source model {plan.model.path} has changed since the run: {', '.join(changed)}. Restore it, or "
            "prune again."
        )
    sources.device(plan.device)
    sources.dtype(plan.dtype, source)
    shape = f"{plan.calibration.sequences}x{plan.calibration.length}"
    tokens = sources.calibration(f"{plan.calibration.path}:{shape}", source, plan.seed)
    if tokens.sha256 != plan.calibration.sha256:
        raise Refusal(
            f"the calibration text {plan.calibration.source} has changed since the run. Restore it, or prune again."
        )
    if (tokens.tokenizer_sha256 or "") != plan.calibration.tokenizer_sha256:
        raise Refusal(f"the tokenizer of {plan.model.path} has changed since the run. Restore it, or prune again.")
    return plan, source, tokens


def evaluation(
    model: str | None,
    text: str | None,
    length: int | None,
    protocol: str,
    device: str,
    dtype: str,
    progress: Callable[[int, int], None],
) -> Perplexity:
    """Perplexity of a model on a text by a named protocol."""
    source = sources.model(model)
    windows = evaluation_windows(sources.evaluation_text(text, source), source, length, protocol)
    if windows is None:
        raise Refusal(
            "--text FILE is required to evaluate a model of your own; only the embedded model brings its text."
        )
    number = sources.dtype(dtype, source)
    return perplexity(source.path, windows, device=sources.device(device), dtype=number, progress=progress)


def evaluation_windows(
    text: Text | Path | None, source: Checkpoint, length: int | None, protocol: str = "windows"
) -> Tokens | None:
    """The windows or documents of a text, read and tokenised once for every model that is scored on them."""
    if protocol not in UNITS:
        raise Refusal(f"unknown protocol '{protocol}'.{near(protocol, UNITS)} Known: {', '.join(UNITS)}.")
    if text is None:
        return None
    longest = source.config.max_position_embeddings
    given_ids = isinstance(text, Path) and text.suffix == ".npy"
    if length is not None and not 2 <= length <= longest:
        raise Refusal(f"--length must lie between 2 and the model's {longest} positions; got {length}.")
    if given_ids and protocol != "windows":
        raise Refusal(f"token ids in a .npy file are windows already; --protocol {protocol} needs text. Give the text.")
    tokenizer = None if given_ids else load_tokenizer(source.path)
    window = length or (None if given_ids else min(sources.LENGTH, longest))
    if protocol == "documents":
        return document_tokens(text, tokenizer, length=window or longest, vocab_size=source.config.vocab_size)
    return evaluation_tokens(text, tokenizer, length=window, vocab_size=source.config.vocab_size)


def default_folder(plan: Plan) -> Path:
    """runs/MODEL-METHOD-SPARSITY."""
    words = (plan.model.name, plan.method.name, plan.sparsity.replace("/", "-").replace(":", "of").replace("%", ""))
    return Path("runs") / "-".join(words)


def method_of(plan: Plan) -> Method:
    """The method that a plan names."""
    return solvers.find(plan.method.name)


def _location(model: str | None) -> str:
    if model in (None, sources.EMBEDDED):
        return sources.EMBEDDED
    assert model is not None
    return str(Path(model).resolve()) if Path(model).exists() else model


def _calibration(name: str | None, tokens: Tokens) -> CalibrationSource:
    path = str(parse_calibration(name)[0]) if name else sources.EMBEDDED
    located = str(Path(path).resolve()) if Path(path).is_file() else path
    sequences, length = tokens.ids.shape
    return CalibrationSource(
        tokens.source, located, tokens.sha256, tokens.tokenizer_sha256 or "", sequences, length, tokens.protocol
    )
