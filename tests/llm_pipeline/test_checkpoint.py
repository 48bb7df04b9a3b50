"""Reading model directories, and writing ones that are complete or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llm_pipeline import durable, locate, output_folder
from llm_pipeline.checkpoint import Checkpoint, require_finite
from llm_pipeline.output_folder import OutputFolder
from llm_pipeline.unfinished import TOLD
from solvers.refusal import Refusal

DOWN = "model.layers.1.mlp.down_proj.weight"


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "20KB"}], ids=["one file", "shards"])
def test_every_tensor_is_read_as_it_is_stored(saving: dict, save_tiny: Callable[..., Path]) -> None:
    folder = save_tiny("llama", dtype=torch.bfloat16, **saving)
    checkpoint, expected = Checkpoint.open(folder), stored(folder)
    assert set(checkpoint.names) == set(expected)
    assert len(checkpoint.files) == len(list(folder.glob("*.safetensors")))
    assert (len(checkpoint.files) > 1) == bool(saving)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.read(name), tensor)
        assert (checkpoint.shape(name), checkpoint.dtype(name)) == (tuple(tensor.shape), torch.bfloat16)
    assert checkpoint.working_dtype == torch.bfloat16


def test_digests_are_those_of_the_weight_files(tiny: Path) -> None:
    digest = hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()
    assert Checkpoint.open(tiny).sha256() == {"model.safetensors": digest}


@pytest.mark.parametrize(
    ("kept", "asked"),
    [("decoder.layers.0.fc1.bias", "model.decoder.layers.0.fc1.bias"), ("model.a.b", "a.b"), ("x.y", "x.y")],
)
def test_a_leading_model_may_be_missing_or_extra(kept: str, asked: str) -> None:
    entry = SimpleNamespace(shape=(2,))
    checkpoint = Checkpoint(Path("m"), SimpleNamespace(model_type="opt"), (), {kept: entry})
    assert checkpoint.resolve(asked) == kept
    with pytest.raises(Refusal, match="needs a tensor nowhere; m holds 1 tensors, not this one"):
        checkpoint.resolve("nowhere")


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_matrix_is_found_under_its_other_name(tied: bool) -> None:
    config = SimpleNamespace(model_type="llama", tie_word_embeddings=tied)
    checkpoint = Checkpoint(Path("m"), config, (), {"lm_head.weight": SimpleNamespace()})
    if tied:
        assert checkpoint.resolve("model.embed_tokens.weight") == "lm_head.weight"
    else:
        with pytest.raises(Refusal, match=r"model\.embed_tokens\.weight"):
            checkpoint.resolve("model.embed_tokens.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused_by_name(value: float) -> None:
    good = torch.ones(2, 3)
    assert require_finite("w", good) is good
    good[1, 2] = value
    with pytest.raises(Refusal, match=r"tensor w must be finite; 1 of its 6 entries"):
        require_finite("w", good)


def spoil(tiny: Path, how: str) -> Path:
    weights = tiny / "model.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif how == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1")
    elif how == "only bin":
        weights.rename(tiny / "pytorch_model.bin")
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        (tiny / "config.json").unlink()
    elif how == "unknown type":
        (tiny / "config.json").write_text('{"model_type": "nonesuch"}')
    elif how == "missing shard":
        weights.unlink()
        index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
        (tiny / "model.safetensors.index.json").write_text(json.dumps(index))
    elif how == "quantised":
        config = json.loads((tiny / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "fp8"}
        (tiny / "config.json").write_text(json.dumps(config))
    return tiny


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("truncated", "bytes long by its own header and is"),
        ("pointer", "must be a safetensors file.*Git LFS pointer"),
        ("only bin", r"holds \.bin files only.*save_pretrained"),
        ("no weights", "incomplete download"),
        ("no config", r"needs config\.json"),
        ("unknown type", "must name a model that transformers knows"),
        ("missing shard", "model-00001-of-00001.safetensors of .* are missing"),
        ("quantised", "are quantised"),
    ],
)
def test_a_spoilt_directory_is_refused(how: str, says: str, tiny: Path) -> None:
    with pytest.raises(Refusal, match=says):
        Checkpoint.open(spoil(tiny, how))


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kind", ["llama tied", "opt"])
def test_the_command_that_converts_bin_files_does(
    kind: str, shards: int, save_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Of a folder that a shell would split and a string would end; the program is run as it is told."""
    model = save_tiny(kind, dtype=torch.bfloat16).rename(tmp_path / "it's [a] model")
    (weights,) = model.glob("*.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    weights.unlink()
    names = [list(tensors)[k::shards] for k in range(shards)]
    files = ["pytorch_model.bin"] if shards == 1 else [f"pytorch_model-0000{k + 1}-of-00002.bin" for k in range(2)]
    for file, part in zip(files, names, strict=True):
        torch.save({name: tensors[name] for name in part}, model / file)
    if shards > 1:
        places = {name: file for file, part in zip(files, names, strict=True) for name in part}
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (model / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(Refusal, match=r"holds \.bin files only\. Convert them once: python -c ") as refused:
        Checkpoint.open(model)
    python, option, program = shlex.split(str(refused.value).partition("Convert them once: ")[2])
    assert (python, option) == ("python", "-c")
    exec(program, {})
    written = Checkpoint.open(model)
    assert written.names
    assert set(written.names) == set(tensors)
    assert all(torch.equal(written.read(name), tensors[name]) for name in tensors)


def test_a_hub_model_of_bin_files_is_told_with_its_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny / "model.safetensors").unlink()
    monkeypatch.setattr(locate, "snapshot_download", lambda *_, **__: str(tiny))
    with pytest.raises(Refusal, match=r"the hub has none of org/old, .* give the directory old: python -c ") as refused:
        Checkpoint.open("org/old")
    program = shlex.split(str(refused.value).partition("directory old: ")[2])[2]
    for kind, more in (("M", ", dtype='auto'"), ("T", "")):
        assert f"{kind}.from_pretrained('org/old'{more}).save_pretrained('old')" in program


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none_is_refused(index: str, tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    (tiny / "model.safetensors.index.json").write_text(index)
    with pytest.raises(Refusal, match=r"index\.json must be JSON with a weight_map"):
        Checkpoint.open(tiny)


def test_a_path_that_is_no_directory_is_refused(tiny: Path) -> None:
    for path in (tiny / "nowhere", tiny / "config.json", "just-a-name"):
        with pytest.raises(Refusal, match=r"is not one\. Probably a misspelt path"):
            Checkpoint.open(path)


def test_a_hub_name_is_fetched_or_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(name: str, **_: object) -> str:
        asked.append(name)
        if name == "org/good":
            return str(tiny)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(locate, "snapshot_download", answer)
    assert Checkpoint.open("org/good").path == tiny
    with pytest.raises(Refusal, match=r"no directory org/bad.*\(ConnectionError: no route\)"):
        Checkpoint.open("org/bad")
    assert asked == ["org/good", "org/bad"]


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "20KB"}], ids=["one file", "shards"])
def test_one_tensor_changes_and_everything_else_stays_bit_for_bit(
    saving: dict, save_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    source = save_tiny("llama", dtype=torch.bfloat16, **saving)
    before, files = stored(source), contents(source)
    weight = torch.arange(32 * 40, dtype=torch.bfloat16).reshape(40, 32).T  # not contiguous
    with OutputFolder(Checkpoint.open(source), tmp_path / "new" / "out") as folder:
        folder.begin({}, None)
        folder.put(DOWN, weight)
        folder.write_text("plan.toml", "seed = 0\n")
        folder.write_lines("layers.jsonl", ["1", "2"])
    after = contents(tmp_path / "new" / "out")
    assert after.pop("plan.toml") == b"seed = 0\n"
    assert after.pop("layers.jsonl") == b"1\n2\n"
    assert after.keys() == files.keys()
    changed = {name for name in files if files[name] != after[name]}
    assert changed == {Checkpoint.open(source).entries[DOWN].file}
    written = stored(tmp_path / "new" / "out")
    assert torch.equal(written.pop(DOWN), weight)
    assert all(torch.equal(written[name], before[name]) for name in written)
    assert contents(source) == files
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "out")
    assert torch.equal(loaded.get_parameter(DOWN), weight)


