"""Runs that are killed anywhere and go on: the same bytes as a run that was let alone."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from llm_pipeline.__main__ import app

VARYING = ("hidden_states", "predicted")  # fields of the summary beside its times
KILLED = -signal.SIGKILL
LLAMA = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
WANDA = ("--method", "wanda")
MAIHT = ("--method", "maiht", "--set", "iters=8", "--refine", "gradient:2", "--text", "ids.npy")


class Server:
    """Processes that run command lines, see dying.py; imports are paid once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = Path(__file__).with_name("dying.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._server = subprocess.Popen([sys.executable, program], cwd=folder, text=True, **pipes)

    def start(self, *words: str, **options: Any) -> int:
        """Start a command line; returns its process number."""
        asked = {"words": words, "log": str(self.folder / "log"), **options}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """The exit code of what was started; minus nine where it was killed."""
        return self._answer()

    def run(self, *words: str, **options: Any) -> int:
        """Run a command line to its end."""
        self.start(*words, **options)
        return self.wait()

    @property
    def said(self) -> str:
        """What the last process printed."""
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """End the server."""
        self._server.communicate()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in a folder with a sharded, tied model `llama` in bfloat16 and tokens `ids.npy`."""
    folder = tmp_path_factory.mktemp("resume")
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **LLAMA)).to(torch.bfloat16)
    model.save_pretrained(folder / "llama", max_shard_size="20KB")
    np.save(folder / "ids.npy", np.random.default_rng(3).integers(0, 97, size=(4, 32)))
    server = Server(folder)
    yield server
    server.close()


def asked(out: Path | str, *options: str) -> tuple[str, ...]:
    return ("prune", "llama", "--calibration", "ids.npy", "--out", str(out), *options)


@pytest.fixture(scope="module")
def alone(server: Server) -> Callable[..., Path]:
    """`alone(*options)` is a run with these options that was let alone; made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*options: str) -> Path:
        if options not in made:
            out = server.folder / f"alone{len(made)}"
            code = server.run(*asked(out, *options), events=f"{out}.events")
            assert code == 0, server.said
            made[options] = out
        return made[options]

    return run


def go_on(server: Server, out: Path, *options: str, **more: Any) -> int:
    """Resume, or prune where the kill came before the run had begun."""
    begun = (out.with_name(f"{out.name}.partial") / ".run" / "run.json").is_file() or out.exists()
    return server.run(*(("resume", str(out)) if begun else asked(out, *options)), **more)


def kinds(events: Path) -> dict[str, list[int]]:
    """Numbers of the writes of a run, by what is written how."""
    found: dict[str, list[int]] = {}
    for n, line in enumerate(events.read_text().replace(events.stem, "OUT").splitlines(), 1):
        found.setdefault(re.sub(r"-?\d+(-of-\d+)?", "-N", line), []).append(n)
    return found


def assert_dies_and_goes_on(contents: Callable, server: Server, die: int, expected: Path, *options: str) -> None:
    out = server.folder / "killed"
    assert server.run(*asked(out, *options), die=die) == KILLED, server.said
    assert go_on(server, out, *options) == 0, server.said
    assert contents(out, VARYING) == contents(expected, VARYING)
    assert not out.with_name(f"{out.name}.partial").exists()
    shutil.rmtree(out)


