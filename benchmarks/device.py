"""What a device can do at most: bytes that a copy moves and multiplications in a second, and what the device is."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

import torch

from benchmarks.clock import timed
from benchmarks.records import Record, make_record

COPIED = 1 << 28  # float32 numbers, 1 GiB
GEMM = 8192  # side of the matrices
PRECISIONS = {
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "bf16": (torch.bfloat16, "highest"),
    "fp64": (torch.float64, "highest"),
}


@cache
def about(device: str) -> dict[str, Any]:
    """Name, memory, driver and versions of a device, for its records."""
    versions = {name: _version(name) for name in ("triton", "cupy-cuda13x", "cupy-cuda12x")}
    told = {name: version for name, version in versions.items() if version}
    if not device.startswith("cuda"):
        return {"name": "cpu", "threads": torch.get_num_threads(), **told}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "gib": round(found.total_memory / 2**30, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        **told,
    }


def bandwidth(device: str, scale: int, rounds: int) -> Record:
    """Bytes a second, read and written, of a copy from the device to itself."""
    source = torch.ones(COPIED // scale**2, device=device)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), device, rounds)
    rate = 2 * source.nbytes / seconds["min"]
    return make_record("gpu", what="copy", device=about(device), seconds=seconds, bytes=2 * source.nbytes, rate=rate)


def gemm(precision: str, device: str, scale: int, rounds: int) -> Record:
    """Floating-point operations a second of a square product of standard normal matrices."""
    dtype, size = PRECISIONS[precision][0], max(16, GEMM // scale)
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, device=device, dtype=torch.float32).to(dtype) for _ in "ab")
    out = torch.empty_like(a)
    with products(precision):
        seconds = timed(lambda: torch.matmul(a, b, out=out), device, rounds)
    facts = {"shape": [size] * 3, "seconds": seconds, "flops": 2 * size**3, "rate": 2 * size**3 / seconds["min"]}
    return make_record("gpu", what=f"gemm {precision}", device=about(device), **facts)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """How float32 products are taken for a precision of `PRECISIONS`; what was set is restored."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(PRECISIONS[precision][1])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def peak_bytes(device: str) -> int:
    """The most memory that was allocated on the device since the process began; on the CPU, resident."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    except OSError:
        return None
    return said[0] if said else None
