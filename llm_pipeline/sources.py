"""From what a user types to a model, its calibration sequences and an evaluation text; typing nothing is allowed."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from llm_pipeline import bundled, plan
from llm_pipeline.bundled import text as embedded
from llm_pipeline.calibration import Tokens, calibration_tokens, parse_calibration
from llm_pipeline.checkpoint import Checkpoint, file_sha256
from llm_pipeline.documents import Text
from llm_pipeline.families import family_of
from llm_pipeline.llama2c import import_llama2c
from llm_pipeline.token_stream import load_tokenizer
from solvers.refusal import Refusal

EMBEDDED = "embedded"
SEQUENCES, LENGTH = 128, 2048


def model(name: str | None) -> Checkpoint:
    """The checkpoint behind MODEL: the embedded one, a directory, a hub name, or a llama2.c file (imported)."""
    if name in (None, EMBEDDED):
        return Checkpoint.open(bundled.MODEL)
    assert name is not None
    found = Checkpoint.open(_imported(Path(name)) if Path(name).suffix == ".bin" else name)
    family_of(found.config)
    return found


def _imported(path: Path) -> Path:
    """A llama2.c model as a Hugging Face directory in the user's cache, named by its content."""
    if not path.is_file():
        raise Refusal(f"MODEL must be a directory, a hub name or a llama2.c .bin file; there is no file {path}.")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "certified-pruning"
    folder = cache / f"{path.stem}-{file_sha256(path)[:12]}"
    return folder if (folder / "config.json").is_file() else import_llama2c(path, folder)


def display_name(name: str | None, checkpoint: Checkpoint) -> str:
    """What a model is called on pages: never a path."""
    if name in (None, EMBEDDED):
        return EMBEDDED
    assert name is not None
    return Path(name).resolve().name.removesuffix(".bin")


def calibration(name: str | None, checkpoint: Checkpoint, seed: int) -> Tokens:
    """The calibration sequences: ``FILE[:NxL]``, or the training part of the embedded text for the embedded model."""
    if name is None and checkpoint.path != bundled.MODEL:
        raise Refusal(
            "--calibration FILE[:NxL] is required for a model of your own; only the embedded model brings its text. "
            "Use text the model was trained on, for example c4.jsonl:128x2048."
        )
    path, sequences, length = parse_calibration(name or EMBEDDED)
    if seed < 0:
        raise Refusal(f"--seed must be a whole number of at least 0; got {seed}.")
    source = Text.of(embedded.training_text(), EMBEDDED) if str(path) == EMBEDDED else _file(path)
    given_ids = isinstance(source, Path) and source.suffix == ".npy"
    longest = checkpoint.config.max_position_embeddings
    if length is not None and length > longest:
        raise Refusal(
            f"the model has {longest} positions; sequences of {length} tokens do not fit. Use :{sequences}x{longest}."
        )
    tokens = calibration_tokens(
        source,
        None if given_ids else load_tokenizer(checkpoint.path),
        n=sequences or (None if given_ids else SEQUENCES),
        length=length or (None if given_ids else min(LENGTH, longest)),
        seed=seed,
        vocab_size=checkpoint.config.vocab_size,
    )
    if tokens.ids.shape[1] > longest:
        raise Refusal(f"the model has {longest} positions; the sequences of {path.name} have {tokens.ids.shape[1]}.")
    return tokens


def evaluation_text(name: str | None, checkpoint: Checkpoint) -> Text | Path | None:
    """The text to evaluate on: a file, the held-out part of the embedded text for the embedded model, else nothing."""
    if name == EMBEDDED or (name is None and _is_embedded(checkpoint.path)):
        return Text.of(embedded.held_out_text(), f"{EMBEDDED}, held out")
    return None if name in (None, "none") else _file(Path(name))


def _is_embedded(folder: Path) -> bool:
    """The embedded model, or a run that pruned it."""
    return folder == bundled.MODEL or ((folder / plan.FILE).is_file() and plan.Plan.read(folder).model.path == EMBEDDED)


def _file(path: Path) -> Path:
    if not str(path).startswith("hf:") and not path.is_file():
        raise Refusal(f"there is no file {path}. Probably a misspelt path; text is .txt, .jsonl, .npy or hf:DATASET.")
    return path


def device(name: str) -> str:
    """``auto`` is the first CUDA device where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        raise Refusal(f"--device {name} cannot be used here ({error}). Use auto or cpu.") from error
    return name


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def dtype(name: str, checkpoint: Checkpoint) -> torch.dtype:
    """``auto`` is the checkpoint's own."""
    if name == "auto":
        return checkpoint.working_dtype
    if name not in DTYPES:
        raise Refusal(f"--dtype must be auto or one of {', '.join(DTYPES)}; got '{name}'.")
    return DTYPES[name]