KINDS = [
    "copy model-N.safetensors.writing",
    "write run.json.writing",
    "name run.json",
    "write model-N.safetensors",
    "flush model-N.safetensors",
    "write block-N.json.writing",
    "name block-N.json",
    "write certificates.jsonl.writing",
    "name OUT",
    "remove .run",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_inside_a_write(contents: Callable, kind: str, server: Server, alone: Callable[..., Path]) -> None:
    expected = alone(*WANDA)
    numbers = kinds(Path(f"{expected}.events"))[kind]
    assert_dies_and_goes_on(contents, server, numbers[len(numbers) // 2], expected, *WANDA)


@pytest.mark.slow
@pytest.mark.parametrize("options", [MAIHT, (*WANDA, "--hidden", "disk")], ids=["maiht, perplexity", "hidden on disk"])
def test_a_kill_inside_every_kind_of_write(
    contents: Callable, options: tuple[str, ...], server: Server, alone: Callable[..., Path]
) -> None:
    expected = alone(*options)
    found = kinds(Path(f"{expected}.events"))
    assert len(found) > 45
    for numbers in found.values():
        assert_dies_and_goes_on(contents, server, numbers[len(numbers) // 2], expected, *options)


def kill(process: int) -> None:
    """Kill -9, unless it has just ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def killed_at_random(server: Server, seconds: float, out: Path, *options: str) -> None:
    """Kill the run at a random instant, again and again and later and later, until it has ended."""
    instants, kills = random.Random(7), 0
    for attempt in range(50):
        begun = out.with_name(f"{out.name}.partial").joinpath(".run", "run.json").is_file() or out.exists()
        process = server.start(*(("resume", str(out)) if begun else asked(out, *options)))
        time.sleep(instants.uniform(0.3, 0.6 + 0.1 * attempt) * seconds)
        kill(process)
        code = server.wait()
        assert code in (0, KILLED), server.said
        kills += code == KILLED
        if code == 0:
            assert kills > 1
            return
    raise AssertionError("fifty kills, and no end")


def timed(server: Server, *options: str) -> float:
    """Seconds of a run."""
    start = time.perf_counter()
    assert server.run(*asked("timed", *options)) == 0, server.said
    shutil.rmtree(server.folder / "timed")
    return time.perf_counter() - start


@pytest.mark.parametrize("instants", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_instants(
    contents: Callable, instants: int, server: Server, alone: Callable[..., Path]
) -> None:
    expected, chance = alone(*WANDA), random.Random(instants)
    seconds, killed, out = timed(server, *WANDA), 0, server.folder / "random"
    while killed < instants:
        process = server.start(*asked(out, *WANDA))
        time.sleep(chance.uniform(0.2, 0.9) * seconds)
        kill(process)
        if server.wait() == KILLED:
            killed += 1
            assert go_on(server, out, *WANDA) == 0, server.said
        assert contents(out, VARYING) == contents(expected, VARYING)
        shutil.rmtree(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        (*MAIHT, "--hidden", "disk"),
        ("--method", "wanda", "--allocate", "owl", "--sparsity", "50%/layer"),
        ("--method", "fista", "--set", "iters=5", "--error-correction", "block", "--inputs", "dense"),
        ("--method", "wanda", "--dtype", "float32", "--sparsity", "2:4", "--swaps", "2"),
    ],
    ids=["disk", "owl", "dense inputs", "another dtype"],
)
def test_many_kills_of_one_run(
    contents: Callable, options: tuple[str, ...], server: Server, alone: Callable[..., Path]
) -> None:
    expected, out = alone(*options), server.folder / "many"
    killed_at_random(server, timed(server, *options), out, *options)
    assert contents(out, VARYING) == contents(expected, VARYING)
    shutil.rmtree(out)


def _state(process: int) -> str:
    """What a process does, as the system writes it: R runs, S sleeps, T was stopped."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize("sent", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)], ids=["Ctrl-C", "terminated"])
def test_an_interruption_says_how_to_go_on_and_is_alone_meanwhile(
    contents: Callable,
    sent: tuple[signal.Signals, ...],
    server: Server,
    alone: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process stops after its first block; a second one is refused, then the first is interrupted."""
    expected, out = alone(*WANDA), server.folder / f"it's stopped {len(sent)}"
    writes = Path(f"{expected}.events").read_text().splitlines()
    process = server.start(*asked(out, *WANDA), stop=writes.index("name block-0.json") + 2)
    give_up = time.monotonic() + 60
    while _state(process) != "T" and time.monotonic() < give_up:
        time.sleep(0.001)
    monkeypatch.chdir(server.folder)
    second = [CliRunner().invoke(app, list(words)) for words in (("resume", str(out)), asked(out, *WANDA))]
    for number in sent:
        os.kill(process, number)
    os.kill(process, signal.SIGCONT)
    assert server.wait() == 3
    for refused in second:
        assert refused.exit_code == 2
        assert f"is being written by process {process} of" in refused.stderr
    command = server.said.split("Go on with: python -m llm_pipeline ")[1]
    assert re.search(r"interrupted; 1 of 3 blocks are kept\.", server.said)
    assert server.run(*shlex.split(command)) == 0, server.said
    assert contents(out, VARYING) == contents(expected, VARYING)
    assert server.run("resume", str(out)) == 0  # once more changes nothing
    assert contents(out, VARYING) == contents(expected, VARYING)
