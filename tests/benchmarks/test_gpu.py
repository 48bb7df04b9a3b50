"""The benchmark of a device, every line of it run on the CPU at tiny shapes; its clock, its limit, its command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import clock, device, gpu
from benchmarks.__main__ import app
from benchmarks.llama_block import LAYERS
from benchmarks.records import append, read

ROOT = Path(__file__).resolve().parents[2]
SCALE = 128
KINDS = ("radix passes", "torch.topk", "candidate", "sums", "maiht step")


@pytest.fixture(scope="module")
def records() -> list[dict]:
    return list(gpu.measure(device="cpu", scale=SCALE, rounds=2))


def test_the_devices_own_rates_come_first(records: list[dict]) -> None:
    assert [r["what"] for r in records[:5]] == ["copy", "gemm fp32", "gemm tf32", "gemm bf16", "gemm fp64"]
    copy, product = records[:2]
    assert copy["rate"] == copy["bytes"] / copy["seconds"]["min"]
    assert product["rate"] == 2 * product["shape"][0] ** 3 / product["seconds"]["min"]


def test_every_shape_is_a_share_of_its_roof(records: list[dict]) -> None:
    roofs = {r["what"]: r["rate"] for r in records[:5]}
    shares = [r for r in records if "share" in r]
    assert len(shares) == len(gpu.SHAPES) * (3 + len(KINDS))
    for r in shares:
        (out, inputs), work = r["shape"], r.get("flops", r.get("bytes"))
        assert r["share"] == work / r["seconds"]["min"] / roofs[r["of"]]
        each = {"candidate": 16, "sums": 24, "maiht step": 4 * inputs}.get(r["what"], 5)
        assert work == each * out * inputs
    assert {r["what"] for r in shares if not r["what"].startswith("mask")} == set(KINDS)
    assert [tuple(r["shape"]) for r in shares if r["what"] == "sums"] == [(32, 32), (96, 32), (172, 32), (32, 84)]


def test_a_layer_is_judged_on_the_host_and_where_cupy_is_on_the_device(records: list[dict]) -> None:
    [judged] = [r for r in records if r.get("what", "").startswith("judging on ")]
    assert (judged["what"], judged["why"]) == ("judging on cpu", "")
    assert judged["certificates"]["fails"] == 0 < judged["certificates"]["holds"]
    assert judged["seconds"]["min"] > 0


def test_the_block_is_solved_and_its_certificates_are_counted(records: list[dict]) -> None:
    layers = [r for r in records if r.get("what") == "layer of a block"]
    assert [r["layer"] for r in layers] == [name for name, _ in LAYERS]
    assert len({tuple(r["shape"]) for r in layers}) == 3
    assert all(r["certificates"]["fails"] == 0 < r["certificates"]["holds"] for r in layers)
    assert all(0 < r["relative_error"] < 1 and r["iterations"] > 1 for r in layers)
    whole = records[-2]
    assert (whole["layers"], whole["of"]) == (7, 7)
    assert whole["certificates"]["holds"] == sum(r["certificates"]["holds"] for r in layers)
    assert whole["seconds"]["min"] == pytest.approx(sum(r["seconds"]["min"] for r in layers))
    assert records[-1]["skipped"] == []
    assert records[-1]["peak_bytes"] > 0


def test_every_record_names_the_device_and_can_be_kept(records: list[dict], tmp_path: Path) -> None:
    for record in records:
        append(tmp_path / "gpu.jsonl", record)
    assert read([tmp_path / "gpu.jsonl"]) == records
    assert all(r["device"]["name"] == "cpu" and r["device"]["threads"] > 0 for r in records)
    lines = list(gpu.told(records))
    assert len(lines) == len(records)
    assert "% of gemm fp32" in "".join(lines)


@pytest.mark.parametrize("done", [0, 3, 6])
def test_it_stops_between_two_measurements_and_says_what_was_skipped(monkeypatch, records, done: int) -> None:
    asked = iter(range(1000))
    monkeypatch.setattr(clock.Limit, "reached", lambda self: next(asked) >= done)
    found = list(gpu.measure(device="cpu", scale=SCALE, rounds=1))
    assert [r.get("what") for r in found[:-1]] == [r["what"] for r in records[:done]]
    assert found[-1]["done"] == done
    assert len(found[-1]["skipped"]) == len(records) - 1 - done
    assert "no time for:" in list(gpu.told(found))[-1]


def test_the_limit_is_in_minutes(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=None))
    limit = clock.Limit(2.0)
    now[0] += 119
    assert not limit.reached()
    now[0] += 1
    assert limit.reached()


def test_a_first_round_is_not_counted_and_statistics_are_of_the_others(monkeypatch) -> None:
    readings, acts = iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0]), []
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    found = clock.timed(lambda: acts.append(1), "cpu", 3)
    assert len(acts) == 4
    assert found == {"min": 1.0, "median": 2.0, "mean": 2.0, "stddev": 1.0, "rounds": 3}


def test_a_cuda_device_is_timed_between_events_of_its_stream(monkeypatch) -> None:
    """A clock of the host would time the launch alone."""
    seen: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            seen.append("event")

        def synchronize(self) -> None:
            seen.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append("idle"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    found = clock.timed(lambda: seen.append("act"), "cuda:0", 1)
    assert seen == ["act", "idle", "event", "act", "event", "wait"]
    assert found["min"] == 0.25


def test_the_precision_of_products_is_set_for_one_product_and_restored() -> None:
    before = torch.get_float32_matmul_precision()
    with device.products("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_a_device_tells_its_name_driver_and_versions(monkeypatch) -> None:
    told = SimpleNamespace(name="H", major=9, minor=0, multi_processor_count=132, total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: told)
    monkeypatch.setattr(device.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout="580.1\n"))
    found = device.about.__wrapped__("cuda")
    assert (found["name"], found["capability"], found["gib"], found["driver"]) == ("H", "9.0", 80.0, "580.1")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda name: 7)
    assert device.peak_bytes("cuda") == 7
    monkeypatch.setattr(device.subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(OSError()))
    assert device.about.__wrapped__("cuda")["driver"] is None


def invoke(*words: str):
    return CliRunner().invoke(app, ["run", *words])


def test_without_a_device_it_says_so_and_leaves_with_0(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = invoke("gpu", "--out", str(tmp_path / "gpu.jsonl"))
    assert (found.exit_code, found.stdout) == (0, "no CUDA device: 0 GPU checks run\n")
    assert not (tmp_path / "gpu.jsonl").exists()


def test_the_command_writes_one_file_of_records(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    found = invoke("gpu", "--device", "cpu", "--scale", str(SCALE), "--minutes", "0", "--out", str(path))
    assert found.exit_code == 0, found.output
    (record,) = read([path])
    assert record["done"] == 0
    assert record["skipped"][:2] == ["copy", "gemm fp32"]
    assert "0 measurements" in found.stdout


@pytest.mark.parametrize("words", [("--device", "cpu"), ("--scale", "2"), ("--minutes", "1")])
def test_another_benchmark_does_not_read_its_options(words: tuple[str, str]) -> None:
    found = invoke("kernels", *words)
    assert found.exit_code == 2
    assert words[0] in found.stderr


@pytest.mark.skipif(torch.cuda.is_available() or not shutil.which("make"), reason="make, on a machine without a device")
def test_make_gpu_needs_no_environment_of_its_own() -> None:
    command = ["make", "gpu", "GPU_ENV=none", f"PYTHON={sys.executable}"]
    alone = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "no CUDA device: 0 GPU checks run\n"), done.stderr
    steps = subprocess.run([*command, "-n"], cwd=ROOT, env=alone, capture_output=True, text=True).stdout
    assert ".venv" not in steps.replace(sys.executable, "")
    minutes = float(steps.split("--minutes ")[1].split()[0]) + float(steps.split("timeout ")[1].split()[0]) / 60
    assert minutes <= 9
