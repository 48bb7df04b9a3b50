"""From documents to one stream of token ids, with the tokenizer of the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from solvers.refusal import Refusal

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
PIECE_CHARACTERS = 2_000_000  # about this much text is handed to the tokenizer at a time


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model directory; refuse where there is none."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise Refusal(
            f"text needs a tokenizer; {folder} has none of {', '.join(TOKENIZER_FILES)}. "
            "Copy the tokenizer files into the model directory, or give token ids as .npy."
        )
    return AutoTokenizer.from_pretrained(folder)


def tokenizer_sha256(tokenizer: Any) -> str | None:
    """Hex digest of what a tokenizer does to text; None where it has no serial form.

    Truncation and padding are left out, as they are settings of a call.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    fields = {key: value for key, value in json.loads(backend.to_str()).items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def token_stream(documents: Sequence[str], tokenizer: Any) -> np.ndarray:
    """Every document stripped and encoded with the tokenizer's own special tokens, one after another.

    Returns
    -------
    (t,) array of int64
    """
    return np.concatenate([np.zeros(0, dtype=np.int64), *encoded(documents, tokenizer)])


def encoded(documents: Sequence[str], tokenizer: Any) -> Iterator[np.ndarray]:
    """The ids (t,) of each document, stripped and with the tokenizer's own special tokens."""
    for piece in _pieces(documents):
        ids = tokenizer(piece, add_special_tokens=True, truncation=False, padding=False, verbose=False)["input_ids"]
        yield from (np.asarray(document, dtype=np.int64) for document in ids)


def _pieces(documents: Sequence[str]) -> Iterator[list[str]]:
    piece, characters = [], 0
    for document in documents:
        piece.append(document.strip())
        characters += len(document)
        if characters >= PIECE_CHARACTERS:
            yield piece
            piece, characters = [], 0
    if piece:
        yield piece
