"""From what a user types to models, texts and devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llm_pipeline import assemble, sources
from llm_pipeline.bundled import MODEL
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.documents import Text
from solvers.refusal import Refusal


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        (None, "embedded"),
        ("embedded", "embedded"),
        ("models/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("models/llama/", "llama"),
        ("org/llama-7b-v1.5", "llama-7b-v1.5"),
        ("data/stories260K.bin", "stories260K"),
    ],
)
def test_a_model_keeps_its_name_without_its_folder(typed: str | None, called: str, tiny: Path) -> None:
    assert sources.display_name(typed, Checkpoint.open(tiny)) == called


def test_the_folder_one_stands_in_has_its_own_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    assert sources.display_name(".", sources.model(".")) == "llama"


def test_given_ids_are_taken_whole_and_in_order_however_they_are_asked_for(tiny: Path, ids: Path) -> None:
    everything = np.load(ids)
    for name in (str(ids), f"{ids}:4x32"):
        np.testing.assert_array_equal(sources.calibration(name, Checkpoint.open(tiny), seed=5).ids, everything)


def test_given_ids_need_no_tokenizer(tiny: Path, ids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sources, "load_tokenizer")
    monkeypatch.delattr(assemble, "load_tokenizer")
    job = assemble.job(str(tiny), calibration=f"{ids}:2x32", text=str(ids))
    assert job.tokens.ids.shape == (2, 32)
    assert job.plan.calibration.tokenizer_sha256 == ""


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((2, 65), {}, r"has 64 positions; the sequences of given\.npy have 65"),
        ((0, 8), {}, r"tokens are required; given\.npy gives 0"),
        ((2, 8), {"seed": -1}, "--seed must be a whole number of at least 0; got -1"),
        ((2, 8), {"text": "GIVEN", "protocol": "documents"}, "are windows already; --protocol documents needs text"),
        ((2, 8), {"text": "GIVEN", "protocol": "document"}, "unknown protocol 'document'. Did you mean 'documents'"),
    ],
)
def test_ids_that_cannot_serve_are_refused(
    shape: tuple[int, int], options: dict, says: str, tiny: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.npy"
    np.save(given, np.zeros(shape, dtype=np.int64))
    options = {key: str(given) if value == "GIVEN" else value for key, value in options.items()}
    with pytest.raises(Refusal, match=says):
        assemble.job(str(tiny), calibration=str(given), **options)


def test_dtypes_are_the_checkpoints_or_one_of_four(save_tiny: Callable[..., Path]) -> None:
    source = Checkpoint.open(save_tiny("llama", dtype=torch.bfloat16))
    assert sources.dtype("auto", source) == torch.bfloat16
    assert sources.dtype("float64", source) == torch.float64
    with pytest.raises(Refusal, match="--dtype must be auto or one of"):
        sources.dtype("int8", source)


def test_auto_is_the_accelerator_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert sources.device("auto") == device


@pytest.mark.parametrize("name", ["meta", "tpu", "cuda:-1", ""])
def test_devices_that_hold_no_numbers_are_refused(name: str) -> None:
    with pytest.raises(Refusal, match="cannot be used here"):
        sources.device(name)


def test_only_the_embedded_model_brings_its_text(tiny: Path, tmp_path: Path) -> None:
    other = Checkpoint.open(tiny)
    assert sources.evaluation_text(None, other) is None
    assert sources.evaluation_text("none", other) is None
    embedded = sources.evaluation_text("embedded", other)
    assert isinstance(embedded, Text)
    assert embedded.source == "embedded, held out"
    with pytest.raises(Refusal, match=r"--calibration .* is required for a model of your own"):
        sources.calibration(None, other, 0)
    with pytest.raises(Refusal, match=r"there is no file .*absent\.txt"):
        sources.evaluation_text(str(tmp_path / "absent.txt"), other)


def test_nothing_typed_is_the_embedded_model() -> None:
    assert sources.model(None).path == sources.model("embedded").path == MODEL
