"""What an evaluation found: perplexity with an interval, and paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_pipeline.calibration import Tokens
from solvers.refusal import Refusal

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Parameters
    ----------
    protocol : str
        Name of the protocol; numbers of two protocols never share a column.
    text : str
        Name of the text.
    text_sha256, tokenizer_sha256 : str
        Hex digests; the second is None where token ids were given.
    tokens, windows : int
        Scored tokens, and sequences scored: windows or documents.
    nll : float
        Mean negative log likelihood, nats per scored token.
    perplexity : float
        `exp(nll)`.
    interval : (float, float) or None
        95 % bootstrap interval of the perplexity over windows; None for a single window.
    window_nll, window_tokens : (windows,) arrays
        Sums over the scored tokens of each window, nats, and their numbers.
    """

    protocol: str
    text: str
    text_sha256: str
    tokenizer_sha256: str | None
    tokens: int
    windows: int
    nll: float
    perplexity: float
    interval: tuple[float, float] | None
    window_nll: np.ndarray
    window_tokens: np.ndarray


@dataclass(frozen=True)
class Difference:
    """Mean difference `a - b`, nats per token, and its 95 % bootstrap interval (None for a single window)."""

    nll: float
    interval: tuple[float, float] | None


def summary(tokens: Tokens, scores: np.ndarray) -> Perplexity:
    """Perplexity from the sums `(windows,)` over the scored tokens of each window, nats."""
    windows = len(tokens.ids)
    nll, interval = float(scores.sum() / tokens.scored.sum()), _interval(scores, tokens.scored)
    return Perplexity(
        protocol=tokens.evaluation,
        text=tokens.source,
        text_sha256=tokens.sha256,
        tokenizer_sha256=tokens.tokenizer_sha256,
        tokens=int(tokens.scored.sum()),
        windows=windows,
        nll=nll,
        perplexity=float(np.exp(nll)),
        interval=None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1]))),
        window_nll=scores,
        window_tokens=tokens.scored,
    )


def _interval(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float] | None:
    """Percentile bootstrap over sequences (n,) of the mean per token, sum of sums over sum of counts."""
    if len(sums) < 2:
        return None
    rng = np.random.default_rng(SEED)
    draws = (rng.integers(len(sums), size=len(sums)) for _ in range(RESAMPLES))
    resampled = [sums[draw].sum() / counts[draw].sum() for draw in draws]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_difference(a: Perplexity, b: Perplexity) -> Difference:
    """Difference in mean nats per token of two models on the same windows, resampled in pairs."""
    return mean_difference([(a, b)])


def mean_difference(pairs: Sequence[tuple[Perplexity, Perplexity]]) -> Difference:
    """Mean of the differences of several pairs, such as one for each calibration seed; windows resampled jointly."""
    for pair in pairs:
        _require_same_windows(*pair)
    differences = np.mean([a.window_nll - b.window_nll for a, b in pairs], axis=0)  # (n,)
    first = pairs[0][0]
    return Difference(float(differences.sum() / first.tokens), _interval(differences, first.window_tokens))


def _require_same_windows(a: Perplexity, b: Perplexity) -> None:
    kinds = [(p.protocol, p.text_sha256, p.tokenizer_sha256, p.tokens, p.windows) for p in (a, b)]
    if kinds[0] != kinds[1]:
        raise Refusal(
            "a paired difference needs two perplexities of one protocol on one text with one tokenizer; "
            f"{a.protocol} on {a.text} ({a.windows} windows) and {b.protocol} on {b.text} ({b.windows} windows) "
            "arrived. Evaluate both models with the same --protocol and --text."
        )
