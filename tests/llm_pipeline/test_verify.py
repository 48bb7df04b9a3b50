"""verify: holds on what prune wrote, names the layer of every change, refuses what it cannot judge."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from llm_pipeline.__main__ import app
from llm_pipeline.checkpoint import digest

LAYER = "model.layers.1.self_attn.v_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


def verified(folder: Path) -> Result:
    return CliRunner().invoke(app, ["verify", str(folder)])


def change(folder: Path, name: str, how: Callable[[torch.Tensor], None]) -> torch.Tensor:
    weights = load_file(folder / "model.safetensors")
    how(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return weights[name]


def edit_line(folder: Path, **changes: object) -> None:
    rows = [json.loads(line) for line in (folder / "layers.jsonl").read_text().splitlines()]
    [row] = [row for row in rows if row["layer"] == LAYER]
    row.update(changes)
    (folder / "layers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def drop_line(folder: Path) -> None:
    kept = [line for line in (folder / "layers.jsonl").read_text().splitlines(True) if LAYER not in line]
    (folder / "layers.jsonl").write_text("".join(kept))


def next_up(weight: torch.Tensor) -> None:
    place = weight.view(-1).nonzero()[0]
    weight.view(-1).view(torch.int16)[place] += 1


def first_zero(weight: torch.Tensor) -> None:
    place = (weight.view(-1) == 0).nonzero()[0]
    weight.view(-1)[place] = 1e-3


def flipped_with_its_record(folder: Path) -> None:
    edit_line(folder, sha256=digest(change(folder, LAYER, lambda weight: weight.view(-1).mul_(-1))))


def zero_with_its_record(folder: Path) -> None:
    edit_line(folder, sha256=digest(change(folder, LAYER, first_zero)))


def hidden_embedding(folder: Path) -> None:
    moved = change(folder, EMBEDDING, next_up)
    with (folder / "layers.jsonl").open("a") as file:
        file.write(json.dumps({"layer": EMBEDDING, "sha256": digest(moved), "objective": 0.0}) + "\n")


@pytest.fixture
def run(save_tiny: Callable[..., Path], prune_to: Callable) -> Path:
    return prune_to(save_tiny("llama", dtype=torch.bfloat16), method="wanda")[0]


ALL = ("other tensors", "other files", "weight files")


def verdict_of(row: dict) -> dict:
    return {key: row[key] for key in ("objective", "relative_error")}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama tied", {"method": "maiht", "refine": "exact", "sparsity": "2:4"}),
        ("llama tied", {"method": "wanda", "swaps": "all", "sparsity": "2:4"}),
        ("llama", {"method": "wanda", "swaps": "all", "refine_mu": 0.03}),
        ("qwen3 tied", {"method": "maiht-released", "sparsity": "50%/layer"}),
        ("opt norm after", {"method": "iht", "dtype": "float32"}),
        ("llama", {"method": "dense"}),
        ("llama", {"method": "magnitude", "sparsity": "100%"}),
        ("llama", {"method": "maiht", "sparsity": "0%"}),
    ],
)
def test_a_fresh_run_holds_also_after_it_moved(
    kind: str, options: dict, save_tiny: Callable[..., Path], prune_to: Callable, tmp_path: Path
) -> None:
    out, _ = prune_to(save_tiny(kind, dtype=torch.bfloat16), **options)
    moved = shutil.move(out, tmp_path / "moved run")
    found = CliRunner().invoke(app, ["verify", str(moved), "--json"])
    checks = json.loads(found.stdout)["checks"]
    assert found.exit_code == 0, [line for line in checks if line["outcome"] == "fails"]
    layers = {json.loads(line)["layer"] for line in (moved / "layers.jsonl").read_text().splitlines()}
    records = {"README.md", "SHA256SUMS", "certificates.jsonl", "layers.jsonl", "summary.json"}
    assert {line["layer"] for line in checks} == layers | records | {f"all {w}" for w in ALL}
    assert json.loads(found.stdout)["layers"] == [
        {"layer": row["layer"], "outcome": "holds", "fails": [], "evaluated": True, **verdict_of(row)}
        for row in map(json.loads, (moved / "layers.jsonl").read_text().splitlines())
    ]
    recomputed = [line for line in checks if line["claim"] == "objective-recomputed"]
    assert len(recomputed) == len(layers)
    assert all(line["allowance"] < 1e-2 for line in recomputed)


@pytest.mark.parametrize(
    ("spoil", "layer", "claim"),
    [
        (lambda run: change(run, LAYER, next_up), LAYER, "the saved weights are those that were certified"),
        (lambda run: change(run, LAYER, first_zero), LAYER, "every window keeps exactly its budget"),
        (lambda run: change(run, EMBEDDING, next_up), EMBEDDING, "equals its source bit for bit"),
        (lambda run: change(run, "model.norm.weight", next_up), "model.norm.weight", "equals its source bit for bit"),
        (hidden_embedding, EMBEDDING, "equals its source bit for bit"),
        (flipped_with_its_record, LAYER, "recorded objective"),
        (zero_with_its_record, LAYER, "every window keeps exactly its budget"),
        (lambda run: edit_line(run, objective=1e-9), LAYER, "recorded objective"),
        (lambda run: edit_line(run, sha256="0" * 64), LAYER, "the saved weights are those that were certified"),
        (drop_line, LAYER, "the saved weights are those that were certified"),
    ],
)
def test_every_change_fails_and_names_its_layer(spoil: Callable, layer: str, claim: str, run: Path) -> None:
    spoil(run)
    found = verified(run)
    assert found.exit_code == 1
    said = [line for line in found.stdout.splitlines() if line.startswith("fails")]
    assert any(layer in line and claim in line for line in said), found.stdout


def test_a_support_that_an_exchange_improves_does_not_hold(save_tiny: Callable[..., Path], prune_to: Callable) -> None:
    """A run without swaps that says it made them all: counts and objectives hold, the exchanges do not."""
    run, _ = prune_to(save_tiny("llama", dtype=torch.bfloat16), method="wanda", refine="exact")
    replan(run, "swaps = 0", 'swaps = "all"')
    said = [line for line in verified(run).stdout.splitlines() if line.startswith("fails model.layers")]
    assert said
    assert all("no exchange that the budget allows lowers f" in line for line in said)


def test_a_change_is_blamed_on_its_own_block_or_what_follows(run: Path) -> None:
    change(run, LAYER, next_up)
    blamed = [line.split()[1].rstrip(":") for line in verified(run).stdout.splitlines() if line.startswith("fails")]
    assert blamed[0] == LAYER
    assert not [name for name in blamed if ".layers.0." in name]


def spoil_ids(run: Path) -> None:
    np.save(run.parent / "ids.npy", np.zeros((4, 32), dtype=np.int64))


def replan(run: Path, old: str, new: str) -> None:
    text = (run / "plan.toml").read_text()
    assert old in text
    (run / "plan.toml").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: change(run.parent / "llama", LAYER, next_up), "the source model .* has changed since the run"),
        (lambda run: shutil.rmtree(run.parent / "llama"), "MODEL must be a Hugging Face model directory"),
        (spoil_ids, r"the calibration text ids\.npy has changed since the run"),
        (lambda run: (run.parent / "ids.npy").unlink(), r"there is no file .*ids\.npy"),
        (lambda run: (run / "plan.toml").unlink(), r"holds a readable plan\.toml"),
        (lambda run: (run / "layers.jsonl").unlink(), r"holds a readable layers\.jsonl"),
        (lambda run: (run / "layers.jsonl").write_text('{"layer": "a"}\n'), r"holds a readable layers\.jsonl"),
        (lambda run: (run / "model.safetensors").unlink(), r"needs model\.safetensors"),
        (lambda run: replan(run, 'tokenizer_sha256 = ""', 'tokenizer_sha256 = "ab"'), "the tokenizer of .* has chang"),
        (lambda run: replan(run, 'device = "cpu"', 'device = "cuda:9"'), "--device cuda:9 cannot be used here"),
        (lambda run: replan(run, 'name = "wanda"', 'name = "wnada"'), "unknown method 'wnada'"),
        (lambda run: replan(run, 'dtype = "bfloat16"', 'dtype = "int3"'), "--dtype must be auto or one of"),
    ],
)
def test_what_cannot_be_judged_is_refused(spoil: Callable, says: str, run: Path) -> None:
    spoil(run)
    found = verified(run)
    assert found.exit_code == 2, found.output
    assert found.stdout == ""
    assert_refusal(found.stderr, says)


def assert_refusal(stderr: str, says: str) -> None:
    assert re.match(f"error: .*{says}", stderr), stderr
    assert stderr.count("\n") == 1
