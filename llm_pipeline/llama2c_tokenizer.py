"""The tokenizer of llama2.c as a tokenizer of transformers.

The file is an int32, then for each id a float32 score, an int32 length, and that many bytes of UTF-8. Encoding merges
the adjacent pair whose concatenation has the highest score, leftmost first; that is byte-pair encoding in which a merge
is ranked by the score of its result. (Two overlapping ways to make one piece, as in `a aa a`, rank by their split.)
"""

from __future__ import annotations

import struct
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from solvers.refusal import Refusal

FIRST_PIECE = 259  # after <unk>, <s>, </s> and 256 bytes
SPECIAL = ("<unk>", "<s>", "</s>")


def read_tokenizer(path: Path, vocab_size: int, length: int) -> PreTrainedTokenizerFast:
    """Read a llama2.c tokenizer file.

    Parameters
    ----------
    path : Path
    vocab_size : int
        Number of ids of the model it belongs to.
    length : int
        Tokens that the model can take.
    """
    scored = _pieces(path, vocab_size)
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *(piece for _, piece in scored[FIRST_PIECE:])]
    if len(set(names)) != vocab_size:
        raise Refusal(f"the {vocab_size} pieces of {path.name} must differ; {len(set(names))} do. A damaged file?")
    backend = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=_merges(scored[FIRST_PIECE:]),
            unk_token=SPECIAL[0],
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Prepend(" ")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        model_max_length=length,
    )


def _pieces(path: Path, count: int) -> list[tuple[float, str]]:
    """Score and text of every id."""
    stored, at = path.read_bytes(), 4
    pieces: list[tuple[float, str]] = []
    try:
        while at < len(stored):
            score, size = struct.unpack_from("<fi", stored, at)
            (text,) = struct.unpack_from(f"{size}s", stored, at + 8)
            pieces.append((score, text.decode("utf-8")))
            at += 8 + size
    except (struct.error, UnicodeDecodeError) as error:
        raise Refusal(f"{path.name} must be a llama2.c tokenizer; it breaks off at byte {at} ({error}).") from error
    if len(pieces) != count or count < FIRST_PIECE:
        raise Refusal(
            f"the tokenizer must have the {count} ids of the model, at least {FIRST_PIECE}; {path.name} has "
            f"{len(pieces)}. Probably the tokenizer of another model; copy the right one beside the checkpoint."
        )
    return pieces


def _merges(scored: list[tuple[float, str]]) -> list[tuple[str, str]]:
    """All ways to make a piece of two others, the highest score first."""
    known = {piece for _, piece in scored}
    ranked = sorted(scored, key=lambda pair: -pair[0])
    splits = ((piece[:cut], piece[cut:]) for _, piece in ranked for cut in range(1, len(piece)))
    return [(left, right) for left, right in splits if left in known and right in known]
