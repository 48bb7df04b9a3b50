"""What `inspect` says, against the model that transformers builds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from llm_pipeline.__main__ import app
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.overview import overview


@pytest.mark.parametrize("kind", ["llama", "llama tied", "qwen3 tied", "opt", "opt norm after"])
def test_counts_are_those_of_the_model(kind: str, save_tiny: Callable[..., Path]) -> None:
    folder = save_tiny(kind, dtype=torch.bfloat16)
    model, facts = AutoModelForCausalLM.from_pretrained(folder), overview(Checkpoint.open(folder), "name")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inside = {name: module for name, module in layers.items() if ".layers." in name}
    assert facts["parameters"] == model.num_parameters()
    assert facts["prunable"] == sum(module.weight.numel() for module in inside.values())
    assert (facts["blocks"], facts["positions"], facts["dtype"]) == (3, 64, "bfloat16")
    assert facts["tied"] == model.config.tie_word_embeddings
    shown = {layer["name"]: tuple(layer["shape"]) for site in facts["sites"] for layer in site["layers"]}
    first = {name.split(".layers.0.")[1]: module for name, module in inside.items() if ".layers.0." in name}
    assert shown == {name: tuple(module.weight.shape) for name, module in first.items()}


def test_the_screen_names_every_layer(tiny: Path) -> None:
    said = CliRunner().invoke(app, ["inspect", str(tiny)]).stdout
    assert "llama: llama, 27,168 parameters in float32, 20,736 (76.3%) in prunable layers" in said
    for place in ("one of 3 blocks", "attention input", "self_attn.k_proj", "16 x 32", "mlp.down_proj", "32 x 40"):
        assert place in said
