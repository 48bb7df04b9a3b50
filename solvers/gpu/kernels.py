"""Triton kernels where a step of the twins is memory traffic: one pass where the array text makes ten, unmeasured yet.

Letters as in `solvers.gpu.select` and `solvers.gpu.maiht`. The bits of a float, a negative one's turned over, are an
integer b in the order of the float, -0.0 and 0.0 made one. T grows bit by bit from the sign to the last:

    T = max {t : #{i : b_i >= t} >= k},   the bits of a_(k)                                       (1)
    j stays  iff  b_j > T,  or  b_j = T and #{i <= j : b_i = T} <= k - #{i : b_i > T}             (2)
    V = prox_{sg}(c0 u0 + c1 u1 + c2 u2),   |V|_0 of each row                                     (3)
    <P_v/2 + R, v - W0>,   <(P_z + P_v)/2 + R, z - v> of each row,   u(z) = z - s (P_z + R)       (4)

One program takes one row, and the windows of n:m in tiles. Counts are integers and sums have a fixed order, so twice
the same input gives twice the same bits; no products are fused with sums, as in the array text, which is the oracle.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import sqrt
from typing import Any

from solvers.sparsity import L0, KeepNofM, KeepPerRow, Sparsity

try:
    import torch
    import triton
    import triton.language as tl
except ImportError:  # the array text serves
    triton = None

AVAILABLE = triton is not None
jit: Any = (lambda function: function) if triton is None else triton.jit

WIDEST = 32768  # a row stands in the registers of one program
WINDOW = 16  # windows up to this width are compared pair by pair
CHUNK = 2048  # entries of a row that (4) takes at once
TILE = 4096  # pairs that a tile of windows compares


@jit
def _ordered(x, BITS: tl.constexpr):
    """b of (1)."""
    if BITS == 32:  # noqa: SIM108 - two types
        b = x.to(tl.int32, bitcast=True)
    else:
        b = x.to(tl.int64, bitcast=True)
    rest = (tl.full((), 1, b.dtype) << (BITS - 1)) - 1  # all bits but the sign
    b = tl.where(b < 0, b ^ rest, b)
    return tl.where(b == -1, 0, b)  # -0.0


@jit
def _chosen(b, inside, keep, BITS: tl.constexpr):
    """The mask (2) of one row."""
    one = tl.full((), 1, b.dtype)
    T = one << (BITS - 1)
    for n in range(BITS):
        trial = T ^ (one << (BITS - 1 - n))  # the sign bit first: from the least integer to zero
        count = tl.sum((inside & (b >= trial)).to(tl.int32), axis=0)
        T = tl.where(count >= keep, trial, T)  # (1)
    above, tied = inside & (b > T), inside & (b == T)
    room = keep - tl.sum(above.to(tl.int32), axis=0)
    return above | (tied & (tl.cumsum(tied.to(tl.int32), axis=0) <= room))


@jit
def _chosen_windows(b, inside, keep, WIDTH: tl.constexpr):
    """The mask of windows (count, WIDTH), by pairs: fewer than `keep` entries stand ahead of one that stays."""
    i, j = tl.arange(0, WIDTH)[None, :, None], tl.arange(0, WIDTH)[None, None, :]
    one, other = b[:, :, None], b[:, None, :]
    ahead = inside[:, :, None] & ((one > other) | ((one == other) & (i < j)))
    return inside & (tl.sum(ahead.to(tl.int32), axis=1) < keep)


@jit
def _combined(u0, u1, u2, c0, c1, c2, at, inside, TERMS: tl.constexpr):
    """The argument of (3)."""
    total = tl.load(u0 + at, mask=inside, other=0.0)
    if TERMS == 3:
        total = total * tl.full((), c0, total.dtype)
        total += tl.load(u1 + at, mask=inside, other=0.0) * tl.full((), c1, total.dtype)
        total += tl.load(u2 + at, mask=inside, other=0.0) * tl.full((), c2, total.dtype)
    return total


@jit
def _stored(out, at, U, kept, inside, MARK: tl.constexpr):
    """Writes the mask, or what stays of U; returns where the result is not zero."""
    if MARK:
        tl.store(out + at, kept, mask=inside)
    else:
        kept = kept & (U != 0)
        tl.store(out + at, tl.where(kept, U, 0.0), mask=inside)
    return kept


@jit
def _rows(
    out,
    counts,
    u0,
    u1,
    u2,
    c0: tl.float64,
    c1: tl.float64,
    c2: tl.float64,
    reach: tl.float64,
    keep,
    width,
    TERMS: tl.constexpr,
    PENALTY: tl.constexpr,
    MARK: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(3) for one row, or its mask alone."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < width
    at = row * width + column
    U = _combined(u0, u1, u2, c0, c1, c2, at, inside, TERMS)
    if PENALTY:
        kept = inside & (tl.abs(U) > tl.full((), reach, U.dtype))
    else:
        kept = _chosen(_ordered(U, BITS) if MARK else _ordered(tl.abs(U), BITS), inside, keep, BITS)
    kept = _stored(out, at, U, kept, inside, MARK)
    tl.store(counts + row, tl.sum(kept.to(tl.int32), axis=0))


@jit
def _windows(
    out,
    counts,
    u0,
    u1,
    u2,
    c0: tl.float64,
    c1: tl.float64,
    c2: tl.float64,
    keep,
    width,
    windows,
    TERMS: tl.constexpr,
    MARK: tl.constexpr,
    BITS: tl.constexpr,
    WIDTH: tl.constexpr,
    WINDOWS: tl.constexpr,
):
    """(3) for a tile of windows, or their mask alone."""
    tile = tl.program_id(0).to(tl.int64)
    window, column = tile * WINDOWS + tl.arange(0, WINDOWS)[:, None], tl.arange(0, WIDTH)[None, :]
    inside = (window < windows) & (column < width)
    at = window * width + column
    U = _combined(u0, u1, u2, c0, c1, c2, at, inside, TERMS)
    b = _ordered(U, BITS) if MARK else _ordered(tl.abs(U), BITS)
    kept = _stored(out, at, U, _chosen_windows(b, inside, keep, WIDTH), inside, MARK)
    tl.store(counts + tile, tl.sum(tl.sum(kept.to(tl.int32), axis=1), axis=0))


@jit
def _compared_rows(
    sums,
    z,
    Pz,
    v,
    Pv,
    W0,
    R,
    s: tl.float64,
    width,
    DRIFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(4) for one row; u(z) is written over P_z."""
    row = tl.program_id(0).to(tl.int64)
    value = tl.zeros((BLOCK,), z.dtype.element_ty)
    gain = tl.zeros((BLOCK,), z.dtype.element_ty)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < width
        at = row * width + column
        z_, Pz_ = tl.load(z + at, mask=inside, other=0.0), tl.load(Pz + at, mask=inside, other=0.0)
        v_, Pv_ = tl.load(v + at, mask=inside, other=0.0), tl.load(Pv + at, mask=inside, other=0.0)
        d = v_ - tl.load(W0 + at, mask=inside, other=0.0)
        if DRIFT:
            drift = tl.load(R + at, mask=inside, other=0.0)
            value += (Pv_ * 0.5 + drift) * d
            gain += ((Pz_ + Pv_) * 0.5 + drift) * (z_ - v_)
            Pz_ += drift
        else:
            value += Pv_ * 0.5 * d
            gain += (Pz_ + Pv_) * 0.5 * (z_ - v_)
        tl.store(Pz + at, Pz_ * tl.full((), -s, Pz_.dtype) + z_, mask=inside)
    tl.store(sums + 2 * row, tl.sum(value, axis=0))
    tl.store(sums + 2 * row + 1, tl.sum(gain, axis=0))


