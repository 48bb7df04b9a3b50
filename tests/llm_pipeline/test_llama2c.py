"""Import of llama2.c files, against the format's own algorithms written out here."""

from __future__ import annotations

import shutil
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.documents import load_documents
from llm_pipeline.evaluate import perplexity
from llm_pipeline.llama2c import import_llama2c
from solvers.refusal import Refusal
from theory_checks import allowance

RNG = np.random.default_rng(2)


def direct_encoding(text: str, pieces: dict[str, int], scores: list[float]) -> list[int]:
    """BOS, a space, one id per character, then the best-scored adjacent merge until none is left."""
    names = {i: piece for piece, i in pieces.items()}
    ids: list[int] = []
    for character in (" " + text) if text else "":
        known = character in pieces
        ids += [pieces[character]] if known else [byte + 3 for byte in character.encode()]
    while True:
        joined = [pieces.get(names[a] + names[b], -1) for a, b in pairwise(ids)]
        candidates = [(-scores[piece], place) for place, piece in enumerate(joined) if piece >= 0]
        if not candidates:
            return [1, *ids]
        place = min(candidates)[1]
        ids[place : place + 2] = [joined[place]]


def stored_pieces(path: Path) -> tuple[dict[str, int], list[float]]:
    stored, at, pieces, scores = path.read_bytes(), 4, {}, []
    while at < len(stored):
        score, size = struct.unpack("<fi", stored[at : at + 8])
        pieces[stored[at + 8 : at + 8 + size].decode()] = len(scores)
        scores.append(score)
        at += 8 + size
    return pieces, scores


def write_tokenizer(path: Path, pieces: list[str]) -> None:
    """Three specials, 256 bytes, then the pieces with falling scores."""
    everything = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    rows = [struct.pack("<fi", -float(max(0, i - 259)), len(p.encode())) + p.encode() for i, p in enumerate(everything)]
    path.write_bytes(struct.pack("<i", max(map(len, everything))) + b"".join(rows))


def write_model(path: Path, *, shared: bool = True, vocab: int = 263) -> dict[str, np.ndarray]:
    """A random model of 2 layers, width 16, 4 heads of 4, 2 key heads, MLP 20, 32 positions."""
    shapes = {
        "embedding": (vocab, 16), "norm1": (2, 16), "q": (2, 16, 16), "k": (2, 8, 16), "v": (2, 8, 16),
        "o": (2, 16, 16),
        "norm2": (2, 16), "gate": (2, 20, 16), "down": (2, 16, 20), "up": (2, 20, 16), "norm": (16,),
        "tables": (2, 32, 2),
    }  # fmt: skip
    shapes |= {} if shared else {"head": (vocab, 16)}
    parts = {name: RNG.standard_normal(shape).astype("<f4") * 0.4 for name, shape in shapes.items()}
    header = struct.pack("<7i", 16, 20, 2, 4, 2, vocab if shared else -vocab, 32)
    path.write_bytes(header + b"".join(part.astype("<f4").tobytes() for part in parts.values()))
    return parts


