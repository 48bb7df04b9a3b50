"""Runs that are killed anywhere and go on: the same bytes as a run that was let alone."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

TIMES = {"layers.jsonl": ("seconds",), "summary.json": ("seconds", "peak_memory_bytes", "hidden_states")}
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


def contents(folder: Path) -> dict[str, Any]:
    """All that a run wrote, without what depends on the time."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name not in TIMES:
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
            continue
        rows = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        parsed = [json.loads(row) for row in rows]
        found[path.name] = [{k: v for k, v in row.items() if k not in TIMES[path.name]} for row in parsed]
    return found


def go_on(server: Server, out: Path, *options: str, **more: Any) -> int:
    """Resume, or prune where the kill came before the run had begun."""
    begun = (out.with_name(f"{out.name}.partial") / ".run" / "run.json").is_file() or out.exists()
    return server.run(*(("resume", str(out)) if begun else asked(out, *options)), **more)


def kinds(events: Path) -> dict[str, list[int]]:
    """Numbers of the writes of a run, by what is written how."""
    found: dict[str, list[int]] = {}
    for n, line in enumerate(events.read_text().splitlines(), 1):
        found.setdefault(re.sub(r"-?\d+(-of-\d+)?", "-N", line), []).append(n)
    return found


def assert_dies_and_goes_on(server: Server, out: Path, die: int, expected: Path, *options: str) -> None:
    assert server.run(*asked(out, *options), die=die) == KILLED, server.said
    assert go_on(server, out, *options) == 0, server.said
    assert contents(out) == contents(expected)
    assert not out.with_name(f"{out.name}.partial").exists()
    shutil.rmtree(out)


def test_a_kill_inside_each_kind_of_write(server: Server, alone: Callable[..., Path]) -> None:
    expected = alone(*MAIHT)
    found = kinds(Path(f"{expected}.events"))
    for wanted in ("copy model-N.safetensors.writing", "write model-N.safetensors", "write block-N.json.writing"):
        assert wanted in found
    for numbers in found.values():
        assert_dies_and_goes_on(server, server.folder / "killed", numbers[len(numbers) // 2], expected, *MAIHT)
