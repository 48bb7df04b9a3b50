"""Tiny random models of every known family, saved as ordinary model directories."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from llm_pipeline import assemble
from llm_pipeline.prune import prune

transformers_logging.disable_progress_bar()

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
LLAMA_SHAPE = {**SHAPE, "intermediate_size": 40, "num_key_value_heads": 2}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **LLAMA_SHAPE},
    "llama tied": {"model_type": "llama", **LLAMA_SHAPE, "tie_word_embeddings": True},
    "mistral sliding": {"model_type": "mistral", **LLAMA_SHAPE, "sliding_window": 5},
    "qwen2": {"model_type": "qwen2", **LLAMA_SHAPE},
    "qwen2 sliding": {
        "model_type": "qwen2",
        **LLAMA_SHAPE,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
    },
    "qwen3 tied": {"model_type": "qwen3", **LLAMA_SHAPE, "head_dim": 16, "tie_word_embeddings": True},
    "opt": {"model_type": "opt", **SHAPE, "ffn_dim": 40, "word_embed_proj_dim": 32},
    "opt norm after": {
        "model_type": "opt",
        **SHAPE,
        "ffn_dim": 40,
        "word_embed_proj_dim": 16,
        "do_layer_norm_before": False,
    },
}


@pytest.fixture(scope="session")
def save_model() -> Callable[..., Path]:
    """`save_model(place, kind, dtype, **saving)` writes a random model of a kind; returns its directory in `place`."""

    def save(place: Path, kind: str, dtype: torch.dtype = torch.float32, **saving: Any) -> Path:
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**KINDS[kind]))
        with torch.no_grad():  # biases and norms start at 0 and 1, where a forgotten one would not be noticed
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        folder = place / kind.replace(" ", "-")
        model.to(dtype).save_pretrained(folder, **saving)
        return folder

    return save


@pytest.fixture
def save_tiny(save_model: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`save_tiny(kind, **saving)` writes a random model of that kind and returns its directory."""
    return lambda kind="llama", dtype=torch.float32, **saving: save_model(tmp_path, kind, dtype, **saving)


@pytest.fixture
def tiny(save_tiny: Callable[..., Path]) -> Path:
    """Directory of a tiny random LLaMA in one float32 file."""
    return save_tiny("llama")


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """Four sequences of 32 random token ids, as a `.npy` file."""
    path = tmp_path / "ids.npy"
    np.save(path, np.random.default_rng(3).integers(0, 97, size=(4, 32)))
    return path


@pytest.fixture
def prune_to(ids: Path, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """`prune_to(model, name, **options)` prunes on `ids`; returns the folder and the summary."""

    def run(model: Path, name: str = "out", **options: Any) -> tuple[Path, dict[str, Any]]:
        job = assemble.job(str(model), **{"calibration": str(ids), **options})
        return tmp_path / name, prune(job.plan, job.source, job.tokens, tmp_path / name, text=job.text).summary

    return run


@pytest.fixture(scope="session")
def contents() -> Callable[..., dict[str, Any]]:
    """Every file of a run without what depends on the time; `varying` are fields of the summary that may differ too."""

    def read(folder: Path, varying: tuple[str, ...]) -> dict[str, Any]:
        times = {"layers.jsonl": ("seconds",), "summary.json": ("seconds", "peak_memory_bytes", *varying)}
        found: dict[str, Any] = {}
        for path in sorted(folder.rglob("*")):
            if path.name == "SHA256SUMS":  # the digests of these two depend on the time as well
                found[path.name] = [row for row in path.read_text().splitlines() if row.split()[1] not in times]
                assert subprocess.run(["sha256sum", "--check", "--quiet", path.name], cwd=folder).returncode == 0
            elif path.name not in times:
                found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
            else:
                rows = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
                parsed = [json.loads(row) for row in rows]
                found[path.name] = [{k: v for k, v in row.items() if k not in times[path.name]} for row in parsed]
        return found

    return read
