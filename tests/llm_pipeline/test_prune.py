"""Whole runs on tiny models: the null method, patterns, the inputs each layer is judged on, equal bytes twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llm_pipeline import blocks
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.families import family_of
from solvers.refusal import Refusal

FAMILIES = ["llama", "llama tied", "mistral sliding", "qwen2", "qwen3 tied", "opt", "opt norm after"]
STORED = {"one float32 file": (torch.float32, {}), "bfloat16 shards": (torch.bfloat16, {"max_shard_size": "20KB"})}


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.safetensors")}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_null_method_returns_every_byte(
    kind: str, form: str, save_tiny: Callable[..., Path], prune_to: Callable, ids: Path
) -> None:
    dtype, saving = STORED[form]
    source = save_tiny(kind, dtype=dtype, **saving)
    out, summary = prune_to(source, method="dense", text=str(ids))
    assert hashes(out) == hashes(source)
    assert (len(hashes(out)) > 1) == bool(saving)
    assert summary["perplexity"]["dense"] == summary["perplexity"]["pruned"]
    assert summary["perplexity"]["difference"]["nll"] == summary["relative_error"] == 0
    assert summary["certificates"]["fails"] == 0


def zeros_asked(sparsity: str, W: np.ndarray) -> tuple[np.ndarray, int]:
    """The matrix laid out as windows of the pattern, and the zeros in each."""
    if sparsity == "2:4":
        return W.reshape(-1, 4), 2
    windows = W.reshape(1, -1) if sparsity.endswith("/layer") else W
    return windows, windows.shape[1] // 2


RUNS = [(m, s) for m in ("magnitude", "wanda", "iht", "maiht") for s in ("50%", "50%/layer", "2:4")]
RUNS += [("maiht-released", "50%/layer"), ("maiht-released", "2:4"), ("admm-released", "50%/layer")]
RUNS += [(m, s) for m in ("sparsegpt", "fista", "admm", "alps") for s in ("50%", "50%/layer", "2:4")]


@pytest.mark.parametrize(("method", "sparsity"), RUNS)
def test_every_window_holds_its_zeros_and_nothing_else_moves(
    method: str, sparsity: str, save_tiny: Callable[..., Path], prune_to: Callable
) -> None:
    source = save_tiny("llama", dtype=torch.bfloat16)
    out, summary = prune_to(source, method=method, sparsity=sparsity)
    before, after = stored(source), stored(out)
    pruned = {row["layer"] for row in lines(out, "layers.jsonl")}
    assert len(pruned) == summary["layers"] == 21
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        if name not in pruned:
            assert torch.equal(tensor.view(torch.int16), before[name].view(torch.int16)), name
            continue
        windows, zeros = zeros_asked(sparsity, tensor.float().numpy())
        assert (np.count_nonzero(windows == 0, axis=1) == zeros).all(), name
        assert not np.signbit(windows[windows == 0]).any()
    assert summary["sparsity_measured"] == 0.5
    outcomes = Counter(row["outcome"] for row in lines(out, "certificates.jsonl"))
    assert {outcome: n for outcome, n in summary["certificates"].items() if n} == dict(outcomes)
    assert outcomes["fails"] == 0
    assert outcomes["holds"] >= 42
    assert "sparsity_config" not in (out / "config.json").read_text()


def seen_by(model: torch.nn.Module, readers: list[str], ids: np.ndarray) -> dict[str, np.ndarray]:
    """Mean Gram of the inputs of every reader in one plain forward pass."""
    grams: dict[str, np.ndarray] = {}

    def watch(name: str) -> Callable:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].double().reshape(-1, inputs[0].shape[-1]).numpy()
            grams[name] = x.T @ x / len(x)

        return hook

    for name in readers:
        model.get_submodule(name).register_forward_pre_hook(watch(name))
    with torch.no_grad():
        model(torch.as_tensor(ids))
    return grams


@pytest.mark.parametrize(("kind", "dtype"), [("llama", torch.bfloat16), ("opt", torch.float32)])
def test_each_layer_is_judged_on_what_it_sees_in_the_saved_model(
    kind: str, dtype: torch.dtype, save_tiny: Callable[..., Path], prune_to: Callable, ids: Path
) -> None:
    source = save_tiny(kind, dtype=dtype)
    out, _ = prune_to(source, method="maiht", dtype="float32")
    checkpoint = Checkpoint.open(source)
    family = family_of(checkpoint.config)
    readers = [f"{family.blocks}.{i}.{reader}" for i in range(3) for reader in family.readers]
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    dense_model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    grams = seen_by(model, readers, np.load(ids))
    recorded = {checkpoint.resolve(row["layer"]): row["objective"] for row in lines(out, "layers.jsonl")}
    for name in readers:
        moved = (model.get_submodule(name).weight - dense_model.get_submodule(name).weight).detach().double().numpy()
        found = 0.5 * np.vdot(moved @ grams[name], moved)
        assert recorded[checkpoint.resolve(f"{name}.weight")] == pytest.approx(found, rel=1e-5), name
    dense_grams = seen_by(dense_model, readers, np.load(ids))
    far = [np.abs(grams[name] - dense_grams[name]).max() / np.abs(grams[name]).max() for name in readers]
    assert max(far[:3]) == 0  # the first site of all has no predecessor
    assert min(far[3:]) > 1e-3


def test_two_runs_write_equal_bytes(save_tiny: Callable[..., Path], prune_to: Callable) -> None:
    source = save_tiny("qwen2")
    first, second = (prune_to(source, name, method="maiht", refine="gradient:3")[0] for name in ("a", "b"))
    timeless = [[{**row, "seconds": 0} for row in lines(folder, "layers.jsonl")] for folder in (first, second)]
    assert timeless[0] == timeless[1]
    for name in ("model.safetensors", "plan.toml", "certificates.jsonl", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_seed_draws_the_calibration(tiny: Path, prune_to: Callable, ids: Path) -> None:
    drawn = [prune_to(tiny, f"s{seed}", method="wanda", calibration=f"{ids}:1x32", seed=seed)[0] for seed in (0, 1)]
    assert hashes(drawn[0]) != hashes(drawn[1])


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_a_number_that_is_none_is_refused_wherever_it_stands(name: str, tiny: Path, prune_to: Callable) -> None:
    checkpoint = Checkpoint.open(tiny)
    with (tiny / "model.safetensors").open("r+b") as file:
        file.seek(checkpoint.entries[name].start)
        file.write(np.float32("nan").tobytes())
    with pytest.raises(Refusal, match=f"tensor {name} must be finite; 1 of its"):
        prune_to(tiny)


def test_one_block_is_resident_at_a_time(tiny: Path, prune_to: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    load = blocks.BlockWalk.load
    monkeypatch.setattr(blocks.BlockWalk, "load", lambda walk, i: (loaded.append(i), load(walk, i))[1])
    prune_to(tiny, method="magnitude")
    assert loaded == [0, 1, 2]
