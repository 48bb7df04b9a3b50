"""Token ids: how text becomes sequences of equal length, and what is recorded about them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llm_pipeline.checkpoint import file_sha256
from llm_pipeline.documents import Text, load_text
from llm_pipeline.token_stream import encoded, token_stream, tokenizer_sha256
from solvers.refusal import Refusal

PAD = -1
UNITS = ("windows", "documents")


@dataclass(frozen=True)
class Tokens:
    """Sequences of token ids, and where they came from.

    Parameters
    ----------
    ids : (n, l) array of int64
        A sequence shorter than `l` is filled up with `PAD`.
    source : str
        Name of the file or data set, without its folder.
    sha256 : str
        Hex digest of the bytes of the source.
    tokenizer_sha256 : str or None
        Hex digest of the tokenizer; None where the ids were given.
    protocol : str
        One sentence: how the sequences were taken.
    unit : str
        What a sequence is: windows of one stream, or documents.
    cut : int or None
        The length to which documents were cut.
    """

    ids: np.ndarray
    source: str
    sha256: str
    tokenizer_sha256: str | None
    protocol: str
    unit: str = "windows"
    cut: int | None = None

    @property
    def evaluation(self) -> str:
        """Name of the protocol when these sequences are scored: windows-256, documents-512."""
        return f"{self.unit}-{self.cut or self.ids.shape[1]}"

    @property
    def scored(self) -> np.ndarray:
        """Tokens (n,) of each sequence that have a token before them."""
        return (self.ids != PAD).sum(axis=1) - 1


def parse_calibration(text: str) -> tuple[Path, int | None, int | None]:
    """Split `FILE[:NxL]` into the file, the number of sequences and their length in tokens.

    Examples
    --------
    >>> parse_calibration("c4.jsonl:128x2048")[1:]
    (128, 2048)
    >>> parse_calibration("tokens.npy")[1:]
    (None, None)
    """
    match = re.fullmatch(r"(?P<file>.+?)(:(?P<n>\d+)x(?P<length>\d+))?", text)
    counts = [int(match[key]) for key in ("n", "length") if match[key]] if match else []
    if match is None or 0 in counts:
        raise Refusal(
            f"--calibration must be FILE or FILE:NxL with N sequences of L tokens, both at least 1; {text!r} "
            "arrived. Type for example text.jsonl:128x2048."
        )
    return Path(match["file"]), *(counts or (None, None))


def calibration_tokens(
    source: Path | Text,
    tokenizer: Any = None,
    *,
    n: int | None = None,
    length: int | None = None,
    seed: int = 0,
    vocab_size: int | None = None,
) -> Tokens:
    """Draw `n` disjoint windows of `length` tokens without replacement, in drawn order.

    Parameters
    ----------
    source : Path or Text
        Text, or a `.npy` file of token ids `(N, L)` whose rows are the windows; all of them, in order, where
        `n` is not given.
    tokenizer : transformers tokenizer
        Not needed for token ids.
    n, length : int
        Number of sequences, tokens of each.
    seed : int
        Of `numpy.random.default_rng`.
    vocab_size : int, optional
        Ids from here on are refused.
    """
    pool, arrived = _pool(source, tokenizer, length, vocab_size)
    if _is_ids(source) and n in (None, len(pool.ids)) and len(pool.ids):
        return pool
    if not n or n > len(pool.ids):
        raise Refusal(_too_few(pool, n, arrived))
    drawn = np.random.default_rng(seed).permutation(len(pool.ids))[:n]
    how = f"{n} of {len(pool.ids)} {pool.protocol}; drawn without replacement with seed {seed}"
    return replace(pool, ids=pool.ids[drawn], protocol=how)


def evaluation_tokens(
    source: Path | Text,
    tokenizer: Any = None,
    *,
    length: int | None = None,
    vocab_size: int | None = None,
) -> Tokens:
    """All disjoint windows of `length` tokens in their order, the tail dropped; parameters as above."""
    pool, arrived = _pool(source, tokenizer, length, vocab_size)
    if not len(pool.ids):
        raise Refusal(_too_few(pool, 1, arrived))
    return pool


def document_tokens(source: Path | Text, tokenizer: Any, *, length: int, vocab_size: int | None = None) -> Tokens:
    """Every document by itself, cut to its first `length` tokens; documents of one token are left out."""
    text = source if isinstance(source, Text) else load_text(source)
    documents = [ids[:length] for ids in encoded(text.documents, tokenizer) if len(ids) > 1]
    if not documents:
        raise Refusal(f"{text.source} holds no document of at least two tokens. Give a longer text.")
    ids = np.full((len(documents), max(map(len, documents))), PAD, dtype=np.int64)
    for row, document in zip(ids, documents, strict=True):
        row[: len(document)] = document
    how = f"documents, each encoded with special tokens and cut to {length} tokens"
    tokens = Tokens(ids, text.source, text.sha256, tokenizer_sha256(tokenizer), how, unit="documents", cut=length)
    return _below(vocab_size, tokens)


def _is_ids(source: Path | Text) -> bool:
    return not isinstance(source, Text) and Path(source).suffix == ".npy"


def _pool(source: Path | Text, tokenizer: Any, length: int | None, vocab_size: int | None) -> tuple[Tokens, int]:
    """All windows there are, and the number of tokens they were cut from."""
    pool, arrived = _stored(Path(source), length) if _is_ids(source) else _cut(source, tokenizer, length)
    return _below(vocab_size, pool), arrived


def _below(vocab_size: int | None, tokens: Tokens) -> Tokens:
    largest = int(tokens.ids.max(initial=PAD))
    if vocab_size is not None and largest >= vocab_size:
        raise Refusal(
            f"token ids must lie below the vocabulary size {vocab_size} of the model; {tokens.source} gives {largest}. "
            "Usually the tokenizer of another model; use the one that belongs to the model."
        )
    return tokens


def _stored(path: Path, length: int | None) -> tuple[Tokens, int]:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refusal(f"{path} could not be read as a .npy array ({error}). Write it with numpy.save.") from error
    if stored.ndim != 2 or stored.dtype.kind not in "iu" or stored.min(initial=0) < 0:
        raise Refusal(
            f"token ids must be an N x L array of integers of at least 0; {path.name} holds {stored.dtype} of shape "
            f"{stored.shape}, smallest {stored.min(initial=0)}. Stack sequences of equal length."
        )
    if length not in (None, stored.shape[1]):
        raise Refusal(
            f"sequences of {length} tokens were asked for; those of {path.name} have {stored.shape[1]}. "
            f"Ask for that length, or leave :NxL out."
        )
    how = f"sequences of {stored.shape[1]} given token ids"
    return Tokens(stored.astype(np.int64), path.name, file_sha256(path), None, how), stored.size


def _cut(source: Path | Text, tokenizer: Any, length: int | None) -> tuple[Tokens, int]:
    if tokenizer is None or length is None:
        lacking = "a length" if tokenizer is not None else "a tokenizer"
        raise Refusal(
            f"text needs a tokenizer and a length to become sequences of tokens; {lacking} is missing. "
            "Give FILE:NxL and a model directory with a tokenizer, or token ids as .npy."
        )
    text = source if isinstance(source, Text) else load_text(source)
    stream = token_stream(text.documents, tokenizer)
    count = len(stream) // length
    how = f"disjoint windows of {length} tokens of the documents, each encoded with special tokens and joined"
    ids = stream[: count * length].reshape(count, length)
    return Tokens(ids, text.source, text.sha256, tokenizer_sha256(tokenizer), how), len(stream)


def _too_few(pool: Tokens, n: int | None, arrived: int) -> str:
    length = pool.ids.shape[1]
    fit = f"{len(pool.ids)}x{length}" if len(pool.ids) else f"1x{arrived}"
    return (
        f"{n or 'N'} x {length} = {(n or 1) * length} tokens are required; {pool.source} gives {arrived}. "
        f"The most that fits is {fit}. Ask for :{fit}, or give a longer text."
    )
