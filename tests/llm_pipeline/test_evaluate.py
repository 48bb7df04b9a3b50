"""Perplexity against the textbook formula in float64, and intervals against cases with known answers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from llm_pipeline import evaluate
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.calibration import PAD, Tokens
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.documents import Text
from llm_pipeline.evaluate import paired_difference, perplexity, score_windows
from solvers.refusal import Refusal
from theory_checks import allowance

IDS = np.random.default_rng(5).integers(3, 97, size=(7, 13))
TOKENS = Tokens(IDS, "random", "00", None, "given")
CHAIN = 3 * (32 + 8 + 13 + 32 + 40) + 32 + 97  # products that add up to a logit, block by block, and to a softmax


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to the rounding of float64 along the chain of sums."""
    assert (np.abs(found - expected) <= [allowance(nll, CHAIN) for nll in expected]).all(), found - expected


def textbook(folder: Path, ids: np.ndarray) -> np.ndarray:
    """Sum of -log p(token | tokens before it) per window, from logits in float64 and a softmax written out."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        logits = model(torch.as_tensor(ids)).logits.numpy()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return np.array([-sum(np.log(p[w, t, ids[w, t + 1]]) for t in range(ids.shape[1] - 1)) for w in range(len(ids))])


def test_perplexity_is_the_textbook_formula(tiny: Path) -> None:
    found, expected = perplexity(tiny, TOKENS, dtype=torch.float64), textbook(tiny, IDS)
    assert_near(found.window_nll, expected)
    assert (found.protocol, found.text, found.windows, found.tokens) == ("windows-13", "random", 7, 7 * 12)
    nll = expected.sum() / (7 * 12)
    assert abs(found.nll - nll) <= allowance(nll, CHAIN)
    assert abs(found.perplexity - np.exp(nll)) <= np.exp(nll) * np.expm1(allowance(nll, CHAIN))
    single = perplexity(tiny, TOKENS).window_nll
    assert not np.array_equal(single, found.window_nll)
    assert (np.abs(single - expected) <= [allowance(nll, 32, np.float32) for nll in expected]).all()  # of a whole row


def test_the_batch_is_sized_by_its_logits_and_progress_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = BlockWalk(Checkpoint.open(tiny), "cpu", dtype=torch.float64)
    told: list[tuple[int, int]] = []
    whole = score_windows(walk, IDS)
    monkeypatch.setattr(evaluate, "LOGIT_BYTES", 3 * 4 * 13 * 97)
    parts = score_windows(walk, IDS, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert_near(parts, whole)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3 tied", "opt", "opt norm after"])
def test_block_by_block_gives_the_logits_of_the_whole_model_bit_for_bit(
    kind: str, save_tiny: Callable[..., Path]
) -> None:
    folder, ids = save_tiny(kind), torch.as_tensor(IDS[:4])
    walk = BlockWalk(Checkpoint.open(folder), "cpu")
    hidden = walk.embed(ids.numpy(), batch=4)
    for i in range(len(walk)):
        hidden = walk.forward(walk.load(i), i, hidden, batch=4)
    with torch.inference_mode():
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype=walk.dtype).eval()(ids, use_cache=False).logits
    assert torch.equal(walk.logits(walk.ends(), ids, hidden), whole)
    assert not torch.equal(walk.logits(walk.ends(), ids, 2 * walk.embed(ids.numpy())), whole)


def test_a_block_is_read_once_for_all_windows_and_again_only_where_memory_ends(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more than one of them is alive: a model of any size passes."""
    loaded, alive, load = [], [], BlockWalk.load

    def counted(walk: BlockWalk, i: int) -> torch.nn.Module:
        alive[:] = [block for block in alive if block() is not None]
        assert len(alive) <= 1
        block = load(walk, i)
        loaded.append(i)
        alive.append(weakref.ref(block))
        return block

    monkeypatch.setattr(BlockWalk, "load", counted)
    whole = perplexity(tiny, TOKENS, dtype=torch.float64)
    blocks = list(range(Checkpoint.open(tiny).config.num_hidden_layers))
    assert loaded == blocks
    monkeypatch.setattr(evaluate, "LOGIT_BYTES", 0)  # batches of one window
    monkeypatch.setattr(evaluate, "choose", lambda *needed: "disk")
    monkeypatch.setattr(evaluate, "free_memory", lambda: 0)
    one_by_one = perplexity(tiny, TOKENS, dtype=torch.float64)
    assert loaded == blocks * (1 + len(IDS))
    assert_near(one_by_one.window_nll, whole.window_nll)


