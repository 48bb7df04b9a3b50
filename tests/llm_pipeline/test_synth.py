"""Models of real shape from a seed: they open, repeat themselves, and have the statistics that were promised."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from llm_pipeline import synth
from llm_pipeline.__main__ import app
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.shapes import SHAPES, config_like, shapes_of
from llm_pipeline.shards import layout, parse_size
from solvers.refusal import Refusal

TINY = ("tiny", "tiny-mistral", "tiny-qwen2", "tiny-opt")
PUBLISHED = {  # parameters, as the publishers count them
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-7b": 7_615_616_512,
    "opt-125m": 125_239_296,
}


def _write(folder, like="tiny", seed=0, **options):
    said = {"blocks": None, "dtype": "auto", "shard_size": "2GB", "tokens": None} | options
    synth.synthesise(like, folder, seed=seed, **said)
    return Checkpoint.open(folder)


def _digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_has_as_many_parameters_as_its_publisher_counts(name):
    assert sum(int(np.prod(shape)) for shape in shapes_of(config_like(name)).values()) == PUBLISHED[name]


@pytest.mark.parametrize("shard_size", ["2GB", "100KB"])
@pytest.mark.parametrize("name", TINY)
def test_a_model_opens_in_stock_transformers_with_every_tensor(tmp_path, name, shard_size):
    source = _write(tmp_path / name, name, shard_size=shard_size)
    model, said = AutoModelForCausalLM.from_pretrained(tmp_path / name, output_loading_info=True)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    assert (len(source.files) > 1) == (shard_size == "100KB")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.read(key)), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_that_of_the_files_and_of_the_config(tmp_path, dtype):
    source = _write(tmp_path / "m", dtype=dtype)
    assert {str(entry.dtype) for entry in source.entries.values()} == {f"torch.{dtype}"}
    assert json.loads((tmp_path / "m/config.json").read_text())["dtype"] == dtype


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        _write(tmp_path / name, seed=seed)
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
    assert _digests(tmp_path / "a") != _digests(tmp_path / "c")


@pytest.mark.parametrize("name", TINY)
def test_a_block_is_the_same_whichever_others_are_written(tmp_path, name):
    whole, part = _write(tmp_path / "whole", name), _write(tmp_path / "part", name, blocks="1:2")
    assert part.config.num_hidden_layers == 1
    prefix = BlockWalk(part, "cpu").family.blocks
    for key in part.names:
        assert torch.equal(part.read(key), whole.read(key.replace(f"{prefix}.0.", f"{prefix}.1."))), key
    assert not torch.equal(
        whole.read(next(k for k in whole.names if f"{prefix}.0." in k and k.endswith("v_proj.weight"))),
        whole.read(next(k for k in whole.names if f"{prefix}.1." in k and k.endswith("v_proj.weight"))),
    )


@pytest.mark.parametrize("shape", [(96, 160), (160, 96), (128, 128)])
def test_the_spectrum_is_the_power_law(shape):
    W = synth._power_law(np.random.default_rng(0), shape)
    found = np.linalg.svd(W.astype(np.float64), compute_uv=False)
    promised = np.arange(1, min(shape) + 1) ** -synth.DECAY
    rounding = np.finfo(np.float32).eps * np.log2(np.prod(shape)) * np.linalg.norm(promised)
    assert np.abs(found - promised).max() <= rounding


def test_the_scaled_spectrum_still_decays_as_a_power(tmp_path):
    """A diagonal factor moves every singular value by at most its own range (Ostrowski); the slope hardly moves."""
    W = _write(tmp_path / "m", "llama-100m", blocks="0:1", dtype="float32").read("model.layers.0.mlp.up_proj.weight")
    found = torch.linalg.svdvals(W.double()).numpy()
    middle = slice(10, len(found) // 2)
    k = np.arange(1, len(found) + 1)
    slope = np.polyfit(np.log(k[middle]), np.log(found[middle]), 1)[0]
    assert -1.5 * synth.DECAY < slope < -0.5 * synth.DECAY


def test_outlier_channels_stand_out_where_they_were_put(tmp_path):
    source = _write(tmp_path / "m", "llama-100m", blocks="0:2", dtype="float32", tokens="2x64")
    weights = synth.Weights(config_like("llama-100m"), 0)
    outliers = np.flatnonzero(weights.channels > 1)
    assert len(outliers) == round(synth.OUTLIERS * 1024)
    walk, ids = BlockWalk(source, "cpu"), np.load(tmp_path / "m/calibration.npy")
    hidden = walk.embed(ids)
    for i in range(2):
        hidden = walk.forward(walk.load(i), i, hidden)
        norms = hidden.square().mean(dim=(0, 1)).sqrt().numpy()
        assert set(np.argsort(norms)[-len(outliers) :]) == set(outliers)
        assert norms[outliers].min() > synth.RESIDUAL / 2 * np.median(norms)


def test_activations_neither_explode_nor_vanish_through_32_blocks(tmp_path):
    """Each of 64 writers adds at most rms(embedding)^2 / 64 to the mean square, so 1 + 1 bounds its growth (5)."""
    config = AutoConfig.for_model(**{**SHAPES["tiny"], "num_hidden_layers": 32, "hidden_size": 256})
    synth.write_model(config, tmp_path / "deep", seed=1, dtype=torch.float32, limit=10**9)
    walk = BlockWalk(Checkpoint.open(tmp_path / "deep"), "cpu")
    hidden = walk.embed(synth.zipf_tokens(config, 4, 64, 1))
    first = hidden.square().mean().sqrt().item()
    for i in range(32):
        hidden = walk.forward(walk.load(i), i, hidden)
        assert 0.5 <= hidden.square().mean().sqrt().item() / first <= 2
    assert hidden.square().mean().sqrt().item() > 1.05 * first


def test_tokens_follow_zipf(tmp_path):
    config = config_like("llama-100m")
    ids = synth.zipf_tokens(config, 64, 512, 0)
    counts = np.sort(np.bincount(ids.ravel(), minlength=config.vocab_size))[::-1]
    harmonic = (1 / np.arange(1, config.vocab_size + 1)).sum()
    expected = ids.size / harmonic / np.arange(1, 6)
    assert np.abs(counts[:5] - expected).max() <= 5 * np.sqrt(expected.max())


def test_the_command_writes_a_block_that_prunes(tmp_path):
    out = tmp_path / "block"
    asked = ["synth", "--like", "tiny", "--blocks", "0:1", "--tokens", "4x32", "--out", str(out)]
    assert CliRunner().invoke(app, asked).exit_code == 0
    pruned = ["prune", str(out), "--calibration", str(out / "calibration.npy"), "--method", "wanda"]
    done = CliRunner().invoke(app, [*pruned, "--out", str(tmp_path / "pruned"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["sparsity_measured"] == 0.5
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"like": "lama-7b"}, "Did you mean 'llama-7b'"),
        ({"blocks": "3:9"}, "0 <= a < b <= 4"),
        ({"blocks": "2"}, "0 <= a < b"),
        ({"dtype": "int8"}, "--dtype must be"),
        ({"shard_size": "2"}, "for example 2GB"),
        ({"tokens": "8"}, "for example 8x512"),
        ({"tokens": "1x512"}, "128 positions"),
        ({"seed": -1}, "at least 0"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(tmp_path, options, said):
    with pytest.raises(Refusal, match=said):
        _write(tmp_path / "m", **options)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(synth.Weights, "_matrix", stop)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_shards_hold_what_fits():
    shapes = {"a": (10,), "b": (10,), "big": (100,), "c": (1,)}
    names = layout(shapes, torch.float32, 80)
    assert list(names.values()) == [["a", "b"], ["big"], ["c"]]
    assert list(layout(shapes, torch.float32, parse_size("1MB"))) == ["model.safetensors"]


# planted defects: each must be seen by a check above


def test_a_stream_that_forgets_its_block_would_be_seen(tmp_path, monkeypatch):
    right = synth.Weights._stream
    monkeypatch.setattr(synth.Weights, "_stream", lambda self, *words: right(self, *words[1:]))
    with pytest.raises(AssertionError):
        test_a_block_is_the_same_whichever_others_are_written(tmp_path, "tiny")


def test_a_stream_by_the_number_in_the_file_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "parse_blocks", lambda text, total: (0, 1))
    with pytest.raises(AssertionError):
        test_a_block_is_the_same_whichever_others_are_written(tmp_path, "tiny")


def test_writers_that_ignore_the_depth_would_be_seen(tmp_path, monkeypatch):
    whole = synth.Weights.__init__

    def shallow(self, config, seed):
        whole(self, config, seed)
        self.blocks = 0.1

    monkeypatch.setattr(synth.Weights, "__init__", shallow)
    with pytest.raises(AssertionError):
        test_activations_neither_explode_nor_vanish_through_32_blocks(tmp_path)


def test_a_spectrum_off_by_a_thousandth_would_be_seen(monkeypatch):
    right = synth._power_law
    monkeypatch.setattr(synth, "_power_law", lambda draw, shape: right(draw, shape) * 1.001)
    with pytest.raises(AssertionError):
        test_the_spectrum_is_the_power_law((96, 160))
