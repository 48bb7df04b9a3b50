"""Error correction: the drift is that of the tokens, later sites make good for earlier ones, verify replays it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from llm_pipeline import assemble
from llm_pipeline.__main__ import app
from llm_pipeline.blocks import BATCH, BlockWalk
from llm_pipeline.evidence import measure, see

DOWN = "mlp.down_proj"
FIRST = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
METHODS = ("wanda", "maiht", "sparsegpt", "admm", "fista")


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "layers.jsonl").read_text().splitlines()]
    return {row["layer"]: row for row in found}


@pytest.mark.parametrize("method", METHODS)
def test_later_sites_make_good_for_earlier_ones(method: str, tiny: Path, prune_to: Callable) -> None:
    plain, _ = prune_to(tiny, "plain", method=method, sparsity="70%")
    corrected, summary = prune_to(tiny, "corrected", method=method, sparsity="70%", error_correction="block")
    assert summary["certificates"]["fails"] == 0
    before, after = rows(plain), rows(corrected)
    for name in before:
        if "layers.0." in name and any(reader in name for reader in FIRST):
            assert before[name]["sha256"] == after[name]["sha256"]
    assert output_error(tiny, corrected) < output_error(tiny, plain)


def output_error(source: Path, pruned: Path) -> float:
    """Squared distance of block 0's outputs from the dense block's, on the calibration ids, over the dense output's."""
    ids = np.load(source.parent / "ids.npy")
    walks = [BlockWalk(assemble.sources.model(str(path)), "cpu", dtype=torch.float64) for path in (source, pruned)]
    hidden = walks[0].embed(ids)
    dense, after = (walk.forward(walk.load(0), 0, hidden) for walk in walks)
    return float((after - dense).square().sum() / (dense - hidden).square().sum())


@pytest.mark.parametrize(
    "options",
    [
        {"error_correction": "block"},
        {"inputs": "dense"},
        {"error_correction": "block", "inputs": "dense", "method": "fista"},
        {"error_correction": "block", "refine": "exact", "swaps": 2},
    ],
    ids=str,
)
def test_verify_replays_both_streams(options: dict[str, Any], tiny: Path, prune_to: Callable) -> None:
    out, summary = prune_to(tiny, **{"method": "maiht", **options})
    assert summary["certificates"]["fails"] == 0
    assert CliRunner().invoke(app, ["verify", str(out)]).exit_code == 0


@pytest.mark.parametrize(
    ("key", "right", "wrong"), [("error_correction", "block", "none"), ("inputs", "dense", "pruned")]
)
def test_verify_notices_a_plan_that_tells_another_stream(
    key: str, right: str, wrong: str, tiny: Path, prune_to: Callable
) -> None:
    out, _ = prune_to(tiny, method="wanda", sparsity="70%", **{key: right})
    plan = out / "plan.toml"
    plan.write_text(plan.read_text().replace(f'{key} = "{right}"', f'{key} = "{wrong}"'))
    found = CliRunner().invoke(app, ["verify", str(out)])
    assert found.exit_code == 1
    assert "|f(saved weights) - recorded objective| = 0" in found.output


def test_with_dense_inputs_a_block_is_judged_on_the_output_of_dense_predecessors(
    tiny: Path, prune_to: Callable
) -> None:
    out, _ = prune_to(tiny, method="magnitude", sparsity="70%", inputs="dense", dtype="float64")
    walk = BlockWalk(assemble.sources.model(str(tiny)), "cpu", dtype=torch.float64)
    hidden = walk.embed(np.load(tiny.parent / "ids.npy"))
    for i in (0, 1):
        hidden = walk.forward(walk.load(i), i, hidden)
    [inputs], _ = measure(walk, walk.load(2), 2, hidden, walk.family.sites[:1])
    name = "model.layers.2.self_attn.q_proj.weight"
    problem = inputs.problem(walk.checkpoint.read(name).double().numpy())
    saved = load_file(out / "model.safetensors")[name].double().numpy()
    assert rows(out)[name]["objective"] == pytest.approx(problem.value(saved), rel=1e-12)


@pytest.mark.parametrize("inputs", ["pruned", "dense"])
def test_the_null_method_returns_every_byte(inputs: str, tiny: Path, prune_to: Callable) -> None:
    out, summary = prune_to(tiny, method="dense", error_correction="block", inputs=inputs)
    files = [folder / "model.safetensors" for folder in (tiny, out)]
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 1
    assert summary["relative_error"] == 0


@pytest.mark.parametrize(
    ("option", "typed", "words"),
    [
        ("--error-correction", "blok", "--error-correction is one of none, block; got 'blok'. Did you mean 'block'?"),
        ("--inputs", "sparse", "--inputs is one of pruned, dense; got 'sparse'."),
    ],
)
def test_unknown_words_are_refused(option: str, typed: str, words: str, tiny: Path) -> None:
    found = CliRunner().invoke(app, ["prune", str(tiny), option, typed])
    assert found.exit_code == 2
    assert words in " ".join(found.output.split())


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside the dense block"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "opt"])
def test_a_site_sees_the_same_where_the_block_stops_behind_it(kind: str, beside: bool, save_tiny: Callable) -> None:
    walk = BlockWalk(assemble.sources.model(str(save_tiny(kind))), "cpu")
    hidden = walk.embed(np.arange(2 * BATCH * 16).reshape(-1, 16) % 64)
    block, dense = walk.load(1), walk.load(1) if beside else None
    with torch.no_grad():
        block.get_submodule(walk.family.readers[0]).weight[:, ::2] = 0
    for site in walk.family.sites:
        [stopped] = see(walk, block, 1, hidden, (site,), dense)
        [whole], _ = measure(walk, block, 1, hidden, (site,), dense)
        assert np.array_equal(stopped.gram.H, whole.gram.H)
        assert (stopped.drift is None) == (whole.drift is None)
        assert all(map(np.array_equal, stopped.drift or (), whole.drift or ()))
    assert not any(module._forward_pre_hooks for part in (block, walk.load(1)) for module in part.modules())