def test_only_the_model_is_copied(tiny: Path, tmp_path: Path) -> None:
    for name in (".cache", "README.md", "pytorch_model.bin", "consolidated.safetensors", "layers.jsonl"):
        (tiny / name).write_text("x")
    (tiny / "original").mkdir()
    for name in ("tokenizer.json", "merges.txt", "chat_template.jinja", "LICENSE"):
        (tiny / name).write_text(name)
    with OutputFolder(Checkpoint.open(tiny), tmp_path / "out") as folder:
        folder.begin({}, None)
    expected = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "merges.txt"}
    assert set(contents(tmp_path / "out")) == expected | {"chat_template.jinja", "LICENSE"}
    assert not any(path.is_dir() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_remains_of_a_run_that_did_not_begin(error: type[BaseException], tiny: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())

    def dies() -> None:
        with OutputFolder(Checkpoint.open(tiny), tmp_path / "a" / "b" / "out") as folder:
            assert folder.partial.is_dir()
            assert not folder.out.exists()
            raise error

    with pytest.raises(error):
        dies()
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("error", "finished", "kept"),
    [
        (ZeroDivisionError, 0, False),
        (ZeroDivisionError, 1, True),
        (MemoryError, 0, False),
        (MemoryError, 1, True),
        (KeyboardInterrupt, 0, True),
    ],
)
def test_what_is_kept_of_a_run(
    error: type[BaseException], finished: int, kept: bool, tiny: Path, tmp_path: Path
) -> None:
    def dies() -> None:
        with OutputFolder(Checkpoint.open(tiny), tmp_path / "a" / "out") as folder:
            folder.begin({}, None)
            for i in range(finished):
                folder.finish({**dict.fromkeys(TOLD, 0), "block": i, "layers": []})
            raise error

    with pytest.raises((error, Refusal)) as caught:
        dies()
    assert (tmp_path / "a" / "out.partial").exists() == kept
    assert not (tmp_path / "a" / "out").exists()
    says = f"{finished} of 3 blocks are kept.*python -m llm_pipeline resume .*out$"
    if error is not ZeroDivisionError:
        assert re.search(says if kept else "nothing was kept", str(caught.value))
    assert (tmp_path / "a").exists() == kept


