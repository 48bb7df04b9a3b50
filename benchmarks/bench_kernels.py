"""The acts of `benchmarks.kernels` one by one under pytest-benchmark, whose statistics and JSON files they take.

    python -m pytest benchmarks/bench_kernels.py --benchmark-json runs/kernels.json
    python -m pytest benchmarks/bench_kernels.py --kernel-device cuda --benchmark-autosave --benchmark-compare

An act ends when the device has done it. The acts of a layer share a group, with the products that are their roofline.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from benchmarks import kernels
from benchmarks.clock import wait

Sides = dict[str, Callable[[], object]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for every layer and library, as the options ask."""
    device = metafunc.config.getoption("--kernel-device")
    shapes = metafunc.config.getoption("--kernel-shapes").split(",")
    chosen = [(tuple(map(int, shape.split("x"))), place) for shape in shapes for place in kernels.places(device)]
    names = [f"{'x'.join(map(str, shape))}-{kernels.library(place)}" for shape, place in chosen]
    metafunc.parametrize("sides", chosen, ids=names, indirect=True, scope="module")
    metafunc.parametrize("act", ACTS)


@pytest.fixture(scope="module")
def sides(request: pytest.FixtureRequest) -> tuple[Any, Sides]:
    """A layer and place, and its acts by name, the products and what the masks are compared with among them."""
    (shape, place), device = request.param, request.config.getoption("--kernel-device")
    problem = kernels.layer(*shape, seed=0)
    pairs = kernels.acts(problem, place, 0, device)
    return request.param, {name: act for pair in pairs for name, act in pair}


ACTS = (
    *("2 products with the Gram", "maiht twin", "1 products with the Gram", "iht twin", "maiht reference, float64"),
    *("admm twin, a run", "6 products with the Gram", "sparsegpt twin, a run", "a copy of the scores"),
    "mask KeepNofM(keep=2, of=4)",
)


def test_act(benchmark: Any, sides: tuple[Any, Sides], act: str, request: pytest.FixtureRequest) -> None:
    """Seconds of one act, after one that is not counted."""
    ((shape, place), by_name), device = sides, request.config.getoption("--kernel-device")
    if act not in by_name:
        pytest.skip(f"{kernels.library(place)} has no {act}")
    benchmark.group = f"{shape[0]} x {shape[1]}, {kernels.library(place)}"
    benchmark.extra_info |= {"act": act, "shape": list(shape), "device": device, "library": kernels.library(place)}
    benchmark.pedantic(partial(_done, by_name[act], device), rounds=kernels.ROUNDS, warmup_rounds=1)


def _done(act: Callable[[], object], device: str) -> None:
    act()
    wait(device)
