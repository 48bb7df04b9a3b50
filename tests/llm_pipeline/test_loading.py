"""A pruned folder opens in AutoModelForCausalLM of stock transformers: every family, layout, dtype and tie."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from llm_pipeline import assemble, output_folder
from llm_pipeline.prune import prune

SHAPE = {
    "vocab_size": 41,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
LLAMA_SHAPE = {**SHAPE, "intermediate_size": 24, "num_key_value_heads": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA_SHAPE,
    "mistral": {**LLAMA_SHAPE, "sliding_window": 5},
    "qwen2": LLAMA_SHAPE,
    "opt": {**SHAPE, "ffn_dim": 24, "word_embed_proj_dim": 16},
}
LAYOUTS: dict[str, dict[str, Any]] = {"one file": {}, "shards": {"max_shard_size": "2KB"}}
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
TIES = {"tied": True, "untied": False}
Weights = dict[str, torch.Tensor]


def saved(folder: Path, family: str, tied: bool, dtype: torch.dtype, kind: Any, **saving: Any) -> PreTrainedModel:
    """A random model of a family, and its folder."""
    torch.manual_seed(5)
    config = AutoConfig.for_model(family, **FAMILIES[family], tie_word_embeddings=tied)
    model = kind.from_config(config)
    with torch.no_grad():  # biases and norms start at 0 and 1, where a forgotten one would not be noticed
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder, **saving)
    return model


@pytest.fixture
def pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, Weights]]:
    """`pruned(model)` prunes the folder `model`; returns the new one, and the layers as the run handed them over."""

    def run(model: Path) -> tuple[Path, Weights]:
        handed: Weights = {}

        class Watched(output_folder.OutputFolder):
            def put(self, name: str, tensor: torch.Tensor) -> None:
                handed[self.source.resolve(name)] = tensor.clone()
                super().put(name, tensor)

        np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 41, size=(2, 16)))
        job = assemble.job(str(model), calibration=f"{tmp_path}/ids.npy", method="wanda")
        with monkeypatch.context() as patched:
            patched.setattr("llm_pipeline.prune.OutputFolder", Watched)
            prune(job.plan, job.source, job.tokens, tmp_path / "out")
        return tmp_path / "out", handed

    return run


def assert_loads(folder: Path, layers: Weights, before: PreTrainedModel, tied: bool) -> None:
    """Stock transformers finds every key, every bit, the tie, the zeros; and the model computes."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert {key: found for key, found in info.items() if found} == {}
    assert model.dtype == before.dtype
    ends = (model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    assert (ends[0].data_ptr() == ends[1].data_ptr()) == tied
    prefix = "" if hasattr(before, "lm_head") else f"{model.base_model_prefix}."
    expected = {f"{prefix}{name}": parameter for name, parameter in before.named_parameters()}
    put = {name if name.startswith("model.") else f"model.{name}": weight for name, weight in layers.items()}
    assert put.keys() <= expected.keys()
    assert len(put) == (6 if "fc1" in "".join(put) else 7)
    for name, found in model.named_parameters():
        wanted = put.get(name, expected[name])
        assert found.dtype == wanted.dtype
        assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8)), name
        if name in put:
            assert (np.count_nonzero(found.detach().float().numpy(), axis=1) == found.shape[1] // 2).all(), name
    assert torch.isfinite(model(torch.arange(6)[None]).logits).all()


@pytest.mark.parametrize(("tie", "layout", "dtype"), list(product(TIES, LAYOUTS, DTYPES)), ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_stock_transformers_opens_what_was_pruned(
    family: str, tie: str, layout: str, dtype: torch.dtype, pruned: Callable[..., tuple[Path, Weights]], tmp_path: Path
) -> None:
    before = saved(tmp_path / "model", family, TIES[tie], dtype, AutoModelForCausalLM, **LAYOUTS[layout])
    folder, layers = pruned(tmp_path / "model")
    files = sorted(path.name for path in folder.glob("*.safetensors*"))
    assert (len(files) > 2) == (layout == "shards")
    assert files == sorted(path.name for path in (tmp_path / "model").glob("*.safetensors*"))
    assert_loads(folder, layers, before, TIES[tie])


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_tied_matrix_that_is_stored_twice_stays_tied(
    family: str, pruned: Callable[..., tuple[Path, Weights]], tmp_path: Path
) -> None:
    before = saved(tmp_path / "model", family, True, torch.float16, AutoModelForCausalLM)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    [embedding] = [name for name in weights if name.endswith("embed_tokens.weight")]
    twice = {**weights, "lm_head.weight": weights[embedding].clone()}
    save_file(twice, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    folder, layers = pruned(tmp_path / "model")
    assert "lm_head.weight" in load_file(folder / "model.safetensors")
    assert_loads(folder, layers, before, tied=True)


@pytest.mark.parametrize("family", ["qwen2", "opt"])
def test_weights_of_the_body_alone_open_with_a_tied_head(
    family: str, pruned: Callable[..., tuple[Path, Weights]], tmp_path: Path
) -> None:
    """As OPT was published: names without a leading `model.`, no head."""
    before = saved(tmp_path / "model", family, True, torch.float16, AutoModel, **LAYOUTS["shards"])
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert not any(name.startswith("model.") or "lm_head" in name for name in index["weight_map"])
    folder, layers = pruned(tmp_path / "model")
    assert_loads(folder, layers, before, tied=True)


def test_an_untied_copy_or_another_bit_would_be_noticed(
    pruned: Callable[..., tuple[Path, Weights]], tmp_path: Path
) -> None:
    before = saved(tmp_path / "model", "llama", False, torch.float16, AutoModelForCausalLM)
    folder, layers = pruned(tmp_path / "model")
    with pytest.raises(AssertionError):
        assert_loads(folder, layers, before, tied=True)
    [name, *_] = layers
    wrong = {**layers, name: layers[name] * 2}
    with pytest.raises(AssertionError, match=name):
        assert_loads(folder, wrong, before, tied=False)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssertionError, match="missing_keys"):
        assert_loads(folder, layers, before, tied=False)