def test_the_interval_is_that_of_a_mean_over_windows(tiny: Path) -> None:
    found = perplexity(tiny, TOKENS)
    per_token = found.window_nll / 12
    low, high = np.log(found.interval)
    assert low < found.nll < high
    error = per_token.std() / np.sqrt(7)  # of the mean; the bootstrap's own deviation
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert perplexity(tiny, replace(TOKENS, ids=IDS[:1])).interval is None
    repeated = perplexity(tiny, replace(TOKENS, ids=np.repeat(IDS[:1], 4, axis=0)), dtype=torch.float64)
    assert np.ptp(repeated.interval) <= 2 * repeated.perplexity * np.expm1(allowance(repeated.nll, CHAIN))


def test_intervals_repeat_bit_for_bit(tiny: Path) -> None:
    assert perplexity(tiny, TOKENS).interval == perplexity(tiny, TOKENS).interval


def test_a_paired_difference_is_sharper_than_two_intervals(tiny: Path) -> None:
    dense = perplexity(tiny, TOKENS)
    worse = replace(dense, window_nll=dense.window_nll + 12 * 0.25)
    found = paired_difference(worse, dense)
    assert found.nll == pytest.approx(0.25)
    assert found.interval == pytest.approx((0.25, 0.25))
    assert paired_difference(dense, dense).nll == 0.0
    assert paired_difference(dense, worse).nll == pytest.approx(-0.25)


@pytest.mark.parametrize(
    "other", [{"protocol": "windows-14"}, {"text_sha256": "01"}, {"tokenizer_sha256": "x"}, {"windows": 6}]
)
def test_only_like_is_compared_with_like(other: dict, tiny: Path) -> None:
    dense = perplexity(tiny, TOKENS)
    with pytest.raises(Refusal, match="of one protocol on one text with one tokenizer; windows-13 on random"):
        paired_difference(dense, replace(dense, **other))


def add_tokenizer(folder: Path, names: int = 97) -> None:
    backend = Tokenizer(models.WordLevel({str(i): i for i in range(names)}, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)


def test_text_is_tokenised_and_cut_and_equals_the_same_ids(tiny: Path, tmp_path: Path) -> None:
    add_tokenizer(tiny)
    stream = IDS.reshape(-1)
    (tmp_path / "numbers.txt").write_text(" ".join(map(str, stream)))
    np.save(tmp_path / "numbers.npy", stream[:90].reshape(9, 10))
    found = perplexity(tiny, tmp_path / "numbers.txt", length=10)
    same = perplexity(tiny, tmp_path / "numbers.npy")
    np.testing.assert_array_equal(found.window_nll, same.window_nll)
    assert (found.text, found.protocol, found.windows) == ("numbers.txt", "windows-10", 9)
    text = Text.of([" ".join(map(str, stream))], "memory")
    np.testing.assert_array_equal(perplexity(tiny, text, length=10).window_nll, found.window_nll)
    assert perplexity(tiny, text).protocol == "windows-64"  # the positions of the model


def test_windows_the_model_cannot_take_are_refused(tiny: Path) -> None:
    add_tokenizer(tiny)
    with pytest.raises(Refusal, match="the 64 positions of the model; 65 were asked for"):
        perplexity(tiny, Text.of(["1 2 3"], "short"), length=65)
    with pytest.raises(Refusal, match="the 64 positions of the model; 91 were asked for"):
        perplexity(tiny, replace(TOKENS, ids=IDS.reshape(1, -1)))
    with pytest.raises(Refusal, match="between 2 tokens"):
        perplexity(tiny, TOKENS, length=1)


def test_the_tokenizer_of_another_model_is_refused(tiny: Path) -> None:
    add_tokenizer(tiny, names=200)
    with pytest.raises(Refusal, match="vocabulary size 97 of the model; far gives 150"):
        perplexity(tiny, Text.of(["1 150 3"], "far"), length=3)


def test_missing_tensors_are_refused_rather_than_drawn_at_random(
    save_tiny: Callable[..., Path],
) -> None:
    folder = save_tiny("llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Refusal, match=r"does not hold: model\.layers\.0\.mlp\.up_proj\.weight"):
        perplexity(folder, TOKENS)


def test_a_document_is_scored_by_itself_and_weighs_by_its_tokens(tiny: Path, tmp_path: Path) -> None:
    ids = np.array([[1, 2, 3, 4, 5], [6, 7, PAD, PAD, PAD]])
    both = perplexity(tiny, Tokens(ids, "pair", "00", None, "given", unit="documents", cut=9))
    alone = [perplexity(tiny, Tokens(row[row != PAD][None], "one", "00", None, "given")) for row in ids]
    assert (both.protocol, both.tokens) == ("documents-9", 4 + 1)
    assert np.allclose(both.window_nll, [one.nll * one.tokens for one in alone])
    assert np.isclose(both.nll, sum(one.nll * one.tokens for one in alone) / 5)
