"""Perplexity of a model directory by a named protocol.

Protocol `windows-L`: the token stream is cut into disjoint windows of L tokens, the tail is dropped, every window is
scored from its second token, and the mean is over scored tokens. Protocol `documents-L`: every document by itself, cut
to its first L tokens, scored from its second token; the mean is over scored tokens of all documents.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from llm_pipeline.calibration import PAD, Tokens, evaluation_tokens
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.documents import Text
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
    model = _model(checkpoint, device, dtype)
    scores = score_windows(model, tokens.ids, progress=progress)  # (n,)
    return summary(tokens, scores)


@torch.inference_mode()
def score_windows(
    model: torch.nn.Module, ids: np.ndarray, *, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Negative log likelihood of each window from its second token, summed, in nats.

    Parameters
    ----------
    model : causal language model of transformers
    ids : (n, l) array of int

    Returns
    -------
    (n,) array of float64
    """
    rows = torch.as_tensor(np.asarray(ids, dtype=np.int64)).to(model.device)
    batch = max(1, LOGIT_BYTES // (4 * rows.shape[1] * model.config.vocab_size))
    scores: list[float] = []
    for part in rows.split(batch):
        logits = model(input_ids=part.clamp(min=0), use_cache=False).logits  # (b, l, v); padding comes last, unseen
        scores += [_window_nll(*window) for window in zip(logits, part, strict=True)]
        if progress is not None:
            progress(len(scores), len(rows))
    return np.array(scores)


def _window_nll(logits: torch.Tensor, ids: torch.Tensor) -> float:
    losses = torch.nn.functional.cross_entropy(logits[:-1].float(), ids[1:], reduction="none", ignore_index=PAD)
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


def _model(checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype | None) -> Any:
    model, loading = AutoModelForCausalLM.from_pretrained(
        checkpoint.path, dtype=dtype or checkpoint.working_dtype, output_loading_info=True
    )
    if loading["missing_keys"]:  # transformers fills these with random numbers
        raise Refusal(
            f"the model needs tensors that {checkpoint.path.name} does not hold: "
            f"{', '.join(sorted(loading['missing_keys']))}. The weights and config.json are probably of "
            "different models; fetch them together."
        )
    return model.to(device).eval()
