"""The walk against the model itself: equal logits, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_pipeline.blocks import BlockWalk, Recorder
from llm_pipeline.checkpoint import Checkpoint

IDS = np.random.default_rng(3).integers(3, 97, size=(5, 17))
KINDS = [
    "llama",
    "llama tied",
    "mistral sliding",
    "qwen2",
    "qwen2 sliding",
    "qwen3 tied",
    "opt",
    "opt norm after",
]


class Answer(torch.nn.Module):
    """A block that answers with given hidden states."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *_: object, **__: object) -> torch.Tensor:
        return self.hidden


def walked(folder: Path, ids: np.ndarray, batch: int) -> torch.Tensor:
    walk = BlockWalk(Checkpoint.open(folder), "cpu")
    hidden = walk.embed(ids, batch=batch)
    for i in range(len(walk)):
        hidden = walk.forward(walk.load(i), i, hidden, batch=batch)
    return hidden


@torch.inference_mode()
def ended(model: torch.nn.Module, hidden: torch.Tensor, ids: np.ndarray) -> torch.Tensor:
    """Logits of the model's own norm and head on given hidden states."""
    body = model.get_decoder()
    blocks = body.layers
    body.layers = torch.nn.ModuleList([Answer(hidden)])
    logits = model(torch.as_tensor(ids), use_cache=False).logits
    body.layers = blocks
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_walk_reproduces_the_logits_of_the_model(kind: str, save_tiny: Callable[..., Path]) -> None:
    folder = save_tiny(kind)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(torch.as_tensor(IDS), use_cache=False).logits
    assert torch.equal(ended(model, walked(folder, IDS, batch=5), IDS), expected)


def test_batches_follow_the_model_on_the_same_batches(save_tiny: Callable[..., Path]) -> None:
    folder = save_tiny("mistral sliding")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    hidden = walked(folder, IDS, batch=2)
    for part, ids in zip(hidden.split(2), np.split(IDS, [2, 4]), strict=True):
        with torch.inference_mode():
            expected = model(torch.as_tensor(ids), use_cache=False).logits
        assert torch.equal(ended(model, part, ids), expected)


def test_the_sliding_window_is_seen_by_the_blocks_that_have_one(save_tiny: Callable[..., Path]) -> None:
    walk = BlockWalk(Checkpoint.open(save_tiny("qwen2 sliding")), "cpu")
    hidden = walk.embed(IDS)
    moved = hidden.clone()
    moved[:, 0] += 1.0
    last = [
        (walk.forward(walk.load(i), i, hidden) != walk.forward(walk.load(i), i, moved))[:, -1].any()
        for i in range(len(walk))
    ]
    assert last == [True, False, False]


def test_half_precision_follows_the_stored_dtype_and_an_asked_one_wins(
    save_tiny: Callable[..., Path],
) -> None:
    folder = save_tiny("llama", dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model(torch.as_tensor(IDS), use_cache=False).logits
    hidden = walked(folder, IDS, batch=5)
    assert hidden.dtype == torch.bfloat16
    assert torch.equal(ended(model, hidden, IDS), expected)
    walk = BlockWalk(Checkpoint.open(folder), "cpu", dtype=torch.float32)
    assert walk.forward(walk.load(0), 0, walk.embed(IDS)).dtype == torch.float32


def test_a_loaded_block_may_be_changed_without_touching_the_checkpoint(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny)
    walk, before = BlockWalk(checkpoint, "cpu"), checkpoint.sha256()
    name = walk.weight_name(1, "mlp.down_proj")
    stored = checkpoint.read(name)
    block = walk.load(1)
    block.get_submodule("mlp.down_proj").weight.zero_()
    assert torch.equal(walk.load(1).get_submodule("mlp.down_proj").weight, stored)
    assert checkpoint.sha256() == before
    assert not block.training
    assert not any(parameter.requires_grad for parameter in block.parameters())


def test_nothing_of_the_model_stays_in_memory(tiny: Path) -> None:
    walk = BlockWalk(Checkpoint.open(tiny), "cpu")
    walk.embed(IDS)
    assert all(parameter.is_meta for parameter in walk._empty_blocks.parameters())
    assert all(parameter.is_meta for parameter in walk._empty_body.parameters())
    assert all(isinstance(recorder, Recorder) for recorder in walk._empty_body.layers)
    assert walk.weight_name(2, "self_attn.q_proj") == "model.layers.2.self_attn.q_proj.weight"


def test_outputs_may_take_the_place_of_inputs(tiny: Path) -> None:
    walk = BlockWalk(Checkpoint.open(tiny), "cpu")
    hidden = walk.embed(IDS)
    expected = walk.forward(walk.load(0), 0, hidden, batch=2)
    with torch.inference_mode():
        found = walk.forward(walk.load(0), 0, hidden, batch=2, into=hidden)
    assert found is hidden
    assert torch.equal(found, expected)


def test_hidden_states_are_not_changed_by_the_walk(tiny: Path) -> None:
    walk = BlockWalk(Checkpoint.open(tiny), "cpu")
    hidden = walk.embed(IDS)
    copy = hidden.clone()
    after = walk.forward(walk.load(0), 0, hidden)
    assert torch.equal(hidden, copy)
    assert not torch.equal(after, copy)
