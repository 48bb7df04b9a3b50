"""The mean Gram of an input, and how far pruned predecessors moved it, streamed over the calibration tokens.

Products are accumulated in float32 per chunk of tokens (float64 for float64 inputs) and chunks are summed in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from solvers.refusal import Refusal

CHUNK_TOKENS = 4096


class MeanGram:
    """Mean of `x x^T` over tokens.

    Parameters
    ----------
    width : int
        Number of input features.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = 0
        self._sum = torch.zeros(())

    def add(self, x: torch.Tensor) -> None:
        """Count the tokens of `x`, shape `(..., width)`, any float dtype."""
        if x.shape[-1] != self.width:
            raise Refusal(f"inputs of width {self.width} are expected here; {tuple(x.shape)} arrived.")
        rows = x.detach().reshape(-1, self.width)  # (t, width)
        for chunk in rows.split(CHUNK_TOKENS):
            exact = chunk if chunk.dtype == torch.float64 else chunk.to(torch.float32)
            self._sum = self._sum.to(x.device) + (exact.T @ exact).to(torch.float64)
        self.tokens += rows.shape[0]

    def merge(self, other: MeanGram) -> None:
        """Count the tokens that another one counted."""
        if other.width != self.width:
            raise Refusal(f"Grams of one input can be merged; their widths are {self.width} and {other.width}.")
        self._sum = self._sum + other._sum.to(self._sum.device)
        self.tokens += other.tokens

    def value(self) -> np.ndarray:
        """The mean `(width, width)` in float64, exactly symmetric."""
        if not self.tokens:
            raise Refusal("a mean needs at least one token; none arrived. Was the block run while it was watched?")
        mean = self._sum.cpu().numpy() / self.tokens
        return (mean + mean.T) / 2


class MeanSquares:
    """Mean of the squares of each input feature over tokens: the diagonal of the mean Gram, without the Gram.

    Parameters
    ----------
    width : int
        Number of input features.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = 0
        self._sum = torch.zeros(())

    def add(self, x: torch.Tensor) -> None:
        """Count the tokens of `x`, shape `(..., width)`, any float dtype."""
        for chunk in x.detach().reshape(-1, self.width).split(CHUNK_TOKENS):
            self._sum = self._sum.to(x.device) + chunk.to(torch.float64).square().sum(dim=0)
            self.tokens += len(chunk)

    def norms(self) -> np.ndarray:
        """Root mean squares `(width,)` in float64."""
        return np.sqrt(self._sum.cpu().numpy() / self.tokens)


class MeanDrift:
    """Means of `(x~ - x) x~^T` and `(x~ - x)(x~ - x)^T` over tokens: x the dense input of a layer, x~ the one it gets.

    Parameters
    ----------
    width : int
        Number of input features.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = 0
        self._cross = self._square = torch.zeros(())

    def add(self, dense: torch.Tensor, moved: torch.Tensor) -> None:
        """Count the tokens of two inputs of shape `(..., width)`."""
        if dense.shape != moved.shape or moved.shape[-1] != self.width:
            raise Refusal(
                f"two inputs of width {self.width} are expected; {tuple(dense.shape)}, {tuple(moved.shape)} arrived."
            )
        pairs = (x.detach().reshape(-1, self.width).split(CHUNK_TOKENS) for x in (dense, moved))
        for x, after in zip(*pairs, strict=True):
            exact = after if after.dtype == torch.float64 else after.to(torch.float32)
            d = exact - x.to(exact.dtype)
            self._cross = self._cross.to(d.device) + (d.T @ exact).to(torch.float64)
            self._square = self._square.to(d.device) + (d.T @ d).to(torch.float64)
            self.tokens += len(d)

    def value(self) -> tuple[np.ndarray, np.ndarray]:
        """Both means `(width, width)` in float64, the second exactly symmetric."""
        if not self.tokens:
            raise Refusal("a mean needs at least one token; none arrived. Were both blocks run?")
        cross, square = (sum_.cpu().numpy() / self.tokens for sum_ in (self._cross, self._square))
        return cross, (square + square.T) / 2


@contextmanager
def watching(block: nn.Module, means: Mapping[str, MeanGram | MeanSquares]) -> Iterator[None]:
    """Feed the inputs of named modules of a block to means, while the block runs inside the `with`.

    Parameters
    ----------
    block : torch.nn.Module
    means : mapping of str to MeanGram or MeanSquares
        Keyed by module path relative to the block.
    """
    with ExitStack() as hooks:
        for path, mean in means.items():
            handle = block.get_submodule(path).register_forward_pre_hook(_feeding(mean))
            hooks.callback(handle.remove)
        yield


def _feeding(mean: MeanGram | MeanSquares):
    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        mean.add(inputs[0])

    return hook


@contextmanager
def recording(block: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """The latest input of named modules of a block, by path, while the block runs inside the `with`."""
    latest: dict[str, torch.Tensor] = {}
    with ExitStack() as hooks:
        for path in paths:
            handle = block.get_submodule(path).register_forward_pre_hook(_keeping(latest, path))
            hooks.callback(handle.remove)
        yield latest


def _keeping(latest: dict[str, torch.Tensor], path: str):
    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        latest[path] = inputs[0].detach()

    return hook
