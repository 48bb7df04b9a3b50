"""How fast a machine does each kind of work: measured in under three seconds, or taken from a data sheet.

A published peak is multiplied by the share of it that large products reach (`REACHED`); elementwise work is bound by
memory. Of the measured rate of an operation alone a run reaches `SHARE`: its operands come from memory, not from a
cache. Sources: NVIDIA data sheets of A100 (SXM, 2021), H100 (SXM, 2023) and GeForce RTX 4090 (Ada, 2022), dense rates
without sparsity and without TF32, float64 by tensor cores where there are any; host: 16 cores of 2.5 GHz with two
256-bit FMA units, four memory channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.linalg
import torch

from solvers.methods import near
from solvers.refusal import Refusal
from solvers.sparsity import largest

REACHED = 0.75
SHARE = 0.65  # 0.48 to 0.82 in 8 runs on the embedded model, one thread, processor time
DISK = 1e9  # bytes a second; nothing is written to find out
SENT = 6e9  # bytes a second from memory that is not pinned to a device, assumed
SPENT = 0.06  # seconds of one measurement
WIDEST, ROWS = 1024, 2048


@dataclass(frozen=True)
class Rates:
    """Amounts a second, by the kinds of `work.Work`, and what memory there is.

    Attributes
    ----------
    name : of the device
    measured : False where the rates are published ones
    device_bytes : memory of the GPU, None without one
    """

    name: str
    measured: bool
    forward: float
    gram: float
    fast: float
    wide: float
    product: float
    factor: float
    passes: float
    selections: float
    moved: float
    calls: float = 5e5
    disk: float = DISK
    sent: float = SENT
    hashed: float = 1e9
    device_bytes: int | None = None


HOST = Rates(
    "cpu",
    measured=False,
    forward=REACHED * 16 * 80e9,
    gram=REACHED * 16 * 80e9,
    fast=REACHED * 16 * 80e9,
    wide=REACHED * 16 * 40e9,
    product=REACHED * 16 * 40e9,
    factor=0.5 * 16 * 40e9,
    passes=1.2e9,  # one thread: 24 bytes an entry
    selections=1e8,
    moved=128e9,
)


def _gpu(name: str, gib: int, half: float, single: float, double: float, memory: float) -> Rates:
    single *= REACHED
    return replace(
        HOST,
        name=name,
        forward=REACHED * half,
        gram=single,
        fast=single,
        wide=REACHED * double,
        moved=REACHED * memory,
        device_bytes=gib * 2**30,
    )


PUBLISHED = {
    "cpu": HOST,
    "4090": _gpu("RTX 4090, 24 GB", 24, 165e12, 82.6e12, 1.29e12, 1.01e12),
    "a100-40gb": _gpu("A100, 40 GB", 40, 312e12, 19.5e12, 19.5e12, 1.55e12),
    "a100": _gpu("A100, 80 GB", 80, 312e12, 19.5e12, 19.5e12, 2.04e12),
    "h100": _gpu("H100, 80 GB", 80, 989e12, 67e12, 67e12, 3.35e12),
}


def published(name: str, dtype: torch.dtype) -> Rates:
    """The rates of a machine that is not here, for forward passes in that dtype."""
    if name not in PUBLISHED:
        raise Refusal(f"--as-if is one of {', '.join(PUBLISHED)}; got '{name}'.{near(name, PUBLISHED)}")
    rates = PUBLISHED[name]
    return rates if dtype.itemsize == 2 else replace(rates, forward=rates.gram)


@lru_cache
def measured(device: str, dtype: torch.dtype, rows: int, inputs: int, sample: Path | None = None) -> Rates:
    """Rates of this machine on layers of `rows` outputs and `inputs` inputs, cut to 2048 x 1024 on the host.

    Parameters
    ----------
    dtype : of the forward pass
    sample : a weight file from which reading is timed; 1 GB/s where there is none
    """
    cuda = torch.device(device).type == "cuda"
    m, n = min(rows, ROWS), min(inputs, WIDEST)
    wide, tokens = (min(inputs, 8192), 8192) if cuda else (n, 1024)
    draw = np.random.default_rng(0)
    W, H = draw.standard_normal((m, n)), np.cov(draw.standard_normal((n, 2 * n))) + np.eye(n)
    x, X = (torch.randn(tokens, wide, device=device).to(t) for t in (dtype, torch.float32))
    A = torch.randn(wide, wide, device=device).to(dtype)

    def rate(amount: float, call: Callable[[], object]) -> float:
        return SHARE * amount / _seconds(call, device if cuda else "cpu")

    def there() -> float:
        W64, H64 = (torch.from_numpy(array).to(device) for array in (W, H))
        return rate(2.0 * m * n**2, lambda: W64 @ H64)

    product = rate(2.0 * m * n**2, lambda: W @ H)
    return Rates(
        name=torch.cuda.get_device_name(device) if cuda else "cpu",
        measured=True,
        forward=rate(2.0 * tokens * wide**2, lambda: x @ A),
        gram=rate(2.0 * tokens * wide**2, lambda: X.T @ X),
        fast=rate(2.0 * tokens * wide**2, lambda: X @ A.to(torch.float32)),
        wide=there() if cuda else product,  # the host multiplies float64 by NumPy; torch's buffers for it would stay
        product=product,
        factor=rate(n**3 / 3, lambda: scipy.linalg.cholesky(H, lower=True, check_finite=False)),
        passes=rate(W.size, lambda: np.subtract(W, 1.0)),
        selections=rate(W.size, lambda: largest(np.abs(W), n // 2)),
        moved=rate(3.0 * x.nbytes, lambda: x + x),
        disk=_disk(sample),
        sent=rate(W.nbytes, lambda: torch.from_numpy(W).to(device, copy=True)) if cuda else SENT,
        hashed=rate(W.nbytes, lambda: _digest(W)),
        device_bytes=torch.cuda.get_device_properties(device).total_memory if cuda else None,
    )


def _digest(array: np.ndarray) -> None:
    import hashlib

    hashlib.sha256(array).digest()


def _seconds(call: Callable[[], object], device: str) -> float:
    """Mean seconds of one call after one that is not counted; what other programs take of the machine is in it."""
    call()
    begin, calls = time.perf_counter(), 0
    while calls < 1 or (time.perf_counter() - begin < SPENT and calls < 1000):
        call()
        if device != "cpu":
            torch.cuda.synchronize(device)
        calls += 1
    return (time.perf_counter() - begin) / calls


def _disk(sample: Path | None) -> float:
    if sample is None or not sample.is_file():
        return DISK
    begin, size = time.perf_counter(), 0
    with sample.open("rb") as file:
        while time.perf_counter() - begin < SPENT and (piece := file.read(2**22)):
            size += len(piece)
    return max(size, 1) / (time.perf_counter() - begin)