def serves(sparsity: Sparsity, W: Any) -> bool:
    """Whether `candidate` has a kernel for this pattern on an array like W (rows, width)."""
    if isinstance(sparsity, KeepNofM):
        return sparsity.of <= WIDEST
    return isinstance(sparsity, L0 | KeepPerRow) and W.shape[-1] <= WIDEST


def candidate(sparsity: Sparsity, terms: list[tuple[float, Any]], s: float, out: Any) -> tuple[Any, Any]:
    """prox_{sg} of one array, or of the sum of three coefficients times arrays, and its nonzeros row by row.

    Parameters
    ----------
    sparsity : a pattern that `serves`
    terms : one array with coefficient 1, or three with any
    s : step size
    out : contiguous (rows, width) array to write to; it may be one of the terms
    """
    keep, width, reach = 0, out.shape[-1], 0.0
    if isinstance(sparsity, L0):
        reach = sqrt(2 * sparsity.lam * s)
    elif isinstance(sparsity, KeepPerRow | KeepNofM):
        keep, width = sparsity.keep, sparsity.most(out.shape)
    (c0, u0), (c1, u1), (c2, u2) = terms if len(terms) == 3 else terms * 3
    counts = _launched(out, (u0, u1, u2), (c0, c1, c2), keep, width, len(terms), reach, isinstance(sparsity, L0))
    return out, counts


