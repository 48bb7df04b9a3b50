"""The embedded text, the embedded model, and the recipe that made the second from the first."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from llm_pipeline.bundled import MODEL, text, train
from solvers.refusal import Refusal

WINDOWS = 30  # of 256 tokens: a second of work
PROSE = "The quick brown fox jumps over the lazy dog and goes home to sleep until the next morning comes. " * 5


@pytest.fixture(scope="module", autouse=True)
def _threads_of_the_recipe():
    """The thread count of the record; two threads on a busy pair of cores wait for each other at every product."""
    before = torch.get_num_threads()
    torch.set_num_threads(train.THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def held_out(tokenizer):
    return train.token_stream(tokenizer, text.held_out_text())


@pytest.fixture
def library(tmp_path):
    """A folder of 200 modules that would stop the test if they were imported, and of pages that must not be read."""
    for number in range(200):
        _write(tmp_path / f"json/page_{number:03}.py", f"Page {number}. {PROSE}\n\nSaid on every page.")
    for skipped in ("test/page.py", "json/tests/page.py", "site-packages/page.py", "encodings/cp1252.py"):
        _write(tmp_path / skipped, f"Page of {skipped}. {PROSE}")
    _write(tmp_path / "json/short.py", "Too short.")
    _write(tmp_path / "json/table.py", "| 0x10 | 0x20 | 0x30 |\n" * 40)
    return tmp_path


def _write(path: Path, docstring: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nested = f"if True:\n    def inner():\n        '''Inner page of {path.name}.'''"
    path.write_text(f"'''{docstring}'''\n{nested}\nraise SystemExit\n")


def _paragraphs(texts: list[str]) -> set[str]:
    return {paragraph.strip() for page in texts for paragraph in page.split("\n\n")}


def test_no_paragraph_is_both_calibrated_on_and_evaluated_on():
    assert _paragraphs(text.training_text()).isdisjoint(_paragraphs(text.held_out_text()))


def test_the_two_parts_together_are_all_the_documents():
    parts = text.training_text() + text.held_out_text()
    assert sorted(parts) == sorted(document.text for document in text.documents())


def test_names_are_distinct_and_in_order():
    names = [document.name for document in text.documents()]
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("topic:typesseq", True),
        ("topic:assert", True),
        ("module:enum", True),
        ("module:http.client", True),
        ("topic:while", False),
        ("topic:class", False),
        ("module:json", False),
        ("module:os", False),
    ],
)
def test_the_split_depends_on_the_name_alone_and_never_changes(name, held_out):
    assert text.is_held_out(name) is held_out


def test_there_is_enough_text_and_about_a_tenth_is_held_out():
    training, evaluation = (sum(map(len, part())) for part in (text.training_text, text.held_out_text))
    assert training > 1_000_000
    assert 0.05 < evaluation / (training + evaluation) < 0.2


def test_the_text_is_english():
    words = " ".join(text.held_out_text()).lower().split()
    assert words.count("the") > 0.03 * len(words)


def test_modules_are_read_without_being_imported_and_only_the_librarys_prose_is_kept(library):
    modules = [page.name for page in text.documents(library) if page.name.startswith("module:")]
    assert modules == [f"module:json.page_{number:03}" for number in range(200)]


def test_nested_docstrings_are_read_and_a_repeated_paragraph_is_kept_once(library):
    first, second = (page.text for page in text.documents(library)[:2])
    assert first.endswith("Said on every page.\n\nInner page of page_000.py.")
    assert second.endswith("comes. \n\nInner page of page_001.py.")


def test_an_interpreter_without_sources_is_refused(tmp_path):
    with pytest.raises(Refusal, match=r"(?s)sources of the standard library.* gave .*--calibration FILE"):
        text.documents(tmp_path)


def test_an_interpreter_without_topics_is_refused(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(Refusal, match=r"no module pydoc_data\.topics"):
        text.documents(library)


def test_the_embedded_model_is_named_without_torch():
    script = "import sys, llm_pipeline.bundled as b; sys.exit('torch' in sys.modules or not b.MODEL.is_dir())"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_weights_are_at_most_four_megabytes_of_float32(model):
    assert (MODEL / "model.safetensors").stat().st_size <= 4_000_000
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_model_is_a_llama_with_grouped_queries_and_widths_in_fours(model):
    assert isinstance(model, LlamaForCausalLM)
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert all(size % 4 == 0 for weight in model.parameters() for size in weight.shape)


def test_the_tokenizer_opens_a_text_with_the_separator_and_loses_nothing(tokenizer):
    page = text.held_out_text()[0] + " naïve → 漢字\n\t end"
    assert tokenizer.decode(tokenizer(page)["input_ids"]) == train.SEPARATOR + page
    assert len(tokenizer) == train.VOCABULARY


def test_no_model_file_knows_the_machine_that_wrote_it():
    files = {path.name: path.read_bytes() for path in MODEL.iterdir()}
    assert files.keys() == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    }
    places = [b"/root", b"/home", b"/work", b"/tmp", str(MODEL.parent).encode(), sys.prefix.encode()]
    assert not [(name, place) for name, content in files.items() for place in places if place in content]


def test_the_model_predicts_held_out_text(model, tokenizer, held_out):
    evaluated = held_out[: WINDOWS * train.LENGTH]
    trained = train.perplexity(model, evaluated)
    unigram = train.unigram_perplexity(train.token_stream(tokenizer, text.training_text()), evaluated)
    assert trained < unigram / 3
    assert trained < train.perplexity(train.shuffled(model, seed=0), evaluated) / 3


def test_the_record_of_the_training_is_true_of_the_model(model, held_out):
    record = json.loads((MODEL / "training.json").read_text())
    if train.fingerprint(text.documents()) != record["text_sha256"]:
        pytest.skip(f"recorded on the text of Python {record['python']}; this is {sys.version.split()[0]}")
    assert record["held_out_tokens"] == len(held_out)
    # Another processor orders float32 sums differently: some 1e-6 of a loss near 3, far below 1e-4.
    assert train.perplexity(model, held_out) == pytest.approx(record["held_out_perplexity"], rel=1e-4)


def test_shuffling_keeps_every_number_and_the_original(model):
    before = model.lm_head.weight.detach().clone()
    moved = train.shuffled(model, seed=0).lm_head.weight
    assert torch.equal(moved.flatten().sort().values, before.flatten().sort().values)
    assert not torch.equal(moved, before)
    assert torch.equal(model.lm_head.weight, before)


def test_perplexity_of_a_model_that_knows_nothing_is_the_vocabulary():
    blank = LlamaForCausalLM(train.architecture())
    torch.nn.init.zeros_(blank.lm_head.weight)
    ids = torch.arange(300) % train.VOCABULARY
    assert train.perplexity(blank, ids) == pytest.approx(train.VOCABULARY, rel=1e-6)


def test_unigram_perplexity_by_hand():
    seen = torch.tensor([7, 7, 7])
    scored = torch.tensor([1, 7, 7, 5, 3])  # windows of two: (1, 7) and (7, 5); the last token is a tail
    total = 3 + train.VOCABULARY
    expected = math.sqrt(total / 4 * total / 1)
    assert train.unigram_perplexity(seen, scored, length=2) == pytest.approx(expected, rel=1e-12)


def test_the_same_seed_trains_the_same_weights_and_they_learn():
    first, second = (_short_training(seed=0) for _ in range(2))
    assert first == second
    assert first != _short_training(seed=1)
    assert first[-1] < first[0]


def _short_training(*, seed: int) -> list[float]:
    """Losses of three updates of one block on a text of eight words."""
    torch.manual_seed(seed)
    config = train.architecture()
    config.num_hidden_layers = 1
    losses: list[float] = []
    train.train(
        LlamaForCausalLM(config),
        torch.arange(10 * train.LENGTH * train.BATCH) % 8,
        steps=3,
        generator=torch.Generator().manual_seed(seed),
        report=lambda step, loss: losses.append(loss),
    )
    return losses


def test_bad_usage_leaves_with_two_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train.text, "training_text", lambda: text.documents(tmp_path))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert train.main(["--out", str(tmp_path / "model")]) == 2
    assert "No substitute was used." in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        train.main(["--steps", "0"])
