"""How much of a model is in memory while it is pruned, measured by the operating system."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

PROGRAM = """
import json, sys
from pathlib import Path
import transformers.models.llama.modeling_llama
from llm_pipeline.__main__ import app

def status(key):
    return int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0]) * 1024

try:
    app(["inspect"])
except SystemExit:
    pass
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
try:
    app(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
print(json.dumps({"before": before, "peak": status("VmHWM")}))
"""
MB = 10**6


class Sizes(NamedTuple):
    """Bytes of the parts of a run."""

    checkpoint: int
    block: int
    grams: int
    hidden: int


def made(folder: Path, blocks: int, width: int, inner: int, sequences: int, length: int) -> Sizes:
    """A random LLaMA `model` in float32 shards and tokens `ids.npy`; the sizes that a run on them should keep to."""
    torch.manual_seed(1)
    shape = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": width // 64, "vocab_size": 1000}
    config = AutoConfig.for_model("llama", **shape, num_hidden_layers=blocks, max_position_embeddings=length)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder / "model", max_shard_size="100MB")
    np.save(folder / "ids.npy", np.random.default_rng(0).integers(0, 1000, (sequences, length)))
    block = sum(4 * p.numel() for p in model.model.layers[0].parameters())
    grams = 8 * (3 * width**2 + inner**2)
    checkpoint = sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors"))
    return Sizes(checkpoint, block, grams, 4 * sequences * length * width)


def pruned(folder: Path, *options: str) -> dict[str, int]:
    """Peak resident memory of a process that prunes, and before it does."""
    words = ["prune", "model", "--calibration", "ids.npy", "--out", "out", "--method", "wanda", *options]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_takes_less_than_its_model(tmp_path: Path) -> None:
    """24 blocks of width 384: the run adds two blocks, Grams, hidden states and a margin, a third of the model."""
    sizes = made(tmp_path, 24, 384, 1024, 8, 64)
    found = pruned(tmp_path)
    added = found["peak"] - found["before"]
    allowed = 2 * sizes.block + sizes.hidden + sizes.grams + 60 * MB
    assert allowed < 0.7 * sizes.checkpoint
    assert added <= allowed, (added / MB, allowed / MB, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["memory", "disk"])
def test_a_hundred_million_parameters_take_two_blocks(hidden: str, tmp_path: Path) -> None:
    """8 blocks at width 1024: less than two blocks, hidden states, Grams and 600 MB, imports included."""
    sizes = made(tmp_path, 8, 1024, 2816, 8, 128)
    found = pruned(tmp_path, "--hidden", hidden)
    allowed = 2 * sizes.block + sizes.hidden + sizes.grams + 600 * MB
    assert found["before"] + sizes.checkpoint > allowed  # a model that is in memory does not pass
    assert found["peak"] <= allowed, (found, allowed / MB, sizes)