def marked(scores: Any, keep: int) -> Any:
    """The mask of the `keep` largest scores along the last axis, at most `WIDEST` wide; ties to the lower index."""
    out = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    _launched(out, (scores,) * 3, (1.0,) * 3, keep, scores.shape[-1], 1, mark=True)
    return out


def compared(z: Any, Pz: Any, v: Any, Pv: Any, W0: Any, R: Any, s: float) -> tuple[float, float]:
    """The two sums (4), rows added in float64; u(z) is written over Pz. z and Pz may be v and Pv."""
    width = z.shape[-1]
    rows = z.numel() // width
    sums = torch.empty((rows, 2), dtype=z.dtype, device=z.device)
    block = min(CHUNK, _power(width))
    with _device(z):
        _compared_rows[(rows,)](
            sums, z, Pz, v, Pv, W0, W0 if R is None else R, s, width, R is not None, block, **_options(block, 512)
        )
    value, gain = total(sums).tolist()
    return value, gain


def total(rows: Any) -> Any:
    """Sums of rows, or their counts, added up in float64."""
    return torch.sum(rows, dim=0, dtype=torch.float64)


def _launched(
    out: Any,
    u: tuple[Any, Any, Any],
    c: tuple[float, float, float],
    keep: int,
    width: int,
    terms: int,
    reach: float = 0.0,
    penalty: bool = False,
    mark: bool = False,
) -> Any:
    windows, block, bits = out.numel() // width, _power(width), 8 * u[0].element_size()
    with _device(out):
        if width > WINDOW or penalty:
            counts = torch.empty(windows, dtype=torch.int32, device=out.device)
            shape = terms, penalty, mark, bits, block
            _rows[(windows,)](out, counts, *u, *c, reach, keep, width, *shape, **_options(block, 1024))
        else:
            tile = TILE // block**2
            tiles = triton.cdiv(windows, tile)
            counts = torch.empty(tiles, dtype=torch.int32, device=out.device)
            shape = terms, mark, bits, block, tile
            _windows[(tiles,)](out, counts, *u, *c, keep, width, windows, *shape, **_options(TILE, 1024))
    return counts


def _options(block: int, entries: int) -> dict[str, Any]:
    """Warps for this many entries each, and products rounded before they are added, as in the array text."""
    return {"num_warps": min(32, max(1, block // entries)), "enable_fp_fusion": False}


def _power(width: int) -> int:
    """The least power of two that is not below the width."""
    return 1 << (width - 1).bit_length()


def _device(array: Any) -> Any:
    return torch.cuda.device(array.device) if array.is_cuda else nullcontext()
