"""What tests of all five packages share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Triton is imported: its kernels run interpreted, on NumPy, where there is no device to compile them for.
os.environ.setdefault("TRITON_INTERPRET", str(int(not Path("/dev/nvidiactl").exists())))

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a name that is nowhere is asked for six times in half a minute

# isort: off
import llm_pipeline.waiting  # noqa: F401 - before NumPy and torch start their threads

# isort: on
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=20, **CALM)
settings.register_profile("ci", max_examples=40, derandomize=True, print_blob=True, **CALM)
settings.register_profile("night", max_examples=10_000, **CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A skipped GPU test is counted, so that nobody takes it for a passed one."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "no CUDA device" in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} GPU tests skipped: no CUDA device")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with `data/` and `models/`: `PRUNING_DATA`, else `../shared` beside the repository root."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("PRUNING_DATA", beside))
    if not ((folder / "data").is_dir() and (folder / "models").is_dir()):
        pytest.skip("no folder with data/ and models/: set PRUNING_DATA")
    return folder


@dataclass(frozen=True)
class Backend:
    """An array library: how NumPy values become its arrays, and come back."""

    name: str
    array: Callable[..., Any]
    numpy: Callable[[Any], np.ndarray]


def _read_only(values: np.ndarray, dtype: str = "float64") -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


def _numpy() -> Backend:
    return Backend("numpy", lambda values, dtype="float64": np.array(values, dtype=dtype), np.asarray)


def _numpy_read_only() -> Backend:
    return Backend("numpy read-only", _read_only, np.asarray)


def _strict() -> Backend:
    xp = pytest.importorskip("array_api_strict")
    return Backend("array-api-strict", lambda v, dtype="float64": xp.asarray(v, dtype=getattr(xp, dtype)), np.asarray)


def _torch(device: str) -> Backend:
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return Backend(
        f"torch {device}",
        lambda v, dtype="float64": torch.tensor(v, dtype=getattr(torch, dtype), device=device),
        lambda a: a.cpu().numpy(),
    )


def _cupy() -> Backend:
    cupy = pytest.importorskip("cupy", reason="no CUDA device: cupy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    return Backend("cupy", lambda v, dtype="float64": cupy.asarray(v, dtype=dtype), cupy.asnumpy)


@pytest.fixture(
    params=[
        pytest.param(_numpy, id="numpy"),
        pytest.param(_numpy_read_only, id="numpy-read-only"),
        pytest.param(_strict, id="array-api-strict"),
        pytest.param(lambda: _torch("cpu"), id="torch-cpu"),
        pytest.param(lambda: _torch("cuda"), id="torch-cuda", marks=pytest.mark.gpu),
        pytest.param(_cupy, id="cupy", marks=pytest.mark.gpu),
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every array library that the solvers accept; those that need a device are skipped without one."""
    made: Backend = request.param()
    return made
