"""Model directories, read lazily: the only file that knows safetensors.

Tensors are read one at a time; where each lies in its file is kept, so that a copy can be overwritten in place.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from llm_pipeline.families import family_of
from llm_pipeline.locate import locate
from solvers.refusal import Refusal

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INTEGERS = {"I64": torch.int64, "I32": torch.int32, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
DTYPES = FLOATS | INTEGERS
AGAIN = "Probably a broken download or a Git LFS pointer; fetch the file again."


def require_finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or refuse if it holds a NaN or an infinity."""
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise Refusal(
            f"tensor {name} must be finite; {bad} of its {tensor.numel()} entries are NaN or infinite. "
            "Usually an overflow of float16 or a broken download. Use --dtype float32, or fetch the files again."
        )
    return tensor


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: file, dtype, shape, first byte, and the byte after the last."""

    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face model directory with safetensors weights, read lazily.

    Parameters
    ----------
    path : Path
        The directory.
    config : transformers.PretrainedConfig
    files : tuple of str
        Names of the weight files.
    entries : dict of str to Entry
        Where each tensor lies.
    """

    path: Path
    config: Any
    files: tuple[str, ...]
    entries: dict[str, Entry]

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Open a local directory, or fetch a hub model named `org/name`; refuse what cannot be pruned."""
        folder = locate(path)
        config, files = _config(folder), _weight_files(folder, path)
        entries = {name: entry for file in files for name, entry in header(folder / file).items()}
        return cls(folder, config, files, entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all stored tensors."""
        return tuple(self.entries)

    @property
    def working_dtype(self) -> torch.dtype:
        """The dtype transformers computes in by default: the config's, else that of the first float tensor."""
        stored = (entry.dtype for entry in self.entries.values() if entry.dtype.is_floating_point)
        return self.config.dtype or next(stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a stored tensor."""
        return self.entries[self.resolve(name)].shape

    def dtype(self, name: str) -> torch.dtype:
        """Stored dtype of a tensor."""
        return self.entries[self.resolve(name)].dtype

    def read(self, name: str) -> torch.Tensor:
        """One tensor on the CPU in its stored dtype."""
        name = self.resolve(name)
        path = self.path / self.entries[name].file
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (SafetensorError, FileNotFoundError) as error:
            raise Refusal(
                f"{path} must hold {name} as when it was opened; it cannot be read any more ({error}). "
                "Probably the file was moved, cut or written to meanwhile, or the disk fails; restore it."
            ) from error

    def resolve(self, name: str) -> str:
        """The stored name of a parameter: with or without a leading `model.`, or its tied twin."""
        for candidate in self._forms(name):
            if candidate in self.entries:
                return candidate
        raise Refusal(
            f"the model needs a tensor {name}; {self.path.name} holds {len(self.entries)} tensors, not this one. "
            "The weights and config.json are probably of different models; fetch them together."
        )

    def holds(self, name: str) -> bool:
        """Whether a parameter is stored, under one of its names."""
        return any(form in self.entries for form in self._forms(name))

    def _forms(self, name: str) -> tuple[str, ...]:
        return (name, name.removeprefix("model."), f"model.{name}", *self._tied(name))

    def _tied(self, name: str) -> tuple[str, ...]:
        family = family_of(self.config)
        ends = (family.embedding, family.head)
        if name not in ends or not self.config.tie_word_embeddings:
            return ()
        return tuple(form for end in ends for form in (end, end.removeprefix("model.")))

    def sha256(self) -> dict[str, str]:
        """Hex digest of every weight file."""
        return {file: file_sha256(self.path / file) for file in self.files}


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise Refusal(
            f"a model directory needs config.json; {folder} has none. Probably a folder above or below the "
            "model; give the one that holds config.json."
        )
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise Refusal(f"config.json of {folder} must name a model that transformers knows: {error}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise Refusal(f"pruning needs plain weights; those of {folder} are quantised. Give the unquantised model.")
    return config


def _weight_files(folder: Path, typed: str | Path) -> tuple[str, ...]:
    if (folder / SINGLE).is_file():
        return (SINGLE,)
    if not (folder / INDEX).is_file():
        raise Refusal(_no_weights(folder, typed))
    files = tuple(sorted(set(weight_map(folder).values())))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise Refusal(
            f"{INDEX} names {len(files)} files; {', '.join(missing)} of {folder} are missing. Fetch them again."
        )
    return files


def weight_map(folder: Path) -> dict[str, str]:
    """The file of every tensor, as the index says; empty where there is no index."""
    if not (folder / INDEX).is_file():
        return {}
    try:
        return {str(name): str(file) for name, file in json.loads((folder / INDEX).read_bytes())["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(
            f"{folder / INDEX} must be JSON with a weight_map from tensors to files; it is not "
            f"({type(error).__name__}: {error}). {AGAIN}"
        ) from error


def _no_weights(folder: Path, typed: str | Path) -> str:
    reads = "pruning reads safetensors weights"
    if not Path(typed).is_dir():  # of a hub model no .bin files are fetched, so none are seen
        target = Path(typed).name
        return (
            f"{reads}; the hub has none of {typed}, probably .bin files only. Convert them once, and give the "
            f"directory {target}: {_conversion(str(typed), target, tokenizer=True)}"
        )
    if any(folder.glob("*.bin")):
        command = _conversion(str(folder), str(folder))
        return f"{reads}; {folder} holds .bin files only. Convert them once: {command}"
    return (
        f"a model directory needs {SINGLE} or {INDEX}; {folder} has neither. Probably an incomplete download; "
        "fetch the weights, or give the directory that holds them."
    )


def _conversion(source: str, target: str, tokenizer: bool = False) -> str:
    """The command that reads what transformers reads, and writes it as safetensors."""
    program = "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T"
    program += f"; M.from_pretrained({source!r}, dtype='auto').save_pretrained({target!r})"
    program += f"; T.from_pretrained({source!r}).save_pretrained({target!r})" if tokenizer else ""
    return f"python -c {shlex.quote(program)}"


def header_bytes(path: Path) -> bytes:
    """The header of a weight file. Format: u64 length, JSON of that length, then the bytes of the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(length) if length <= path.stat().st_size else b""


def header(path: Path) -> dict[str, Entry]:
    """Where the tensors of one file lie."""
    text = header_bytes(path)
    try:
        fields, length = json.loads(text), len(text)
        fields.pop("__metadata__", None)
        entries = {name: _entry(path.name, field, 8 + length) for name, field in fields.items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise Refusal(
            f"{path} must be a safetensors file of plain numbers; its header is not ({error}). {AGAIN}"
        ) from error
    end = max((entry.stop for entry in entries.values()), default=8 + length)
    if end != path.stat().st_size:
        raise Refusal(f"{path} must be {end} bytes long by its own header and is {path.stat().st_size}. {AGAIN}")
    return entries


def _entry(file: str, field: dict[str, Any], data: int) -> Entry:
    start, stop = field["data_offsets"]
    return Entry(file, DTYPES[field["dtype"]], tuple(field["shape"]), data + start, data + stop)
