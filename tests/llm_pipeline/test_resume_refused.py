"""What a stopped run is refused for, what of it is healed, and what its hidden states may do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from llm_pipeline import assemble, calibration, changes, durable, hidden, prune
from llm_pipeline.__main__ import app
from llm_pipeline.blocks import BlockWalk
from llm_pipeline.checkpoint import Checkpoint
from llm_pipeline.hidden import HiddenStates, Need, choose, need
from llm_pipeline.prune import prune as prune_run
from llm_pipeline.resume import resume
from solvers.refusal import Refusal

LAYER, NORM = "model.layers.{}.mlp.up_proj.weight", "model.norm.weight"


@pytest.fixture
def model(save_tiny: Callable[..., Path]) -> Path:
    """A sharded model."""
    return save_tiny("llama", max_shard_size="20KB")


@pytest.fixture
def stop(model: Path, ids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`stop(layers, **options)` interrupts a run after so many layers; returns its --out."""

    def stopped(layers: int = 16, **options: Any) -> Path:
        left, solve = [layers], prune.prune_layer

        def interrupted(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return solve(*arguments)

        kept = {key: options.pop(key) for key in ("hidden", "text") if key in options}
        job = assemble.job(str(model), calibration=str(ids), **{"method": "wanda", **options})
        with monkeypatch.context() as patched:
            patched.setattr(prune, "prune_layer", interrupted)
            with pytest.raises(KeyboardInterrupt):
                prune_run(job.plan, job.source, job.tokens, tmp_path / "out", **kept)
        return tmp_path / "out"

    return stopped


@pytest.fixture
def expected(model: Path, prune_to: Callable[..., tuple[Path, Any]]) -> Callable[..., dict[str, bytes]]:
    """The weight files of a run that was let alone."""
    return lambda **options: weights(prune_to(model, "alone", **{"method": "wanda", **options})[0])


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def resumed(out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["resume", str(out), *options])


def replan(out: Path, old: str, new: str) -> None:
    path = partial(out) / "plan.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def flip(folder: Path, name: str) -> None:
    """Another lowest bit in the first entry of a tensor."""
    entry = Checkpoint.open(folder).entries[name]
    with (folder / entry.file).open("r+b") as file:
        file.seek(entry.start)
        byte = file.read(1)[0]
        file.seek(entry.start)
        file.write(bytes([byte ^ 1]))


def truncate(folder: Path, name: str) -> None:
    path = folder / Checkpoint.open(folder).entries[name].file
    path.write_bytes(path.read_bytes()[:-1])


def rename_tensor(folder: Path, name: str) -> None:
    """Another name of the same length in the header: a layout that is not the source's."""
    path = folder / Checkpoint.open(folder).entries[name].file
    path.write_bytes(path.read_bytes().replace(name.encode(), name[::-1].encode()))


def configure(out: Path) -> None:
    path = out.parent / "llama" / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))


