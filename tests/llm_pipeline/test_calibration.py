"""Text, token streams and windows, against small cases worked out by hand."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from llm_pipeline import token_stream as streams
from llm_pipeline.calibration import calibration_tokens, evaluation_tokens, parse_calibration
from llm_pipeline.documents import Text, load_documents, load_text
from llm_pipeline.token_stream import load_tokenizer, token_stream, tokenizer_sha256
from solvers.refusal import Refusal


def letters(**more: int) -> PreTrainedTokenizerFast:
    """One token per letter a..z (2..27), with <s> (0) in front of every document."""
    vocabulary = {"<s>": 0, "?": 1, **{chr(97 + i): 2 + i for i in range(26)}, **more}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="?", model_max_length=4)


ALPHABET = Text.of(["abcdefghijklm", "nopqrstuvwxyz"], "alphabet")  # 28 tokens with two <s>


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c4.txt:128x2048", (Path("c4.txt"), 128, 2048)),
        ("dir/c4.jsonl", (Path("dir/c4.jsonl"), None, None)),
        ("hf:allenai/c4/en/train:4x8", (Path("hf:allenai/c4/en/train"), 4, 8)),
        ("hf:allenai/c4", (Path("hf:allenai/c4"), None, None)),
        ("C:odd.txt", (Path("C:odd.txt"), None, None)),
    ],
)
def test_a_calibration_is_parsed(text: str, expected: tuple) -> None:
    assert parse_calibration(text) == expected


@pytest.mark.parametrize("text", ["", "c4.txt:0x4", "c4.txt:4x0"])
def test_an_impossible_calibration_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match=r"FILE:NxL.*both at least 1"):
        parse_calibration(text)


def test_documents_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("one\n<|endoftext|>\n two <|endoftext|>\n\n")
    (tmp_path / "one.txt").write_text("one\n\ntwo\n")
    lines = [json.dumps({"text": "a\u2028b", "url": "x"}), "", json.dumps({"text": "c"})]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    assert [d.strip() for d in load_documents(tmp_path / "many.txt")] == ["one", "two"]
    assert load_documents(tmp_path / "one.txt") == ["one\n\ntwo\n"]
    assert load_documents(tmp_path / "rows.jsonl") == ["a\u2028b", "c"]
    text = load_text(tmp_path / "one.txt")
    assert (text.source, text.sha256) == ("one.txt", hashlib.sha256(b"one\n\ntwo\n").hexdigest())


@pytest.mark.parametrize(
    ("name", "stored", "says"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', r"line 2 of a\.jsonl is not \(KeyError: 'text'\)"),
        ("a.jsonl", b'{"text": "x"}\n\nnot json\n', r"line 3 of a\.jsonl is not"),
        ("a.jsonl", b'{"text": 5}\n', r"line 1 of a\.jsonl is not \(TypeError"),
        ("a.jsonl", b"[1]\n", r"line 1 of a\.jsonl is not \(TypeError"),
        ("a.txt", b" \n", r"at least one document; a\.txt is empty"),
        ("a.txt", b"ok \xff", r"must be UTF-8; a\.txt is not at byte 3"),
        ("a.csv", b"x", r"a\.csv is none of them"),
    ],
)
def test_text_that_cannot_be_read_is_refused(name: str, stored: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(stored)
    with pytest.raises(Refusal, match=says):
        load_text(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "a.npy"):
        with pytest.raises(Refusal, match="could not be read"):
            calibration_tokens(tmp_path / name, letters(), n=1, length=1)


def test_a_data_set_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Refusal, match=r"hf:allenai/c4/en needs the package datasets.*ModuleNotFoundError"):
        load_documents("hf:allenai/c4/en")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:org/set", ("org/set", (), "train")),
        ("hf:org/set/test", ("org/set", (), "test")),
        ("hf:org/set/en/validation", ("org/set", ("en",), "validation")),
        ("hf:org/set/en", ("org/set", ("en",), "train")),
    ],
)
def test_a_data_set_is_named_by_its_parts(name: str, expected: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Datasets:
        @staticmethod
        def load_dataset(path: str, *config: str, split: str) -> dict[str, list[str]]:
            asked.append((path, config, split))
            return {"text": ["one", " ", "two"]}

    monkeypatch.setitem(sys.modules, "datasets", Datasets)
    assert load_documents(name) == ["one", "two"]
    assert asked == [expected]


@pytest.mark.parametrize("characters", [1, 3, 10**6])
def test_a_stream_is_every_document_with_its_special_tokens(
    characters: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "PIECE_CHARACTERS", characters)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    stream = token_stream([" ab\n", "zabcdef", "b"], letters())
    assert stream.tolist() == [0, 2, 3, 0, 27, 2, 3, 4, 5, 6, 7, 0, 3]
    assert stream.dtype == np.int64
    assert not caplog.records  # the second document is longer than the tokenizer's model_max_length


def test_windows_are_disjoint_and_drawn_by_the_seed() -> None:
    tokens = calibration_tokens(ALPHABET, letters(), n=4, length=5, seed=1)
    stream = [0, *range(2, 15), 0, *range(15, 28)]
    windows = [tuple(stream[i : i + 5]) for i in range(0, 25, 5)]
    order = np.random.default_rng(1).permutation(5)[:4]
    assert [tuple(row) for row in tokens.ids] == [windows[i] for i in order]
    assert tokens.source == "alphabet"
    assert tokens.sha256 == hashlib.sha256(b"abcdefghijklm\0nopqrstuvwxyz").hexdigest()
    assert tokens.tokenizer_sha256 == tokenizer_sha256(letters())
    assert tokens.protocol.startswith("4 of 5 disjoint windows of 5 tokens")
    assert "seed 1" in tokens.protocol
    again = calibration_tokens(ALPHABET, letters(), n=4, length=5, seed=1)
    np.testing.assert_array_equal(again.ids, tokens.ids)
    draws = {calibration_tokens(ALPHABET, letters(), n=4, length=5, seed=s).ids.tobytes() for s in range(6)}
    assert len(draws) > 1


def test_windows_of_an_evaluation_keep_their_order_and_drop_the_tail() -> None:
    tokens = evaluation_tokens(ALPHABET, letters(), length=9)
    np.testing.assert_array_equal(tokens.ids, [[0, *range(2, 10)], [*range(10, 15), 0, 15, 16, 17], [*range(18, 27)]])


@pytest.mark.parametrize(
    ("n", "length", "says"),
    [
        (6, 5, r"6 x 5 = 30 tokens are required; alphabet gives 28\. The most that fits is 5x5"),
        (1, 29, r"1 x 29 = 29 tokens are required; alphabet gives 28\. The most that fits is 1x28"),
        (None, 5, "N x 5"),
        (2, None, "a length is missing"),
    ],
)
def test_too_little_text_is_refused_with_what_would_fit(n: int | None, length: int | None, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        calibration_tokens(ALPHABET, letters(), n=n, length=length)


def test_what_is_said_to_fit_does_fit() -> None:
    assert calibration_tokens(ALPHABET, letters(), n=5, length=5).ids.shape == (5, 5)
    assert calibration_tokens(ALPHABET, letters(), n=1, length=28).ids.shape == (1, 28)
    with pytest.raises(Refusal, match="1 x 29"):
        evaluation_tokens(ALPHABET, letters(), length=29)


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    assert calibration_tokens(ALPHABET, letters(), n=5, length=5, vocab_size=25).ids.max() == 24
    with pytest.raises(Refusal, match="below the vocabulary size 24 of the model; alphabet gives 24"):
        calibration_tokens(ALPHABET, letters(), n=1, length=5, vocab_size=24)


def test_stored_ids_are_taken_as_they_are_or_drawn(tmp_path: Path) -> None:
    path, ids = tmp_path / "ids.npy", np.arange(24, dtype=np.uint16).reshape(6, 4)
    np.save(path, ids)
    everything = calibration_tokens(path)
    np.testing.assert_array_equal(everything.ids, ids)
    assert (everything.source, everything.tokenizer_sha256) == ("ids.npy", None)
    assert everything.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    drawn = calibration_tokens(path, n=3, length=4, seed=5)
    np.testing.assert_array_equal(drawn.ids, ids[np.random.default_rng(5).permutation(6)[:3]])
    for asked, says in [
        ({"n": 7}, "7 x 4 = 28 tokens are required; ids.npy gives 24"),
        ({"length": 5}, "sequences of 5 tokens were asked for; those of ids.npy have 4"),
        ({"vocab_size": 23}, "ids.npy gives 23"),
    ]:
        with pytest.raises(Refusal, match=says):
            calibration_tokens(path, **asked)


@pytest.mark.parametrize("stored", [np.zeros(3, int), np.zeros((2, 2)), np.array([[-1, 2]]), np.array([[None]])])
def test_arrays_that_are_no_ids_are_refused(stored: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", stored)
    with pytest.raises(Refusal, match=r"N x L array of integers|could not be read as a \.npy array"):
        calibration_tokens(tmp_path / "ids.npy")


def test_a_tokenizer_is_known_by_what_it_does(tmp_path: Path) -> None:
    tokenizer = letters()
    before = tokenizer_sha256(tokenizer)
    tokenizer(["abcdef"], truncation=True, max_length=3)
    assert tokenizer_sha256(tokenizer) == before
    assert tokenizer_sha256(letters(ä=28)) != before
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_sha256(load_tokenizer(tmp_path)) == before


def test_a_model_without_a_tokenizer_is_refused(tiny: Path) -> None:
    with pytest.raises(Refusal, match=r"text needs a tokenizer; .* has none of tokenizer\.json"):
        load_tokenizer(tiny)
    with pytest.raises(Refusal, match="a tokenizer is missing"):
        calibration_tokens(ALPHABET, None, n=1, length=2)
