"""Runs on Ray: the bytes of one process, also where workers or the run itself are killed in the middle of a block."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llm_pipeline.dispatch import Failed, Lost
from solvers.refusal import Refusal

ROOT = Path(__file__).resolve().parents[2]
LLAMA = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}
LONG = ("--method", "maiht", "--set", "iters=600", "--inputs", "dense")  # seconds a block
PATIENCE = 300.0
VARYING = ("predicted", "engine")  # fields of the summary beside its times

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'certified-pruning[ray]'"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sharded model `llama` in bfloat16 and tokens `ids.npy`."""
    folder = tmp_path_factory.mktemp("ray")
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **LLAMA)).to(torch.bfloat16)
    model.save_pretrained(folder / "llama", max_shard_size="20KB")
    np.save(folder / "ids.npy", np.random.default_rng(3).integers(0, 97, size=(4, 32)))
    return folder


class Process:
    """A command line of the pipeline in a process of its own, one thread each."""

    def __init__(self, folder: Path, *words: str) -> None:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
        self.log = folder / "log"
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "llm_pipeline", *words]
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(2 * PATIENCE)

    def until(self, there: Callable[[], Any]) -> Any:
        """Wait for something to be there while the process runs."""
        give_up = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < give_up:
            if found := there():
                return found
            time.sleep(0.05)
        raise AssertionError(f"it never was, and the process said: {self.log.read_text()}")

    def busy(self) -> list[int]:
        """Workers of this run that are in the middle of a block."""
        return [process for process in self.family() if command_of(process).startswith("ray::prune_alone")]

    def family(self) -> list[int]:
        """The processes that this one started, and theirs."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                children.setdefault(int(path.read_text().rpartition(") ")[2].split()[1]), []).append(
                    int(path.parent.name)
                )
        found = list(children.get(self.process.pid, []))
        for process in found:
            found += children.get(process, [])
        return found


def command_of(process: int) -> str:
    """What a process is called; nothing once it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Process]]:
    """`start(*words)` runs a command line; what still runs at the end of a test is stopped."""
    started: list[Process] = []

    def run(*words: str) -> Process:
        started.append(Process(home, *words))
        return started[-1]

    yield run
    for process in started:
        process.process.kill()
        process.process.wait()


def asked(out: str, *options: str) -> tuple[str, ...]:
    return ("prune", "llama", "--calibration", "ids.npy", "--out", out, *LONG, *options)


def engine(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())["engine"]


@pytest.fixture(scope="module")
def expected(contents: Callable, home: Path) -> dict[str, Any]:
    """What one process writes."""
    process = Process(home, *asked("alone"))
    assert process.wait() == 0, process.log.read_text()
    assert engine(home / "alone") == {"name": "in-process", "workers": 1}
    return contents(home / "alone", VARYING)


def test_workers_on_one_machine_write_the_bytes_of_one_process(
    contents: Callable, home: Path, expected: dict[str, Any], start: Callable[..., Process]
) -> None:
    process = start(*asked("beside", "--engine", "ray", "--json"))
    if len(os.sched_getaffinity(0)) > 1:
        process.until(lambda: len(process.busy()) > 1)
    assert process.wait() == 0, process.log.read_text()
    assert contents(home / "beside", VARYING) == expected
    assert engine(home / "beside")["workers"] == len(os.sched_getaffinity(0))
    assert engine(home / "beside")["workers_lost"] == 0
    assert json.loads(process.log.read_text())["out"] == "beside"  # Ray says nothing


def test_a_worker_that_is_killed_in_the_middle_of_a_block_changes_nothing(
    contents: Callable, home: Path, expected: dict[str, Any], start: Callable[..., Process]
) -> None:
    process = start(*asked("wounded", "--engine", "ray", "--json"))
    [worker, *_] = process.until(process.busy)
    os.kill(worker, signal.SIGKILL)
    [worker, *_] = process.until(process.busy)
    os.kill(worker, signal.SIGKILL)
    assert process.wait() == 0, process.log.read_text()
    assert contents(home / "wounded", VARYING) == expected
    assert engine(home / "wounded")["workers_lost"] >= 1
    assert json.loads(process.log.read_text())["out"] == "wounded"


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 3)])
@pytest.mark.parametrize("going_on", ["in-process", "ray"])
def test_a_run_that_is_killed_goes_on_under_either_engine(
    contents: Callable,
    how: signal.Signals,
    code: int,
    going_on: str,
    home: Path,
    expected: dict[str, Any],
    start: Callable[..., Process],
) -> None:
    out = f"killed-{how.name}-{going_on}"
    process = start(*asked(out, "--engine", "ray"))
    process.until((home / f"{out}.partial/.run/block-0.json").is_file)
    family = process.until(process.family)
    process.process.send_signal(how)
    assert process.wait() == code, process.log.read_text()
    give_up = time.monotonic() + PATIENCE
    while any("ray" in command_of(member) for member in family) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert not [command_of(member) for member in family if "ray" in command_of(member)]
    resumed = start("resume", out, "--engine", going_on)
    assert resumed.wait() == 0, resumed.log.read_text()
    assert contents(home / out, VARYING) == expected


def test_an_error_of_a_worker_arrives_as_it_was_and_a_death_as_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import exceptions

    from llm_pipeline import ray_engine

    def outcome(error: Exception) -> Any:
        def get(task: str) -> None:
            raise error

        crew = object.__new__(ray_engine.Crew)
        crew._running = {"task": 3}
        fake = SimpleNamespace(wait=lambda tasks, num_returns: (tasks, []), get=get)
        monkeypatch.setattr(ray_engine, "ray", fake)
        i, found = crew.next()
        assert (i, crew._running) == (3, {})
        return found

    failed = outcome(exceptions.RayTaskError("prune_alone", "line 7", Refusal("planted.")).as_instanceof_cause())
    assert (type(failed.error), str(failed.error)) == (Refusal, "planted.")
    assert "line 7" in failed.error.__notes__[0]
    assert isinstance(outcome(exceptions.RayTaskError("prune_alone", "line 7", KeyError(1))), Failed)
    assert outcome(exceptions.WorkerCrashedError()) == Lost("its worker died")
    assert outcome(exceptions.OutOfMemoryError("of memory")) == Lost("its worker ran out of memory")
    assert outcome(exceptions.RaySystemError("odd")).reason.startswith("RaySystemError: ")
