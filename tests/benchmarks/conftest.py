"""A tiny random model with its texts, and the layer benchmark run on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.layers import compare
from benchmarks.records import Record


@pytest.fixture(scope="module")
def tiny_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random LLaMA of three blocks and token ids to calibrate on and to hold out."""
    folder = tmp_path_factory.mktemp("layers")
    torch.manual_seed(1)
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3}
    config = AutoConfig.for_model("llama", **shape, num_attention_heads=4, max_position_embeddings=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "tiny")
    for seed, name in enumerate(("calibration", "text")):
        np.save(folder / f"{name}.npy", np.random.default_rng(seed).integers(0, 97, size=(8, 32)))
    return folder


@pytest.fixture(scope="module")
def measured(tiny_layers: Path) -> Callable[..., Iterator[Record]]:
    """`measured(**options)` yields records of that model: wanda at 50% on all layers, unless told otherwise."""

    def run(**options: Any) -> Iterator[Record]:
        place = {"model": f"{tiny_layers}/tiny", "calibration": f"{tiny_layers}/calibration.npy"}
        asked = {**place, "text": f"{tiny_layers}/text.npy", "methods": ("wanda",), "sparsities": ("50%",), **options}
        return compare(**asked)

    return run
