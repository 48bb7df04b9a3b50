"""The mean Gram of an input, and how far pruned predecessors moved it, streamed over the calibration tokens.

Letters: X (t, n) a chunk of t <= CHUNK_TOKENS tokens, D its distance from the dense input, T tokens in all.

    G = (1/T) sum over chunks of X' X                  C = (1/T) sum of D' X~,   S = (1/T) sum of D' D    (1)

Products are taken with float32 sums (float64 for float64 inputs), chunks are added up in float64. bfloat16 and float16
are multiplied as they are where the device can (CUDA), and in float32 elsewhere: their products are exact in it. Of a
symmetric product one triangle counts. On the CPU no more than that is computed from 512 inputs on, and each strip of it
is added to the sum before the next one is made: about two thirds of the time of the whole product (records of the
benchmark ``kernel``), and no second matrix; ``syrk`` takes half of it on one thread, but stalls on two where the
machine is busy. On CUDA, where nothing was measured, it is taken whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from solvers.array import full_precision
from solvers.refusal import Refusal

CHUNK_TOKENS = 4096
STRIP = 256  # columns of a strip of the lower triangle
HALF = (torch.bfloat16, torch.float16)


class Mean:
    """Means over tokens of sums of products, chunk by chunk; what all means of inputs share.

    Parameters
    ----------
    width : int
        Number of input features.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = 0
        self._sums: tuple[torch.Tensor, ...] = ()

    def _count(self, add: Callable[..., object], *inputs: torch.Tensor) -> None:
        """`add(chunk, ..., total, ...)` for every chunk of tokens, to sums in float64 on the device of the inputs."""
        shapes = [tuple(x.shape) for x in inputs]
        if shapes[0][-1] != self.width or len(set(shapes)) > 1:
            raise Refusal(f"{self._wanted} of width {self.width} are expected here; {str(shapes)[1:-1]} arrived.")
        rows = [x.detach().reshape(-1, self.width) for x in inputs]  # (t, width) each
        for chunks in zip(*(x.split(CHUNK_TOKENS) for x in rows if len(x)), strict=True):
            if not self._sums:
                self._sums = tuple(torch.zeros(shape, dtype=torch.float64) for shape in self._shapes)
            self._sums = tuple(total.to(chunks[0].device) for total in self._sums)
            add(*chunks, *self._sums)
        self.tokens += len(rows[0])

    def _means(self) -> list[np.ndarray]:
        return [total / self.tokens for total in self._found()]

    def _found(self) -> list[np.ndarray]:
        if not self.tokens:
            raise Refusal("a mean needs at least one token; none arrived. Was the block run while it was watched?")
        return [total.cpu().numpy() for total in self._sums]

    def _taken(self) -> list[np.ndarray]:
        """The means in the memory of the sums, which are given away."""
        sums, tokens = self._found(), self.tokens
        self._sums, self.tokens = (), 0
        for total in sums:
            total /= tokens
        return sums

    _wanted = "inputs"

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """Of the sums."""
        return [(self.width, self.width)]


class MeanGram(Mean):
    """Mean of `x x^T` over tokens."""

    def add(self, x: torch.Tensor) -> None:
        """Count the tokens of `x`, shape `(..., width)`, any float dtype."""
        self._count(lower, x)

    def merge(self, other: MeanGram) -> None:
        """Count the tokens that another one counted."""
        if other.width != self.width:
            raise Refusal(f"Grams of one input can be merged; their widths are {self.width} and {other.width}.")
        pairs = zip(self._sums, other._sums, strict=True) if self._sums and other._sums else ()
        self._sums = tuple(a + b.to(a.device) for a, b in pairs) or self._sums or other._sums
        self.tokens += other.tokens

    def value(self) -> np.ndarray:
        """The mean `(width, width)` in float64, exactly symmetric."""
        return mirrored(*self._means())

    def take(self) -> np.ndarray:
        """The mean in the memory of its sum: no second matrix, and nothing is counted any more."""
        return mirrored(*self._taken())


class MeanSquares(Mean):
    """Mean of the squares of each input feature over tokens: the diagonal of the mean Gram, without the Gram."""

    def add(self, x: torch.Tensor) -> None:
        """Count the tokens of `x`, shape `(..., width)`, any float dtype."""
        self._count(lambda chunk, total: total.add_(chunk.to(torch.float64).square().sum(dim=0)), x)

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        return [(self.width,)]

    def norms(self) -> np.ndarray:
        """Root mean squares `(width,)` in float64."""
        return np.sqrt(*self._means())


class MeanDrift(Mean):
    """Means of `(x~ - x) x~^T` and `(x~ - x)(x~ - x)^T` over tokens.

    x is the dense input of a layer, x~ the one that it gets.
    """

    _wanted = "two inputs"

    def add(self, dense: torch.Tensor, moved: torch.Tensor) -> None:
        """Count the tokens of two inputs of shape `(..., width)`."""
        self._count(_drift, dense, moved)

    def value(self) -> tuple[np.ndarray, np.ndarray]:
        """Both means `(width, width)` in float64, the second exactly symmetric."""
        cross, square = self._means()
        return cross, mirrored(square)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Both means in the memory of their sums."""
        cross, square = self._taken()
        return cross, mirrored(square)

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        return [(self.width, self.width)] * 2


def _drift(x: torch.Tensor, moved: torch.Tensor, cross: torch.Tensor, square: torch.Tensor) -> None:
    after = _wide(moved)
    d = after - x.to(after.dtype)
    cross.add_(product(d, after))
    lower(d, square)


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left' right of chunks (t, width), with float32 sums; float64 for float64 inputs."""
    with full_precision(torch):
        if left.dtype == right.dtype and left.dtype in HALF and multiplies_half(left):
            return torch.mm(left.T, right, out_dtype=torch.float32)
        return _wide(left).T @ _wide(right)


def lower(x: torch.Tensor, total: torch.Tensor) -> None:
    """Add x' x of a chunk (t, width) to a sum, of which only the lower triangle counts."""
    if x.device.type != "cpu" or x.shape[1] < 2 * STRIP:
        total.add_(product(x, x))
        return
    rows, width = _wide(x), x.shape[1]
    for start in range(0, width, STRIP):
        stop = min(start + STRIP, width)
        total[start:stop, :stop].add_(product(rows[:, start:stop], rows[:, :stop]))


def mirrored(square: np.ndarray) -> np.ndarray:
    """The symmetric matrix of a lower triangle, in the memory of `square`."""
    for start in range(0, len(square), STRIP):
        stop = start + STRIP
        corner = square[start:stop, start:stop]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T
        square[start:stop, stop:] = square[stop:, start:stop].T
    return square


def multiplies_half(x: torch.Tensor) -> bool:
    """Whether the device multiplies half precision with float32 output."""
    return x.device.type == "cuda"


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.to(torch.float32)


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
