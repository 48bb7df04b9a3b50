"""n:m on the saved model: every window holds exactly n, verify says so, and one window that does not is named."""

from __future__ import annotations

import json
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

PATTERNS = {"2:4": (2, 4), "4:8": (4, 8), "1:4": (1, 4)}
LAYER = "model.layers.1.mlp.down_proj.weight"
COUNT = "every window keeps exactly its budget"


def verified(folder: Path) -> Result:
    return CliRunner().invoke(app, ["verify", str(folder)])


def names(folder: Path) -> list[str]:
    return [json.loads(line)["layer"] for line in (folder / "layers.jsonl").read_text().splitlines()]


def counts(weight: torch.Tensor, of: int) -> np.ndarray:
    """Nonzeros of every window of consecutive inputs, (out, windows)."""
    return np.stack([(part != 0).sum(dim=1).numpy() for part in weight.split(of, dim=1)], axis=1)


def change(folder: Path, how: Callable[[torch.Tensor], None]) -> torch.Tensor:
    """One layer is changed and its record with it, so that nothing but the weights themselves can tell."""
    weights = load_file(folder / "model.safetensors")
    how(weights[LAYER])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    rows = [json.loads(line) for line in (folder / "layers.jsonl").read_text().splitlines()]
    for row in rows:
        if row["layer"] == LAYER:
            row["sha256"] = digest(weights[LAYER])
    (folder / "layers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return weights[LAYER]


def one_more(weight: torch.Tensor, of: int) -> None:
    j = int((weight[0, :of] == 0).nonzero()[0])
    weight[0, j] = 1e-3


def one_less(weight: torch.Tensor, of: int) -> None:
    """The largest of a window, which was not zero before it was pruned."""
    weight[0, int(weight[0, :of].abs().argmax())] = 0.0


def into_the_next_window(weight: torch.Tensor, of: int) -> None:
    """The row and the layer keep their counts, two windows do not."""
    one_less(weight, of)
    j = of + int((weight[0, of : 2 * of] == 0).nonzero()[0])
    weight[0, j] = 1e-3


@pytest.mark.parametrize(
    ("pattern", "method", "spoils"),
    [
        ("2:4", "wanda", (one_more, into_the_next_window)),
        ("4:8", "sparsegpt", (one_less, into_the_next_window)),
        ("1:4", "magnitude", (into_the_next_window,)),
    ],
    ids=PATTERNS,
)
def test_every_window_of_the_saved_model_holds_n_and_one_that_does_not_is_named(
    pattern: str, method: str, spoils: tuple[Callable, ...], save_tiny: Callable[..., Path], prune_to: Callable
) -> None:
    out, _ = prune_to(save_tiny("llama", dtype=torch.bfloat16), method=method, sparsity=pattern)
    n, of = PATTERNS[pattern]
    saved = load_file(out / "model.safetensors")
    assert len(names(out)) == 21
    for name in names(out):
        assert (counts(saved[name], of) == n).all(), name
    found = verified(out)
    assert found.exit_code == 0, found.stdout
    for spoil in spoils:
        spoilt = Path(shutil.copytree(out, out.with_name(spoil.__name__)))
        weight = change(spoilt, lambda weight, spoil=spoil: spoil(weight, of))
        wrong = counts(weight, of) != n
        moved = spoil is into_the_next_window
        assert wrong.sum() == 1 + moved
        assert not moved or ((weight != 0).sum(dim=1) == n * weight.shape[1] // of).all()
        found = verified(spoilt)
        assert found.exit_code == 1
        said = [line for line in found.stdout.splitlines() if line.startswith("fails") and COUNT in line]
        assert len(said) == 1, found.stdout
        assert LAYER in said[0]
