"""The kernels under pytest-benchmark: every act has statistics in its JSON, and is waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bench_kernels, kernels

ROOT = Path(__file__).resolve().parents[2]


def test_every_act_is_stored_with_its_statistics(tmp_path: Path) -> None:
    command = ("-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "benchmarks/bench_kernels.py")
    options = ("--kernel-shapes", "8x16", "--benchmark-json", str(tmp_path / "kernels.json"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    ran = subprocess.run(
        [sys.executable, *command, *options], cwd=ROOT, env=clean, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "kernels.json").read_text())["benchmarks"]
    told = {(row["extra_info"]["library"], row["extra_info"]["act"]) for row in found}
    both = {act for act in bench_kernels.ACTS if "mask" not in act and "copy" not in act}
    assert told == {*(("numpy", act) for act in both), *(("torch", act) for act in bench_kernels.ACTS)}
    assert all(row["stats"]["rounds"] == kernels.ROUNDS and row["stats"]["median"] > 0 for row in found)
    assert {row["group"] for row in found} == {"8 x 16, numpy", "8 x 16, torch"}


def test_an_act_ends_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(bench_kernels, "wait", order.append)
    bench_kernels._done(lambda: order.append("act"), "cuda:1")
    assert order == ["act", "cuda:1"]
