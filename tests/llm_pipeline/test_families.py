"""The table of names, compared with the modules that transformers builds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from llm_pipeline.families import FAMILIES, family_of
from solvers.refusal import Refusal

MODEL_TYPES = [name for family in FAMILIES for name in family.model_types]


def empty_model(model_type: str) -> torch.nn.Module:
    config = AutoConfig.for_model(model_type, num_hidden_layers=1)
    with init_empty_weights():
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_readers_are_all_the_linear_layers_of_a_block(model_type: str) -> None:
    model = empty_model(model_type)
    family = family_of(model.config)
    block = model.get_submodule(family.blocks)[0]
    linear = {name for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(family.readers) == linear
    assert len(family.readers) == len(linear)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_ends_and_the_body_carry_the_names_of_the_table(model_type: str) -> None:
    model = empty_model(model_type)
    family = family_of(model.config)
    assert model.get_input_embeddings().weight is model.get_parameter(family.embedding)
    assert model.get_output_embeddings().weight is model.get_parameter(family.head)
    assert f"{family.body}.layers" == family.blocks


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_the_readers_of_a_site_receive_one_input(kind: str, save_tiny: Callable[..., Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny(kind)).eval()
    family = family_of(model.config)
    block = model.get_submodule(family.blocks)[0]
    received: dict[str, torch.Tensor] = {}
    for reader in family.readers:
        block.get_submodule(reader).register_forward_pre_hook(
            lambda _, inputs, reader=reader: received.__setitem__(reader, inputs[0])
        )
    with torch.no_grad():
        model(torch.arange(12)[None])
    first = [received[site.readers[0]] for site in family.sites]
    assert all(
        received[reader] is expected
        for site, expected in zip(family.sites, first, strict=True)
        for reader in site.readers
    )
    assert len({tensor.data_ptr() for tensor in first}) == len(first)


def test_an_unknown_model_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refusal, match=r"model type 'gpt2' is not.*llama, mistral, opt, qwen2, qwen3"):
        family_of(AutoConfig.for_model("gpt2"))
