"""Text as a list of documents, from a file or a data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solvers.refusal import Refusal

SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True)
class Text:
    """Documents, the name of what they came from (without its folder), and the hex digest of its bytes."""

    documents: tuple[str, ...]
    source: str
    sha256: str

    @classmethod
    def of(cls, documents: Sequence[str], source: str) -> Text:
        """Text that is not a file; its digest is that of the documents joined by NUL."""
        return cls(tuple(documents), source, hashlib.sha256("\0".join(documents).encode()).hexdigest())


def load_documents(path: str | Path) -> list[str]:
    """The documents of a `.txt` or `.jsonl` file, or of `hf:DATASET[/CONFIG][/SPLIT]`."""
    return list(load_text(path).documents)


def load_text(path: str | Path) -> Text:
    """Read a `.txt` or `.jsonl` file, or `hf:DATASET[/CONFIG][/SPLIT]`.

    A `.txt` file is cut at `<|endoftext|>` where it holds that mark and is one document otherwise; a line of a
    `.jsonl` file is a document in its field `text`. Blank documents are left out.
    """
    path = Path(path)
    if path.as_posix().startswith("hf:"):
        return Text.of(_written(path.as_posix(), _hub_documents(path.as_posix().removeprefix("hf:"))), str(path))
    parse = {".txt": _text_documents, ".jsonl": _json_documents}.get(path.suffix)
    if parse is None:
        raise Refusal(
            f"text must be a .txt or .jsonl file or hf:DATASET (token ids: .npy); {path.name} is none of them. "
            "Rename it, or write one JSON object with a field text per line."
        )
    stored = _bytes(path)
    documents = _written(path.name, parse(path, _decoded(path, stored)))
    return Text(documents, path.name, hashlib.sha256(stored).hexdigest())


def _written(source: str, documents: Iterable[str]) -> tuple[str, ...]:
    written = tuple(document for document in documents if document.strip())
    if not written:
        raise Refusal(f"text must hold at least one document; {source} is empty. Give another file.")
    return written


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"{path} could not be read ({error.strerror}). Probably a misspelt path.") from error


def _decoded(path: Path, stored: bytes) -> str:
    try:
        return stored.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(f"text must be UTF-8; {path.name} is not at byte {error.start}. Convert the file.") from error


def _text_documents(_: Path, text: str) -> list[str]:
    return text.split(SEPARATOR)


def _json_documents(path: Path, text: str) -> Iterable[str]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _json_text(path, number, line)


def _json_text(path: Path, number: int, line: str) -> str:
    try:
        return str.strip(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(
            f"every line of a .jsonl file must be a JSON object with a string in its field text; line {number} of "
            f"{path.name} is not ({type(error).__name__}: {error}). Rename the field, or remove the line."
        ) from error


def _hub_documents(name: str) -> list[str]:
    """Rows of a data set: the first two parts name it, `train`, `validation` or `test` is a split."""
    parts = name.split("/")
    split = parts.pop() if parts[-1] in ("train", "validation", "test") else "train"
    try:
        from datasets import load_dataset

        return [str(row) for row in load_dataset("/".join(parts[:2]), *parts[2:], split=split)["text"]]
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise Refusal(
            f"hf:{name} needs the package datasets, a reachable hub and a field text; it failed with "
            f"{type(error).__name__}: {error}. Download the text elsewhere and give it as .jsonl."
        ) from error
