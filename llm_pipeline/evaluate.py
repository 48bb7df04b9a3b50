"""Perplexity of a model directory by a named protocol.

Protocol `windows-L`: the token stream is cut into disjoint windows of L tokens, the tail is dropped, every window is
scored from its second token, and the mean is over scored tokens. Protocol `documents-L`: every document by itself, cut
to its first L tokens, scored from its second token; the mean is over scored tokens of all documents.

Models are evaluated block by block: all windows pass a block before the next one is read, so that a model of any size
takes the memory of a block, of the hidden states and of one batch of logits. Where the hidden states do not fit, the
windows go in groups. The logits are those of the whole model, bit for bit where the batches are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import numpy as np
import torch

from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import PAD, Tokens, evaluation_tokens
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.documents import Text
from llm_pipeline.hidden import SHARE, HiddenStates, Need, choose
from llm_pipeline.memory import free_memory
from llm_pipeline.scores import Difference, Perplexity, mean_difference, paired_difference, summary
from llm_pipeline.token_stream import load_tokenizer
from solvers.refusal import Refusal

__all__ = ["Difference", "Perplexity", "mean_difference", "paired_difference", "perplexity", "score_windows"]

LOGIT_BYTES = 2**25  # of one batch, in float32
USUAL_LENGTH = 2048


def perplexity(
    folder: Path,
    text: Path | Text | Tokens,
    *,
    length: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Perplexity of a model directory on a text.

    Parameters
    ----------
    folder : Path
        A Hugging Face model directory.
    text : Path, Text or Tokens
        A file as for calibration, read text, or windows of token ids.
    length : int, optional
        Tokens of a window; by default those of the given ids, else 2048 or what the model can take.
    device : str or torch.device
    dtype : torch.dtype, optional
        By default the working dtype of the checkpoint.
    progress : callable, optional
        Called with windows done and windows in all.

    Returns
    -------
    Perplexity
    """
    checkpoint = Checkpoint.open(folder)
    tokens = _tokens(checkpoint, text, length)
    walk = BlockWalk(checkpoint, device, dtype=dtype)
    _require_complete(walk)
    scores = score_windows(walk, tokens.ids, progress=progress)  # (n,)
    return summary(tokens, scores)


@torch.inference_mode()
def score_windows(
    walk: BlockWalk, ids: np.ndarray, *, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Negative log likelihood of each window from its second token, summed, in nats.

    Parameters
    ----------
    walk : the blocks of the model
    ids : (n, l) array of int

    Returns
    -------
    (n,) array of float64
    """
    rows = torch.as_tensor(np.asarray(ids, dtype=np.int64))
    batch = max(1, LOGIT_BYTES // (4 * rows.shape[1] * walk.checkpoint.config.vocab_size))
    place, together = _place(walk, *rows.shape, batch)
    scores: list[float] = []
    for group in rows.split(together):
        for done in _scored(walk, group, place, batch):
            scores += done
            if progress is not None:
                progress(len(scores), len(rows))
    return np.array(scores)


def _scored(walk: BlockWalk, ids: torch.Tensor, place: str, batch: int) -> Iterator[list[float]]:
    """A batch of windows after the other, once all of them have passed all blocks."""
    seen = ids.clamp(min=0)  # padding comes last, where no scored token sees it
    states = HiddenStates(walk, place, batch=batch)
    states.embed(seen.numpy())
    for i in range(len(walk)):
        states.advance(walk.load(i), i)
    ends = walk.ends()
    for part, given, hidden in zip(ids.split(batch), seen.split(batch), states.now.split(batch), strict=True):
        logits = walk.logits(ends, given, hidden)  # (b, l, v)
        yield [_window_nll(*window) for window in zip(logits, part.to(logits.device), strict=True)]


def _place(walk: BlockWalk, windows: int, length: int, batch: int) -> tuple[str, int]:
    """Where the hidden states go, and how many windows at a time: all of them where there is room."""
    config, prefix = walk.checkpoint.config, f"{walk.family.blocks}.".removeprefix("model.")
    sizes = {name.removeprefix("model."): prod(entry.shape) for name, entry in walk.checkpoint.entries.items()}
    block = sum(size for name, size in sizes.items() if name.startswith(f"{prefix}0."))
    ends = sum(size for name, size in sizes.items() if not name.startswith(prefix))
    window = walk.dtype.itemsize * length * config.hidden_size
    beside = walk.dtype.itemsize * max(block, ends) + 3 * 4 * batch * length * config.vocab_size
    place = choose("auto", str(walk.device), Need(windows * window, beside))
    room = int(SHARE * free_memory()) - (beside if walk.device.type == "cpu" else 0)
    return (place, windows) if place != "disk" else ("memory", max(batch, room // window))


def _window_nll(logits: torch.Tensor, ids: torch.Tensor) -> float:
    wide = logits[:-1].to(torch.promote_types(logits.dtype, torch.float32))
    losses = torch.nn.functional.cross_entropy(wide, ids[1:], reduction="none", ignore_index=PAD)
    return losses.double().sum().item()


def _tokens(checkpoint: Checkpoint, text: Path | Text | Tokens, length: int | None) -> Tokens:
    longest, vocabulary = checkpoint.config.max_position_embeddings, checkpoint.config.vocab_size
    _require_length(length or 2, longest)
    if isinstance(text, Tokens):
        tokens = text
    elif not isinstance(text, Text) and Path(text).suffix == ".npy":
        tokens = evaluation_tokens(text, length=length, vocab_size=vocabulary)
    else:
        tokenizer, length = load_tokenizer(checkpoint.path), length or min(longest, USUAL_LENGTH)
        tokens = evaluation_tokens(text, tokenizer, length=length, vocab_size=vocabulary)
    _require_length(tokens.ids.shape[1], longest)
    return tokens


def _require_length(length: int, longest: int) -> None:
    if not 2 <= length <= longest:
        raise Refusal(
            f"a window must have between 2 tokens and the {longest} positions of the model; {length} were asked for. "
            f"Use --length {longest} or less."
        )


def _require_complete(walk: BlockWalk) -> None:
    if missing := walk.missing():
        raise Refusal(
            f"the model needs tensors that {walk.checkpoint.path.name} does not hold: {', '.join(missing)}. The "
            "weights and config.json are probably of different models; fetch them together."
        )
