"""How much of a model is in memory while it is pruned, measured by the operating system."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llm_pipeline import prune
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.families import Site

PROGRAM = """
import json, sys
from pathlib import Path
import transformers.models.llama.modeling_llama
from llm_pipeline.__main__ import app

def status(key):
    return int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0]) * 1024

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
    shape = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": width // 64, "vocab_size": 4000}
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


def tensors() -> list[torch.Tensor]:
    return [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]


def live(start: set[int]) -> int:
    """Bytes of the model's tensors that were made since `start`; views of one count once, Grams are float64."""
    new = [t for t in tensors() if id(t) not in start and not t.is_meta and t.dtype != torch.float64]
    return sum({t.data_ptr(): t.nbytes for t in new}.values())


@pytest.mark.parametrize(("options", "blocks"), [({}, 1), ({"error_correction": "block", "inputs": "dense"}, 2)])
@pytest.mark.parametrize("spoilt", [False, True])
def test_tensors_of_one_block_and_hidden_states_are_alive(
    spoilt: bool,
    options: dict[str, Any],
    blocks: int,
    tiny: Path,
    prune_to: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the last layer of every block, counted once for each copy that runs; a walk that keeps blocks is noticed."""
    most, solve, load, kept = [0], prune.prune_layer, BlockWalk.load, []
    gc.collect()
    start = {id(tensor) for tensor in tensors()}

    def counted(walk: BlockWalk, i: int, site: Site, reader: str, *more: Any) -> Any:
        if reader == "mlp.down_proj":
            most[0] = max(most[0], live(start))
        return solve(walk, i, site, reader, *more)

    def loaded(walk: BlockWalk, i: int, *saved: Any) -> torch.nn.Module:
        block = load(walk, i, *saved)
        kept.extend([block] * spoilt)
        return block

    monkeypatch.setattr(prune, "prune_layer", counted)
    monkeypatch.setattr(BlockWalk, "load", loaded)
    prune_to(tiny, method="wanda", **options)
    checkpoint = Checkpoint.open(tiny)
    block = sum(checkpoint.read(name).nbytes for name in checkpoint.names if "layers.0" in name)
    hidden, causal = 4 * 32 * 32 * 4, 4 * 32 * 32 * 4  # what a block gets, and at most the mask that comes with it
    allowed = blocks * block + hidden + causal
    assert (most[0] <= allowed) == (not spoilt), (most[0], allowed)
    assert most[0] > blocks * block


@pytest.mark.slow
def test_a_hundred_million_parameters_take_no_more_than_two_blocks_hidden_states_and_grams(tmp_path: Path) -> None:
    """8 blocks at width 1024: above two blocks, hidden states and Grams 600 MB, of which imports take 465."""
    sizes = made(tmp_path, 8, 1024, 2816, 8, 128)
    found = pruned(tmp_path)
    allowed = 2 * sizes.block + sizes.hidden + sizes.grams + 600 * MB
    assert found["before"] + sizes.checkpoint > allowed  # a model that is in memory does not pass
    assert found["peak"] <= allowed, (found, allowed / MB, sizes)