def direct_logits(parts: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The forward pass of llama2.c in float64, head by head, rotations on neighbouring pairs."""
    parts = {name: part.astype(np.float64) for name, part in parts.items()}

    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight

    def turned(x: np.ndarray) -> np.ndarray:  # (t, heads, 4)
        angle = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(2) / 2)  # (t, 2)
        pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None]
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)

    x = parts["embedding"][ids]
    for i in range(2):
        a = norm(x, parts["norm1"][i])
        q, k = turned((a @ parts["q"][i].T).reshape(-1, 4, 4)), turned((a @ parts["k"][i].T).reshape(-1, 2, 4))
        v = (a @ parts["v"][i].T).reshape(-1, 2, 4)
        mixed = np.zeros_like(q)
        for t in range(len(x)):
            for head in range(4):
                weights = np.exp(k[: t + 1, head // 2] @ q[t, head] / 2)
                mixed[t, head] = weights / weights.sum() @ v[: t + 1, head // 2]
        x = x + mixed.reshape(len(x), 16) @ parts["o"][i].T
        b = norm(x, parts["norm2"][i])
        gate = b @ parts["gate"][i].T
        x = x + (gate / (1 + np.exp(-gate)) * (b @ parts["up"][i].T)) @ parts["down"][i].T
    return norm(x, parts["norm"]) @ parts.get("head", parts["embedding"]).T


@pytest.mark.parametrize("shared", [True, False])
def test_the_imported_model_computes_what_llama2c_computes(shared: bool, tmp_path: Path) -> None:
    parts = write_model(tmp_path / "m.bin", shared=shared)
    write_tokenizer(tmp_path / "tok.bin", [" ", "a", "b", "ab"])
    folder = import_llama2c(tmp_path / "m.bin", tmp_path / "out")
    ids = RNG.integers(0, 263, size=24)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        logits = model(torch.as_tensor(ids)[None]).logits[0].numpy()
    expected = direct_logits(parts, ids)
    rotations = allowance(np.abs(expected).max(), len(ids), np.float32)  # angles up to len(ids), taken in float32
    assert np.abs(logits - expected).max() <= rotations
    names = Checkpoint.open(folder).names
    assert ("lm_head.weight" in names) == (not shared)
    assert {path.name for path in tmp_path.iterdir()} == {"m.bin", "tok.bin", "out"}


def test_unknown_characters_become_bytes_and_come_back(tmp_path: Path) -> None:
    write_model(tmp_path / "m.bin")
    write_tokenizer(tmp_path / "tok.bin", [" ", "a", "b", "ab"])
    tokenizer = AutoTokenizer.from_pretrained(import_llama2c(tmp_path / "m.bin", tmp_path / "out"))
    assert tokenizer("ab é ▁").input_ids == [1, 259, 262, 259, 0xC3 + 3, 0xA9 + 3, 259, 0xE2 + 3, 0x96 + 3, 0x81 + 3]
    assert tokenizer("").input_ids == [1]
    for text in ("ab é ▁", "  ab", "日本\n"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def spoil(folder: Path, how: str) -> None:
    write_model(folder / "m.bin")
    write_tokenizer(folder / "tok.bin", [" ", "a", "b", "ab"])
    stored = {name: (folder / name).read_bytes() for name in ("m.bin", "tok.bin")}
    actions = {
        "short": lambda: (folder / "m.bin").write_bytes(stored["m.bin"][:-4]),
        "long": lambda: (folder / "m.bin").write_bytes(stored["m.bin"] + b"\0"),
        "stub": lambda: (folder / "m.bin").write_bytes(stored["m.bin"][:20]),
        "pickle": lambda: (folder / "m.bin").write_bytes(b"PK\3\4" * 100),
        "absent": (folder / "m.bin").unlink,
        "no tokenizer": (folder / "tok.bin").unlink,
        "two tokenizers": lambda: shutil.copy(folder / "tok.bin", folder / "tok512.bin"),
        "cut tokenizer": lambda: (folder / "tok.bin").write_bytes(stored["tok.bin"][:-1]),
        "other tokenizer": lambda: write_tokenizer(folder / "tok.bin", [" ", "a"]),
        "twins": lambda: write_tokenizer(folder / "tok.bin", [" ", "a", "b", "a"]),
        "occupied": (folder / "out").mkdir,
    }
    actions[how]()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("short", r"must be \d+ bytes long by its header \(16, 20, 2, 4, 2, 263, 32\)"),
        ("long", r"must be \d+ bytes long by its header"),
        ("stub", "must begin with the seven sizes"),
        ("pickle", "must begin with the seven sizes"),
        ("absent", "there is no .*m.bin"),
        ("no tokenizer", "has none. Copy the right one"),
        ("two tokenizers", r"has tok\.bin, tok512\.bin"),
        ("cut tokenizer", "must be a llama2.c tokenizer; it breaks off"),
        ("other tokenizer", r"the 263 ids of the model.*tok\.bin has 261"),
        ("twins", "the 263 pieces of tok.bin must differ; 262 do"),
        ("occupied", "needs a new directory"),
    ],
)
def test_files_that_cannot_be_imported_are_refused(how: str, says: str, tmp_path: Path) -> None:
    spoil(tmp_path, how)
    before = set(tmp_path.iterdir())
    with pytest.raises(Refusal, match=says):
        import_llama2c(tmp_path / "m.bin", tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def stories(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stories") / "stories260K"
    return import_llama2c(data_dir / "data" / "stories260K" / "stories260K.bin", folder)


@pytest.fixture(scope="module")
def documents(data_dir: Path) -> list[str]:
    text = load_documents(data_dir / "data" / "tinystories" / "tinystories_sample.txt")
    return [document.strip() for document in text[2200:2240]]


@pytest.mark.data
def test_encoding_is_the_direct_algorithm_on_forty_stories(stories: Path, documents: list[str], data_dir: Path) -> None:
    pieces, scores = stored_pieces(data_dir / "data" / "stories260K" / "tok512.bin")
    tokenizer = AutoTokenizer.from_pretrained(stories)
    found = tokenizer(documents, verbose=False).input_ids
    assert found == [direct_encoding(document, pieces, scores) for document in documents]
    assert tokenizer.batch_decode(found, skip_special_tokens=True) == documents


@pytest.mark.data
def test_the_trained_model_predicts_its_stories(stories: Path, documents: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(stories)
    model = AutoModelForCausalLM.from_pretrained(stories).eval()
    rows = [torch.tensor(tokenizer(d, truncation=True, max_length=512).input_ids) for d in documents]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=2)  # causal: the tail changes nothing
    targets = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)[:, 1:]
    with torch.no_grad():
        logits = model(ids).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
    assert int((targets >= 0).sum()) == 13666
    assert nll == pytest.approx(1.211, abs=0.0005)  # README of the data: a NumPy forward pass of another author


@pytest.mark.data
def test_perplexity_of_the_imported_directory(stories: Path, data_dir: Path) -> None:
    sample = data_dir / "data" / "tinystories" / "tinystories_sample.txt"
    text = load_documents(sample)[2200:2240]
    part = stories.parent / "part.txt"
    part.write_text("<|endoftext|>".join(text), encoding="utf-8")
    found = perplexity(stories, part, length=256)
    assert found.protocol == "windows-256"
    assert 1.211 - 0.1 < found.nll < 1.211 + 0.15  # as above, but windows begin within stories
    assert found.interval[0] < found.perplexity < found.interval[1]
