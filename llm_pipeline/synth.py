"""A model of real shape from a seed: for time, memory, resume and certificates at full size, not for perplexity.

Every tensor is drawn from its own counter-based stream (Philox [1], keyed by the seed, the block and the name), so a
block has the same bytes whichever other blocks are written. A weight W (m, n), r = min(m, n), is

    W0 = C_m P diag(sigma_k s_k) Q' C_n',   s_k = k^-0.3,  k = 1..r                               (1)
    W  = c diag(a) W0 diag(b),   log a, log b ~ N(0, 0.2^2)                                       (2)
    c  so that the mean of sum_j W_ij^2 x_j^2 over the rows i is t^2                              (3)

with the orthogonal cosine transforms C, permutations P, Q and signs sigma: W0 has exactly the singular values s_k at
the price of two fast transforms, and no BLAS, whose sums depend on machine and threads. The exponent is that of a
spectral density lambda^-2.7; trained layers have 2 to 4 [2]. x_j^2 are the squares expected of the input:

    x_j^2 of what reads the residual: (gain_j h_j)^2,   h_j = 8 in the 0.2 % outlier channels, else 1   (4)

the outlier channels being the same in all blocks [3]. Rows that write to the residual carry the h_j of their channel;
0.2 % of a block's intermediate channels are 4 times larger. t is 1.5 for queries and keys, 1 for other readers of the
residual, and rms(embedding) / sqrt(2 blocks) for its writers, so the residual grows by a constant in any depth (5).

[1] J. Salmon, M. Moraes, R. Dror, D. Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011.
[2] C. Martin, M. Mahoney. Implicit self-regularization in deep neural networks. JMLR 2021.
[3] T. Dettmers, M. Lewis, Y. Belkada, L. Zettlemoyer. LLM.int8(). NeurIPS 2022.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import torch

from llm_pipeline.families import family_of
from llm_pipeline.shapes import config_like, empty_model, shapes_of
from llm_pipeline.shards import Shapes, parse_size, write_shards
from llm_pipeline.sources import DTYPES
from solvers.refusal import Refusal

DECAY = 0.3
SPREAD = 0.2
OUTLIERS = 0.002  # share of the channels
RESIDUAL, MIDDLE = 8.0, 4.0
SHARP = ("q_proj", "k_proj")
WRITERS = ("o_proj", "out_proj", "down_proj", "fc2")
MIDDLES = ("gate_proj", "up_proj", "fc1")
ROWS = 4096  # of a table of embeddings that are drawn at a time
Array = np.ndarray[Any, np.dtype[np.float32]]


class Weights:
    """The tensors of a model of one configuration and seed, drawn when they are asked for.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Of the whole model.
    seed : int
    """

    def __init__(self, config: Any, seed: int) -> None:
        self.config, self.seed, self.family = config, seed, family_of(config)
        self.width, self.blocks = config.hidden_size, config.num_hidden_layers
        self.base = self.width**-0.5  # root mean square of the embeddings
        self.channels = self._channels(self._stream("model", "channels"), self.width, RESIDUAL)

    def pieces(self, name: str, shape: tuple[int, ...], block: int | None) -> Iterator[torch.Tensor]:
        """The tensor of that name without its block's prefix, in pieces of whole rows."""
        draw = self._stream("model" if block is None else block, name)
        if len(shape) == 1:
            yield torch.from_numpy(self._vector(draw, name, shape[0]))
        elif "embed" in name or name == self.family.head:
            yield from self._table(draw, name, shape)
        else:
            yield torch.from_numpy(self._matrix(draw, name, shape, block))

    def _stream(self, *words: Any) -> np.random.Generator:
        text = "/".join(map(str, (self.seed, self.config.model_type, self.width, *words)))
        key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")
        return np.random.Generator(np.random.Philox(key=key))

    def _channels(self, draw: np.random.Generator, n: int, size: float) -> Array:
        h = np.ones(n, dtype=np.float32)
        h[draw.permutation(n)[: max(1, round(OUTLIERS * n))]] = size
        return h

    def _vector(self, draw: np.random.Generator, name: str, n: int) -> Array:
        """A gain near 1, or a bias near 0."""
        if name.endswith("weight"):
            return np.exp(_normal(draw, n) * np.float32(SPREAD))
        return _normal(draw, n) * np.float32(self.base * 0.1)

    def _table(self, draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
        scale = np.float32(self.base)
        h = self.channels if shape[1] == self.width and name != self.family.head else np.float32(1)
        for start in range(0, shape[0], ROWS):
            rows = _normal(draw, (min(ROWS, shape[0] - start), shape[1]))
            yield torch.from_numpy(rows * (scale * h))

    def _matrix(self, draw: np.random.Generator, name: str, shape: tuple[int, ...], block: int | None) -> Array:
        reader = name.removesuffix(".weight").rsplit(".", 1)[-1]
        W = _power_law(draw, shape)  # (1)
        W *= np.exp(_normal(draw, (shape[0], 1)) * np.float32(SPREAD))
        W *= np.exp(_normal(draw, (1, shape[1])) * np.float32(SPREAD))  # (2)
        if reader in WRITERS:
            x2, target = np.ones(shape[1]), self.base / np.sqrt(2 * self.blocks)  # (5)
        else:
            x2, target = np.square(self._gain(name, block) * self.channels), 1.5 if reader in SHARP else 1.0  # (4)
        W *= np.float32(
            target / np.sqrt(np.einsum("ij,ij,j->", W, W, x2 / x2.mean(), optimize=False) / shape[0])
        )  # (3)
        rows = self._outputs(reader, shape[0], block)
        return W if rows is None else W * rows[:, None]

    def _outputs(self, reader: str, m: int, block: int | None) -> Array | None:
        if reader in WRITERS:
            return self.channels
        if reader in MIDDLES:  # gate and up share their outliers
            return self._channels(self._stream(block, "middle"), m, MIDDLE**0.5)
        return None

    def _gain(self, name: str, block: int | None) -> Array:
        """The gain of the norm before a reader of the residual, drawn again from the norm's own stream."""
        before, after = self._norms()
        norm = before if "self_attn" in name else after
        return self._vector(self._stream(block, norm), norm, self.width)

    def _norms(self) -> tuple[str, str]:
        if self.config.model_type == "opt":
            return "self_attn_layer_norm.weight", "final_layer_norm.weight"
        return "input_layernorm.weight", "post_attention_layernorm.weight"


def _normal(draw: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
    return draw.standard_normal(shape, dtype=np.float32)


def _power_law(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """W0 of (1): exactly the singular values k^-0.3."""
    m, n = shape
    r = min(m, n)
    W: Array = np.zeros(shape, dtype=np.float32)
    signs = np.where(draw.random(r) < 0.5, np.float32(-1), np.float32(1))
    W[draw.permutation(m)[:r], draw.permutation(n)[:r]] = signs * np.arange(1, r + 1, dtype=np.float32) ** -DECAY
    for axis in (0, 1):
        W = scipy.fft.idct(W, axis=axis, norm="ortho", overwrite_x=True)
    return W


def synthesise(
    like: str, out: Path, *, blocks: str | None, seed: int, dtype: str, shard_size: str, tokens: str | None
) -> str:
    """Typed options into a model directory; returns what was written, in words."""
    config = config_like(like)
    part = parse_blocks(blocks, config.num_hidden_layers) if blocks else (0, config.num_hidden_layers)
    if dtype not in ("auto", *DTYPES):
        raise Refusal(f"--dtype must be auto or one of {', '.join(DTYPES)}; got '{dtype}'.")
    if seed < 0:
        raise Refusal(f"--seed must be a whole number of at least 0; got {seed}.")
    ids = None if tokens is None else zipf_tokens(config, *_counts(tokens), seed)
    stored = config.dtype if dtype == "auto" else DTYPES[dtype]
    write_model(config, out, seed=seed, dtype=stored, limit=parse_size(shard_size), blocks=part, ids=ids)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    return f"{like}, blocks {part[0]}:{part[1]} of {config.num_hidden_layers}, seed {seed}: {size:,} bytes in {out}"


def write_model(
    config: Any,
    out: Path,
    *,
    seed: int,
    dtype: torch.dtype,
    limit: int,
    blocks: tuple[int, int] | None = None,
    ids: np.ndarray | None = None,
) -> None:
    """Write a model directory, complete or not at all.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        Of the whole model.
    out : Path
        Must not exist yet.
    limit : bytes of a shard
    blocks : first block and the one after the last; the model that is written has only these
    ids : token ids for calibration.npy
    """
    first, stop = blocks or (0, config.num_hidden_layers)
    part = _only(config, first, stop)
    weights, shapes, prefix = Weights(config, seed), shapes_of(part), family_of(config).blocks + "."
    partial = out.with_name(out.name + ".partial")
    _require_room(out, partial, shapes, dtype)

    def pieces(name: str) -> Iterator[torch.Tensor]:
        if not name.startswith(prefix):
            return weights.pieces(name, shapes[name], None)
        number, _, rest = name.removeprefix(prefix).partition(".")
        return weights.pieces(rest, shapes[name], first + int(number))

    part.dtype = dtype
    part.architectures = [type(empty_model(part)).__name__]
    try:
        partial.mkdir(parents=True)
        part.save_pretrained(partial)
        empty_model(part).generation_config.save_pretrained(partial)
        write_shards(partial, shapes, dtype, limit, pieces)
        if ids is not None:
            np.save(partial / "calibration.npy", ids)
        partial.rename(out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Refusal(f"{out} could not be written ({error}); nothing was kept. Choose another --out.") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def zipf_tokens(config: Any, sequences: int, length: int, seed: int) -> np.ndarray:
    """Token ids (sequences, length) with frequencies 1/k, k the rank of an id in a drawn order."""
    if length > config.max_position_embeddings:
        raise Refusal(f"the model has {config.max_position_embeddings} positions; {length} tokens do not fit.")
    draw = Weights(config, seed)._stream("tokens")
    order, shares = draw.permutation(config.vocab_size), np.cumsum(1 / np.arange(1, config.vocab_size + 1))
    ranks = np.searchsorted(shares, draw.random((sequences, length)) * shares[-1], side="right")
    return order[np.minimum(ranks, config.vocab_size - 1)].astype(np.int64)


def parse_blocks(text: str, total: int) -> tuple[int, int]:
    """``a:b``, blocks a to b - 1 of `total`."""
    first, colon, stop = text.partition(":")
    if not (colon and first.isdecimal() and stop.isdecimal() and 0 <= int(first) < int(stop) <= total):
        raise Refusal(f"--blocks is a:b with 0 <= a < b <= {total}, for example 0:1; got '{text}'.")
    return int(first), int(stop)


def _counts(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or "0" in match.groups():
        raise Refusal(f"--tokens is NxL, N sequences of L tokens, for example 8x512; got '{text}'.")
    return int(match[1]), int(match[2])


def _only(config: Any, first: int, stop: int) -> Any:
    part = deepcopy(config)
    part.num_hidden_layers = stop - first
    if getattr(config, "layer_types", None):
        part.layer_types = config.layer_types[first:stop]
    return part


def _require_room(out: Path, partial: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    if out.exists():
        raise Refusal(f"the output folder must be new; {out} exists. Choose another --out.")
    shutil.rmtree(partial, ignore_errors=True)
    needed = sum(int(np.prod(shape)) for shape in shapes.values()) * dtype.itemsize
    existing = next(parent for parent in out.absolute().parents if parent.exists())
    if (room := shutil.disk_usage(existing).free) < needed:
        raise Refusal(f"the model needs {needed} bytes and {existing} has {room}. Free some, or choose another --out.")