CHANGED = {
    "option": (
        lambda out: replan(out, 'sparsity = "50%"', 'sparsity = "60%"'),
        r"plan .* sparsity \(50% then, 60% now",
    ),
    "version": (lambda out: replan(out, "[versions]\n", '[versions]\nadded = "1"\n'), "plan has changed.*added"),
    "weights": (lambda out: flip(out.parent / "llama", LAYER.format(1)), "source model .* has changed.*model-0000"),
    "config": (configure, r"source model has changed.*config\.json"),
    "truncated": (lambda out: truncate(out.parent / "llama", LAYER.format(1)), "bytes long by its own header and is"),
    "calibration": (
        lambda out: np.save(out.parent / "ids.npy", np.ones((4, 32), int)),
        r"calibration text ids\.npy has",
    ),
    "facts": (lambda out: (partial(out) / ".run/run.json").write_text("{"), r"holds a readable \.run/run\.json"),
    "no facts": (lambda out: (partial(out) / ".run/run.json").write_text("{}"), r"readable \.run/run\.json.*KeyError"),
    "a list": (lambda out: (partial(out) / ".run/run.json").write_text("[]"), r"readable \.run/run\.json.*TypeError"),
    "no plan": (lambda out: (partial(out) / "plan.toml").unlink(), r"holds a readable plan\.toml"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_change_is_refused_by_name_and_finished_blocks_are_kept(what: str, stop: Callable[..., Path]) -> None:
    out = stop()
    spoil, says = CHANGED[what]
    spoil(out)
    before = weights(partial(out))
    found = resumed(out)
    assert found.exit_code == 2, found.output
    assert re.search(says, found.stderr), found.stderr
    assert found.stderr.count("\n") == 1
    assert weights(partial(out)) == before
    assert (partial(out) / ".run" / "block-1.json").is_file()


@pytest.mark.parametrize(
    ("place", "other", "says"),
    [
        ("_code", {"solvers/iht.py": "a"}, "the code has changed since the run began: solvers/__init__.py"),
        ("_machine", {"threads": 99}, r"the machine has changed since the run began: threads \(\d+ then, 99 now\)"),
        ("versions", {"torch": "1.0"}, r"the software has changed since the run began: python .*Install the versions"),
    ],
)
def test_other_code_and_another_machine_are_refused(
    place: str, other: dict[str, Any], says: str, stop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stop()
    monkeypatch.setattr(changes, place, lambda *_: other)
    with pytest.raises(Refusal, match=says):
        resume(out)
    monkeypatch.undo()
    resume(out)


@pytest.mark.parametrize(
    ("spoil", "first"),
    [
        (lambda folder: flip(folder, LAYER.format(0)), 0),
        (lambda folder: flip(folder, LAYER.format(1)), 1),
        (lambda folder: truncate(folder, LAYER.format(1)), 1),
        (lambda folder: (folder / ".run/block-1.json").write_text('{"block": 1,'), 1),
        (lambda folder: (folder / ".run/block-0.json").unlink(), 0),
        (lambda folder: (folder / ".run/block-0.json").write_text("{}"), 0),
        (lambda folder: (folder / ".run/block-1.json").write_text("[]"), 1),
        (lambda folder: rename_tensor(folder, "model.layers.1.input_layernorm.weight"), 1),
        (lambda folder: None, 2),
    ],
)
def test_blocks_that_are_not_as_recorded_are_pruned_again(
    spoil: Callable[[Path], None], first: int, stop: Callable[..., Path], expected: Callable[..., Any]
) -> None:
    out, said = stop(), []
    spoil(partial(out))
    resume(out, progress=lambda done, of, what: said.append(what))
    assert weights(out) == expected()
    solved = [int(what.split()[1].rstrip(",")) for what in said if "attention input" in what]
    assert solved == list(range(first, 3))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_a_side_file_that_was_edited_is_copied_again(file: str, stop: Callable[..., Path], model: Path) -> None:
    out = stop()
    edited = (partial(out) / file).read_text().replace("1", "2")
    (partial(out) / file).write_text(edited)
    assert edited != (model / file).read_text()
    resume(out)
    assert (out / file).read_bytes() == (model / file).read_bytes()


@pytest.mark.parametrize("name", [NORM, "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"])
def test_a_tensor_that_is_never_pruned_is_mended(
    name: str, stop: Callable[..., Path], expected: Callable[..., Any]
) -> None:
    out, said = stop(), []
    flip(partial(out), name)
    resume(out, progress=lambda done, of, what: said.append(what))
    assert weights(out) == expected()
    assert not any("pruned again" in what for what in said)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no archive")])
def test_a_text_that_was_lost_is_refused_and_finished_blocks_are_kept(
    spoil: Callable[[Path], None], stop: Callable[..., Path], ids: Path
) -> None:
    text = calibration.evaluation_tokens(ids, None, length=None, vocab_size=97)
    out = stop(text=text)
    held = (partial(out) / ".run" / "text.npz").read_bytes()
    spoil(partial(out) / ".run" / "text.npz")
    found = resumed(out)
    assert found.exit_code == 2
    assert re.match(r"error: an unfinished run holds a readable \.run/text\.npz", found.stderr)
    assert (partial(out) / ".run" / "block-1.json").is_file()
    (partial(out) / ".run" / "text.npz").write_bytes(held)
    assert resume(out).summary["perplexity"]["windows"] == 4


@pytest.mark.parametrize(
    ("layers", "options"),
    [(0, {}), (20, {}), (8, {"error_correction": "block", "inputs": "dense"}), (0, {"allocate": "owl"})],
)
def test_a_stopped_run_ends_as_one_that_was_let_alone(
    layers: int, options: dict[str, Any], stop: Callable[..., Path], expected: Callable[..., Any]
) -> None:
    out = stop(layers, **options)
    again = resume(partial(out))  # the partial folder serves as well
    assert weights(out) == expected(**options)
    assert again.summary["layers"] == 21


def test_hidden_states_with_other_bits_are_refused(stop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out, forward = stop(), BlockWalk.forward

    def nudged(*arguments: Any, **options: Any) -> torch.Tensor:
        found = forward(*arguments, **options)
        found[0, 0, 0] = torch.nextafter(found[0, 0, 0], torch.tensor(9.0))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(BlockWalk, "forward", nudged)
        with pytest.raises(Refusal, match=r"must have the bits that it had.*2 of 3 blocks are kept"):
            resume(out)
    resume(out)


def test_hidden_states_on_disk_are_taken_up_where_they_lie(
    stop: Callable[..., Path], expected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stop(hidden="disk")
    states = partial(out) / ".run" / "hidden-2.bin"
    assert [path.name for path in states.parent.glob("hidden-*")] == [states.name]
    assert states.stat().st_size == 4 * 32 * 32 * 4
    with monkeypatch.context() as patched:
        patched.setattr(BlockWalk, "embed", lambda *_, **__: pytest.fail("not needed"))
        assert resume(out).summary["hidden_states"] == "disk"
    assert weights(out) == expected()


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(bytes(path.stat().st_size)), lambda path: path.unlink()]
)
def test_a_damaged_file_of_hidden_states_is_made_again(
    spoil: Callable[[Path], None], stop: Callable[..., Path], expected: Callable[..., Any]
) -> None:
    out = stop(hidden="disk")
    spoil(partial(out) / ".run" / "hidden-2.bin")
    resume(out)
    assert weights(out) == expected()


def test_hidden_states_may_move_when_a_run_goes_on(stop: Callable[..., Path], expected: Callable[..., Any]) -> None:
    out = stop(hidden="memory")
    found = resumed(out, "--hidden", "disk", "--json")
    assert json.loads(found.stdout)["hidden_states"] == "disk"
    assert weights(out) == expected()


def test_memory_that_does_not_suffice_is_told_and_finished_blocks_are_kept(
    stop: Callable[..., Path], expected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> None:
        raise np._core._exceptions._ArrayMemoryError((2**20, 2**20), np.dtype("float64"))

    out = stop()
    with monkeypatch.context() as patched:
        patched.setattr(prune, "prune_layer", exhausted)
        found = resumed(out)
    assert found.exit_code == 2
    assert re.match(r"error: out of memory \(.*8.00 TiB.*\); 2 of 3 blocks are kept\. Use --hidden disk", found.stderr)
    resume(out)
    assert weights(out) == expected()


def not_a_number(model: Path, name: str) -> None:
    entry = Checkpoint.open(model).entries[name]
    with (model / entry.file).open("r+b") as file:
        file.seek(entry.start)
        file.write(np.float32("nan").tobytes())


LAST = LAYER.format(2)
SPOILT_SHARD = {
    "truncated": (truncate, r"model-0000\d-of-\d+\.safetensors must hold model\.layers\.2\.\S+ as when it was opened"),
    "not a number": (not_a_number, rf"tensor {LAST} must be finite; 1 of its 1280 entries are NaN or infinite"),
    "gone": (
        lambda model, name: (model / Checkpoint.open(model).entries[name].file).unlink(),
        r"model-0000\d-of-\d+\.safetensors must hold model\.layers\.2\.\S+ as when it was opened",
    ),
}


@pytest.mark.parametrize("what", SPOILT_SHARD)
def test_a_shard_that_spoils_during_the_run_is_told_and_finished_blocks_are_kept(
    what: str, model: Path, ids: Path, expected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The source's shard is damaged while the last block is pruned; mended, the run goes on as if it had not been."""
    (spoil, says), solve, solved = SPOILT_SHARD[what], prune.prune_layer, []
    shard = model / Checkpoint.open(model).entries[LAST].file
    sound, alone = shard.read_bytes(), expected()

    def damaging(*arguments: Any) -> Any:
        solved.append(arguments)
        if len(solved) == 15:
            spoil(model, LAST)
        return solve(*arguments)

    words = ["prune", str(model), "--calibration", str(ids), "--method", "wanda", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(prune, "prune_layer", damaging)
        found = CliRunner().invoke(app, words)
    assert found.exit_code == 2, found.output
    assert re.match(rf"error: .*{says}.* 2 of 3 blocks are kept\. Go on with: python -m", found.stderr), found.stderr
    assert found.stderr.count("\n") == 1
    assert resumed(tmp_path / "out").exit_code == 2  # as long as the source is not what it was
    shard.write_bytes(sound)
    assert resumed(tmp_path / "out").exit_code == 0
    assert weights(tmp_path / "out") == alone


def test_a_disk_that_fills_up_when_a_run_goes_on(
    stop: Callable[..., Path], expected: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stop(3)
    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        found = resumed(out)
    assert re.match("error: the disk of .* filled up while writing; 0 of 3 blocks are kept", found.stderr)
    resume(out)
    assert weights(out) == expected()


def test_a_disk_that_has_no_room_for_hidden_states(model: Path, ids: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The second block's file of hidden states finds no room: the first block is kept, and the run goes on."""
    taken, reserve = [], hidden.os.posix_fallocate

    def full(*arguments: Any) -> None:
        taken.append(arguments)
        if len(taken) > 2:
            raise OSError(28, "No space left on device")
        reserve(*arguments)

    words = ["prune", str(model), "--calibration", str(ids), "--method", "wanda", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(hidden.os, "posix_fallocate", full)
        found = CliRunner().invoke(app, [*words, "--hidden", "disk"])
    assert found.exit_code == 2
    assert re.match("error: the disk of .* filled up while writing; 1 of 3 blocks are kept", found.stderr), found.stderr
    assert resumed(tmp_path / "out").exit_code == 0


ROOM = Need(hidden=100, block=50)


@pytest.mark.parametrize(
    ("typed", "free", "place"),
    [("auto", 188, "memory"), ("auto", 187, "disk"), ("memory", 0, "memory"), ("disk", 10**9, "disk")],
)
def test_hidden_states_stay_in_memory_while_there_is_room(
    typed: str, free: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "free_memory", lambda: free)
    assert choose(typed, "cpu", ROOM) == place


@pytest.mark.parametrize(("gpu", "memory", "place"), [(188, 0, "gpu"), (187, 125, "memory"), (187, 124, "disk")])
def test_hidden_states_stay_on_the_gpu_while_there_is_room(
    gpu: int, memory: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "free_memory", lambda: memory)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu, 10**9))
    assert choose("auto", "cuda", ROOM) == place


def test_what_a_run_needs_is_counted(tiny: Path) -> None:
    source = Checkpoint.open(tiny)
    found = need(source, 128, 16, torch.float32)
    assert found.hidden == 128 * 16 * 32 * 4
    assert need(source, 128, 16, torch.bfloat16).hidden == found.hidden // 2
    block = sum(source.read(name).nbytes for name in source.names if "layers.0" in name and "proj" in name)
    assert need(source, 128, 16, torch.float32, copies=2).block == found.block + block
    assert 0 < hidden.free_memory() < 2**50


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_place_passes_on_the_same_bits(place: str, dtype: torch.dtype, tiny: Path, tmp_path: Path) -> None:
    walk = BlockWalk(Checkpoint.open(tiny), "cpu", dtype=dtype)
    ids = np.random.default_rng(1).integers(0, 97, (11, 8))
    states, plain = HiddenStates(walk, place, tmp_path), walk.embed(ids)
    with torch.inference_mode():
        states.embed(ids)
        digests = [states.digest()]
        for i in range(2):
            plain = walk.forward(walk.load(i), i, plain)
            states.advance(walk.load(i), i)
            digests.append(states.digest())
        assert torch.equal(states.now, plain)
    assert len(set(digests)) == 3
    assert len(list(tmp_path.glob("hidden-*.bin"))) == (3 if place == "disk" else 0)