def test_the_remains_of_a_dead_run_are_replaced(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "layers.jsonl").write_text("old\n")
    with OutputFolder(Checkpoint.open(tiny), tmp_path / "out") as folder:
        folder.begin({}, None)
    assert not (tmp_path / "out" / "layers.jsonl").exists()


def test_an_unfinished_run_is_refused_and_kept(tiny: Path, tmp_path: Path) -> None:
    def stops() -> None:
        with OutputFolder(Checkpoint.open(tiny), tmp_path / "out") as folder:
            folder.begin({}, None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stops()
    before = contents(tmp_path / "out.partial")
    says = r"holds an unfinished run\. Choose another --out, or remove .*, or go on with: python -m llm_pipeline resume"
    with pytest.raises(Refusal, match=says):
        OutputFolder(Checkpoint.open(tiny), tmp_path / "out").__enter__()
    assert contents(tmp_path / "out.partial") == before


def test_a_second_writer_is_refused_and_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    with OutputFolder(Checkpoint.open(tiny), tmp_path / "out") as folder:
        folder.begin({}, None)
        with pytest.raises(Refusal, match=r"out is being written by process \d+"):
            OutputFolder(Checkpoint.open(tiny), tmp_path / "out").__enter__()
        assert (folder.partial / "model.safetensors").is_file()
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_an_output_that_exists_is_refused_and_kept(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(Refusal, match=r"exists already\. Choose another --out"):
        OutputFolder(Checkpoint.open(tiny), tmp_path / "out").__enter__()
    assert (tmp_path / "out" / "precious").read_text() == "x"
    assert not (tmp_path / "out.partial").exists()


def test_another_shape_or_dtype_is_refused(tiny: Path, tmp_path: Path) -> None:
    weight = Checkpoint.open(tiny).read(DOWN)
    for wrong in (weight.T, weight.bfloat16(), weight[:, :-1]):
        with (
            pytest.raises(Refusal, match=r"is stored as torch.float32 of shape \(32, 40\)"),
            OutputFolder(Checkpoint.open(tiny), tmp_path / "out") as folder,
        ):
            folder.put(DOWN, wrong)
    assert not (tmp_path / "out").exists()


def test_a_small_disk_is_refused_beforehand(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(len(text) for text in contents(tiny).values())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(Refusal, match=rf"needs {needed} bytes and .* has {needed - 1} available"):
        OutputFolder(Checkpoint.open(tiny), tmp_path / "out").__enter__()
    assert not (tmp_path / "out.partial").exists()
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: usage._replace(free=needed))
    with OutputFolder(Checkpoint.open(tiny), tmp_path / "out"):
        pass


@pytest.mark.parametrize("during", ["copy", "work", "publish"])
def test_a_disk_that_fills_up_is_told_and_leaves_nothing(
    during: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if during == "copy":
        monkeypatch.setattr(durable.shutil, "copyfile", full)

    def run() -> None:
        with OutputFolder(Checkpoint.open(tiny), tmp_path / "out") as folder:
            folder.begin({}, None)
            if during == "work":
                full()
            if during == "publish":
                monkeypatch.setattr(durable.os, "fsync", full)

    with pytest.raises(Refusal, match="filled up while writing; nothing was kept"):
        run()
    assert [path.name for path in tmp_path.iterdir()] == [tiny.name]


def test_offsets_do_not_depend_on_the_order_of_the_header(tiny: Path, tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.arange(5, dtype=torch.float16)}
    save_file(tensors, tiny / "model.safetensors")
    with OutputFolder(Checkpoint.open(tiny), tmp_path / "out") as folder:
        folder.begin({}, None)
        folder.put("a", -tensors["a"])
    written = stored(tmp_path / "out")
    assert torch.equal(written["a"], -tensors["a"])
    assert torch.equal(written["b"], tensors["b"])
