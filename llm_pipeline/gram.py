"""Means over tokens, measured at the inputs of a block: the Gram, or only its diagonal.

Products are accumulated in float32 per chunk of tokens (float64 for float64 inputs) and chunks are summed in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

import numpy as np
import torch
from torch import nn

from solvers.refusal import Refusal

CHUNK_TOKENS = 4096


class _Mean:
    """Sum over tokens of a product, and the number of tokens."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = 0
        self._sum = torch.zeros(())

    def add(self, x: torch.Tensor) -> None:
        """Count the tokens of `x`, shape `(..., width)`, any float dtype."""
        rows = self._rows(x)  # (t, width)
        for chunk in rows.split(CHUNK_TOKENS):
            exact = chunk if chunk.dtype == torch.float64 else chunk.to(torch.float32)
            self._sum = self._sum.to(x.device) + self._product(exact).to(torch.float64)
        self.tokens += rows.shape[0]

    def merge(self, other: Self) -> None:
        """Count the tokens that another one counted."""
        if other.width != self.width:
            raise Refusal(f"means of one input can be merged; their widths are {self.width} and {other.width}.")
        self._sum = self._sum + other._sum.to(self._sum.device)
        self.tokens += other.tokens

    def value(self) -> np.ndarray:
        """The mean over tokens, float64."""
        if not self.tokens:
            raise Refusal("a mean needs at least one token; none arrived. Was the block run while it was watched?")
        return self._sum.cpu().numpy() / self.tokens

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != self.width:
            raise Refusal(f"inputs of width {self.width} are expected here; {tuple(x.shape)} arrived.")
        return x.detach().reshape(-1, self.width)

    def _product(self, chunk: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class MeanGram(_Mean):
    """Mean of `x x^T` over tokens; `value()` is `(width, width)` and exactly symmetric.

    Parameters
    ----------
    width : int
        Number of input features.
    """

    def value(self) -> np.ndarray:
        """The mean Gram, float64, exactly symmetric."""
        mean = super().value()
        return (mean + mean.T) / 2

    def _product(self, chunk: torch.Tensor) -> torch.Tensor:
        return chunk.T @ chunk


class MeanNorms(_Mean):
    """Mean of `x^2` over tokens; `value()` is `(width,)`: the diagonal of the mean Gram.

    Parameters
    ----------
    width : int
        Number of input features.
    """

    def _product(self, chunk: torch.Tensor) -> torch.Tensor:
        return chunk.square().sum(dim=0)


@contextmanager
def watching(block: nn.Module, means: Mapping[str, _Mean]) -> Iterator[None]:
    """Feed the inputs of named modules of a block to means, while the block runs inside the `with`.

    Parameters
    ----------
    block : torch.nn.Module
    means : mapping of str to MeanGram or MeanNorms
        Keyed by module path relative to the block.
    """
    with ExitStack() as hooks:
        for path, mean in means.items():
            handle = block.get_submodule(path).register_forward_pre_hook(_feeding(mean))
            hooks.callback(handle.remove)
        yield


def _feeding(mean: _Mean):
    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        mean.add(inputs[0])

    return hook
